#include "model/spike_neuron.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/fail.h"

namespace mneme {
namespace {

// Ties to even, whatever the rounding mode of the thread.
float round_even(float x) noexcept {
  const float down = std::floor(x), part = x - down;
  if (part < 0.5f) return down;
  if (part > 0.5f) return down + 1;
  return std::fmod(down, 2.0f) == 0 ? down : down + 1;
}

}  // namespace

void check_spike_rule(const SpikeRule& rule) {
  require(std::isfinite(rule.k) && rule.k > 0, ErrorCode::invalid_argument,
          "k of a spiking neuron must be a positive number, not {}", rule.k);
  require(std::isfinite(rule.dead_zone) && rule.dead_zone >= 0, ErrorCode::invalid_argument,
          "the dead zone of a spiking neuron must be 0 or a positive number of thresholds, not {}",
          rule.dead_zone);
}

float spike_threshold(std::span<const float> x, float k) noexcept {
  double sum = 0;
  for (const float value : x) sum += std::fabs(static_cast<double>(value));
  if (!std::isfinite(sum)) return std::numeric_limits<float>::quiet_NaN();
  const double mean = x.empty() ? 0.0 : sum / static_cast<double>(x.size());
  return std::clamp(static_cast<float>(mean) / k, kMinSpikeThreshold, kMaxSpikeThreshold);
}

float spike_row(std::span<const float> x, const SpikeRule& rule, std::span<int32_t> counts) noexcept {
  const float threshold = spike_threshold(x, rule.k);
  if (std::isnan(threshold)) {
    std::fill(counts.begin(), counts.end(), 0);
    return threshold;
  }
  const float dead = rule.dead_zone * threshold, most = static_cast<float>(kMaxSpikeCount);
  for (size_t i = 0; i < x.size(); ++i)
    counts[i] = std::fabs(x[i]) < dead
                    ? 0
                    : static_cast<int32_t>(std::clamp(round_even(x[i] / threshold), -most, most));
  return threshold;
}

std::vector<float> spike_heads(std::span<const float> x, int64_t head_dim, const SpikeRule& rule,
                               std::span<int32_t> counts) {
  require(head_dim > 0 && std::ssize(x) % head_dim == 0, ErrorCode::invalid_argument,
          "{} values do not divide into heads of {}", x.size(), head_dim);
  const auto dim = static_cast<size_t>(head_dim);
  std::vector<float> thresholds;
  for (size_t at = 0; at < x.size(); at += dim)
    thresholds.push_back(spike_row(x.subspan(at, dim), rule, counts.subspan(at, dim)));
  return thresholds;
}

int IntegrateAndFire::step(double input) noexcept {
  potential_ += input;
  const double size = std::fabs(potential_), half = threshold_ / 2;
  const int sign = potential_ < 0 ? -1 : 1;
  if (size < half || (size == half && count_ % 2 == 0)) return 0;
  potential_ -= sign * threshold_;
  count_ += sign;
  return sign;
}

Settled settle(std::span<const float> inputs, double threshold) {
  constexpr int64_t kMostSpikes = int64_t{1} << 26;
  require(std::isfinite(threshold) && threshold > 0, ErrorCode::invalid_argument,
          "a threshold must be a positive number, not {}", threshold);
  double total = 0;
  for (const float input : inputs) total += std::fabs(static_cast<double>(input));
  require(std::isfinite(total), ErrorCode::invalid_argument, "inputs of a neuron must be finite numbers");
  require(total / threshold <= static_cast<double>(kMostSpikes), ErrorCode::limit,
          "inputs of {} would take more than {} spikes at a threshold of {}", total, kMostSpikes, threshold);
  IntegrateAndFire neuron(threshold);
  Settled settled;
  for (const float input : inputs) {
    neuron.step(input);
    ++settled.steps;
  }
  while (neuron.step(0) != 0) ++settled.steps;
  settled.count = neuron.count();
  settled.residue = neuron.potential();
  return settled;
}

LeakyIntegrateAndFire::LeakyIntegrateAndFire(const Options& options) : options_(options) {
  require(options.leak >= 0 && options.leak <= 1, ErrorCode::invalid_argument,
          "the leak of a neuron must lie between 0 and 1, not {}", options.leak);
  require(std::isfinite(options.threshold) && options.threshold > 0, ErrorCode::invalid_argument,
          "a threshold must be a positive number, not {}", options.threshold);
  require(options.reset_potential < options.threshold, ErrorCode::invalid_argument,
          "a neuron that is reset to {} would fire at its threshold of {} forever", options.reset_potential,
          options.threshold);
}

bool LeakyIntegrateAndFire::step(float input) noexcept {
  const float charged = options_.leak * potential_ + input;
  const bool fires = charged >= options_.threshold;
  potential_ = !fires                               ? charged
               : options_.reset == SpikeReset::soft ? charged - options_.threshold
                                                    : options_.reset_potential;
  return fires;
}

DrainedNeuron::DrainedNeuron(std::vector<float> weights, float leak, float theta)
    : weights_(std::move(weights)), leak_(leak), theta_(theta) {
  require(leak >= 0 && leak <= 1, ErrorCode::invalid_argument,
          "the leak of a neuron must lie between 0 and 1, not {}", leak);
  require(std::isfinite(theta) &&
              std::all_of(weights_.begin(), weights_.end(), [](float w) { return std::isfinite(w); }),
          ErrorCode::invalid_argument, "threshold and weights of a neuron must be finite numbers");
}

bool DrainedNeuron::step(std::span<const float> inputs) {
  require(inputs.size() == weights_.size(), ErrorCode::invalid_argument,
          "a neuron with {} weights was given {} inputs", weights_.size(), inputs.size());
  float sum = 0;
  for (size_t i = 0; i < inputs.size(); ++i) sum += weights_[i] * inputs[i];
  potential_ = leak_ * potential_ + sum - theta_;
  return potential_ > 0;
}

}  // namespace mneme
