#include "model/spike_codes.h"

#include <algorithm>
#include <bit>
#include <cstdlib>

#include "core/fail.h"

namespace mneme {
namespace {

constexpr std::array<std::string_view, 5> kNames{"binary", "ternary", "unsigned", "bidirectional",
                                                 "twos-complement"};
constexpr int64_t kMostSlots = int64_t{1} << 31;

int64_t magnitude(int32_t count) noexcept {
  return std::abs(int64_t{count});
}
int64_t bits_of(int64_t value) noexcept {
  return std::bit_width(static_cast<uint64_t>(value));
}
bool is_bitwise(SpikeCode code) noexcept {
  return code != SpikeCode::binary && code != SpikeCode::ternary;
}

// Whether `steps` steps hold the count, which is in the code's domain.
bool fits(SpikeCode code, int32_t count, int64_t steps) noexcept {
  if (!is_bitwise(code)) return magnitude(count) <= steps;
  if (code != SpikeCode::twos_complement) return bits_of(magnitude(count)) <= steps;
  return bits_of(count < 0 ? -int64_t{count} - 1 : count) < steps;
}

void check_counts(SpikeCode code, std::span<const int32_t> counts, int64_t steps) {
  for (size_t i = 0; i < counts.size(); ++i) {
    require(counts[i] >= 0 || !is_unsigned(code), ErrorCode::invalid_argument,
            "{} spikes cannot hold the negative count {} of neuron {}; a signed code is ternary, "
            "bidirectional or "
            "twos-complement",
            to_string(code), counts[i], i);
    require(fits(code, counts[i], steps), ErrorCode::invalid_argument,
            "{} steps of {} spikes cannot hold the count {} of neuron {}; it takes {}", steps,
            to_string(code), counts[i], i, spike_steps(code, counts[i], counts[i]));
  }
}

// The bits of a bitwise code, without the sign of bidirectional spikes.
uint64_t bits(SpikeCode code, int32_t count, int64_t steps) noexcept {
  if (code != SpikeCode::twos_complement) return static_cast<uint64_t>(magnitude(count));
  return static_cast<uint64_t>(int64_t{count}) & ((uint64_t{1} << steps) - 1);
}

void fill_counting(std::span<const int32_t> counts, SpikeTrain& train) {
  int8_t* out = train.spikes.data();
  for (int64_t t = 0; t < train.steps; ++t, out += counts.size())
    for (size_t i = 0; i < counts.size(); ++i)
      out[i] = static_cast<int8_t>((counts[i] > t ? 1 : 0) - (counts[i] < -t ? 1 : 0));
}

void fill_bitwise(std::span<const int32_t> counts, SpikeTrain& train) {
  int8_t* out = train.spikes.data();
  for (int64_t t = 0; t < train.steps; ++t, out += counts.size())
    for (size_t i = 0; i < counts.size(); ++i) {
      const auto bit =
          static_cast<int>(bits(train.code, counts[i], train.steps) >> (train.steps - 1 - t) & 1);
      out[i] = static_cast<int8_t>(train.code == SpikeCode::bidirectional && counts[i] < 0 ? -bit : bit);
    }
}

}  // namespace

std::string_view to_string(SpikeCode code) noexcept {
  return kNames[static_cast<size_t>(code)];
}

std::optional<SpikeCode> spike_code_from(std::string_view name) noexcept {
  const auto at = std::find(kNames.begin(), kNames.end(), name);
  if (at == kNames.end()) return std::nullopt;
  return kSpikeCodes[static_cast<size_t>(at - kNames.begin())];
}

bool is_unsigned(SpikeCode code) noexcept {
  return code == SpikeCode::binary || code == SpikeCode::unsigned_;
}

int64_t spike_steps(SpikeCode code, int32_t least, int32_t most) {
  require(least >= 0 || !is_unsigned(code), ErrorCode::invalid_argument,
          "{} spikes cannot hold the negative count {}; a signed code is ternary, bidirectional or "
          "twos-complement",
          to_string(code), least);
  const int64_t largest = std::max(magnitude(least), magnitude(most));
  if (!is_bitwise(code)) return std::max<int64_t>(1, largest);
  if (code == SpikeCode::twos_complement) return std::max<int64_t>(2, bits_of(largest) + 1);
  return std::max<int64_t>(1, bits_of(largest));
}

int64_t spikes_of(SpikeCode code, int32_t count, int64_t steps) noexcept {
  return is_bitwise(code) ? std::popcount(bits(code, count, steps)) : magnitude(count);
}

int64_t step_weight(SpikeCode code, int64_t steps, int64_t t) noexcept {
  if (!is_bitwise(code)) return 1;
  const int64_t weight = int64_t{1} << (steps - 1 - t);
  return code == SpikeCode::twos_complement && t == 0 ? -weight : weight;
}

double SpikeTrain::rate() const noexcept {
  if (spikes.empty()) return 0;
  const auto silent = std::count(spikes.begin(), spikes.end(), int8_t{0});
  return 1 - static_cast<double>(silent) / static_cast<double>(spikes.size());
}

SpikeTrain encode_spikes(SpikeCode code, std::span<const int32_t> counts, int64_t steps) {
  require(steps >= 0 && (steps <= 62 || !is_bitwise(code)), ErrorCode::invalid_argument,
          "a train cannot have {} steps of {} spikes", steps, to_string(code));
  if (steps == 0) {
    const auto [least, most] = std::minmax_element(counts.begin(), counts.end());
    steps = counts.empty() ? spike_steps(code, 0, 0) : spike_steps(code, *least, *most);
  }
  check_counts(code, counts, steps);
  require(steps <= kMostSlots / std::max<std::ptrdiff_t>(1, std::ssize(counts)), ErrorCode::limit,
          "{} steps of {} neurons are more than {} slots; a bitwise code takes fewer steps", steps,
          counts.size(), kMostSlots);
  SpikeTrain train{code, steps, std::ssize(counts), {}};
  train.spikes.resize(static_cast<size_t>(steps) * counts.size());
  is_bitwise(code) ? fill_bitwise(counts, train) : fill_counting(counts, train);
  return train;
}

std::vector<int32_t> decode_spikes(const SpikeTrain& train) {
  // Wraps where a weight alone is beyond 32 bits, as a sum may be on the way: the count itself is not.
  std::vector<uint32_t> sums(static_cast<size_t>(train.width));
  for (int64_t t = 0; t < train.steps; ++t) {
    const auto weight = static_cast<uint32_t>(step_weight(train.code, train.steps, t));
    const int8_t* spikes = train.step(t).data();
    if (weight == 1)
      for (size_t i = 0; i < sums.size(); ++i) sums[i] += static_cast<uint32_t>(spikes[i]);
    else
      for (size_t i = 0; i < sums.size(); ++i) sums[i] += weight * static_cast<uint32_t>(spikes[i]);
  }
  return {sums.begin(), sums.end()};
}

void spike_train_product(const SpikeTrain& train, std::span<const int8_t> weights, std::span<int64_t> y) {
  require(std::ssize(weights) == train.width * std::ssize(y), ErrorCode::invalid_argument,
          "{} weights do not connect {} neurons to {} outputs", weights.size(), train.width, y.size());
  std::fill(y.begin(), y.end(), 0);
  std::vector<int64_t> sums(y.size());
  for (int64_t t = 0; t < train.steps; ++t) {
    std::fill(sums.begin(), sums.end(), 0);
    const auto spikes = train.step(t);
    for (size_t i = 0; i < spikes.size(); ++i) {
      if (spikes[i] == 0) continue;
      for (size_t r = 0; r < y.size(); ++r) {
        const int64_t weight = weights[r * spikes.size() + i];
        sums[r] += spikes[i] > 0 ? weight : -weight;
      }
    }
    for (size_t r = 0; r < y.size(); ++r) y[r] += step_weight(train.code, train.steps, t) * sums[r];
  }
}

}  // namespace mneme
