#include "eval/input_sizes.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace mneme {
namespace {

constexpr int kMantissaShift = 23 - 5;  // the upper 5 bits of a mantissa: 32 bins an octave
constexpr double kUnit = 4294967296.0;  // of energy and steps
constexpr float kMostTerm = 256.0f;     // one input's part of a bin, far beyond any that matters

uint64_t whole(float part) {
  return static_cast<uint64_t>(
      std::llround(static_cast<double>(part < kMostTerm ? part : kMostTerm) * kUnit));
}

}  // namespace

int InputSizes::bin_of(float ratio) {
  const auto first = static_cast<int>(std::bit_cast<uint32_t>(static_cast<float>(kLeast)) >> kMantissaShift);
  const auto at = static_cast<int>(std::bit_cast<uint32_t>(ratio) >> kMantissaShift);
  return std::clamp(at - first + 1, 0, kBins - 1);
}

double InputSizes::lower_edge(int bin) {
  if (bin == 0) return 0;
  const int step = bin - 1;
  return std::ldexp(kLeast, step / kPerOctave) * (1 + static_cast<double>(step % kPerOctave) / kPerOctave);
}

bool InputSizes::add(std::span<const float> x, std::span<const float> weights) {
  double sum = 0, output = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    sum += std::fabs(static_cast<double>(x[i]));
    output += static_cast<double>(weights[i]) * x[i] * x[i];
  }
  if (!std::isfinite(sum)) return false;
  const double mean = x.empty() ? 0 : sum / static_cast<double>(x.size());
  const float to_ratio = mean > 1e-30 ? static_cast<float>(1 / mean) : 0;
  const bool counts = output > 0 && std::isfinite(output);
  const float per_square = counts ? static_cast<float>(mean * mean / output) : 0;
  rows_ += counts ? 1 : 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const float ratio = std::fabs(x[i]) * to_ratio;
    const float step = weights[i] * per_square;
    Bin& bin = bins_[static_cast<size_t>(bin_of(ratio))];
    ++bin.count;
    bin.energy += whole(step * ratio * ratio);
    bin.steps += whole(step);
  }
  return true;
}

void InputSizes::add(const InputSizes& other) {
  for (size_t b = 0; b < bins_.size(); ++b) {
    bins_[b].count += other.bins_[b].count;
    bins_[b].energy += other.bins_[b].energy;
    bins_[b].steps += other.bins_[b].steps;
  }
  rows_ += other.rows_;
}

uint64_t InputSizes::inputs() const {
  uint64_t sum = 0;
  for (const Bin& bin : bins_) sum += bin.count;
  return sum;
}

double InputSizes::below(double ratio) const {
  uint64_t sum = 0, all = 0;
  for (int b = 0; b < kBins; ++b) {
    const Bin& bin = bins_[static_cast<size_t>(b)];
    all += bin.count;
    if (lower_edge(b + 1) <= ratio * (1 + 1e-9)) sum += bin.count;
  }
  return all > 0 ? static_cast<double>(sum) / static_cast<double>(all) : 0;
}

NeuronCandidate InputSizes::candidate(double k, double dead_zone) const {
  const double silent_ratio = std::max(dead_zone, 0.5) / k;
  uint64_t count = 0, silent = 0;
  double extra = 0, lost = 0, steps = 0;
  for (int b = 0; b < kBins; ++b) {
    const Bin& bin = bins_[static_cast<size_t>(b)];
    if (bin.count == 0) continue;
    count += bin.count;
    const double low = lower_edge(b), middle = (low + lower_edge(b + 1)) / 2;
    if (middle < silent_ratio) {
      silent += bin.count;
      lost += static_cast<double>(bin.energy) / kUnit;
      continue;
    }
    steps += static_cast<double>(bin.steps) / kUnit;
    const double spikes = middle * k;
    if (spikes > 127) extra += std::ceil((spikes - 127) / 127) * static_cast<double>(bin.count);
  }
  NeuronCandidate out{k, dead_zone};
  if (count > 0) {
    out.silent = static_cast<double>(silent) / static_cast<double>(count);
    out.extra = extra / static_cast<double>(count);
  }
  if (rows_ > 0) out.error = (lost + steps / (12 * k * k)) / static_cast<double>(rows_);
  return out;
}

std::vector<double> silent_ratios() {
  std::vector<double> out{0};
  for (int step = 0; step <= 8 * 9; ++step) out.push_back(std::exp2(step / 8.0 - 7));
  return out;
}

}  // namespace mneme
