#include "eval/spike_statistics.h"

#include <algorithm>
#include <bit>
#include <cstdlib>

#include "core/fail.h"

namespace mneme {
namespace {

uint64_t size_of(int32_t count) noexcept {
  return static_cast<uint64_t>(std::abs(int64_t{count}));
}
void check_steps(int64_t steps) {
  require(steps >= 1 && steps <= 31, ErrorCode::invalid_argument,
          "slots are counted over 1 to 31 steps, not {}", steps);
}

}  // namespace

void SpikeHistogram::add(std::span<const int32_t> counts) {
  if (counts.empty()) return;
  common_.resize(2 * kCommon + 1);
  for (const int32_t count : counts) {
    if (count >= -kCommon && count <= kCommon)
      ++common_[static_cast<size_t>(int64_t{count} + kCommon)];
    else
      ++rare_[count];
    least_ = std::min(least_, count);
    most_ = std::max(most_, count);
  }
  values_ += counts.size();
}

void SpikeHistogram::add(const SpikeHistogram& other) {
  if (other.empty()) return;
  common_.resize(2 * kCommon + 1);
  for (size_t i = 0; i < other.common_.size(); ++i) common_[i] += other.common_[i];
  for (const auto& [count, n] : other.rare_) rare_[count] += n;
  values_ += other.values_;
  least_ = std::min(least_, other.least_);
  most_ = std::max(most_, other.most_);
}

int64_t SpikeHistogram::largest() const noexcept {
  return static_cast<int64_t>(std::max(size_of(least_), size_of(most_)));
}

uint64_t SpikeHistogram::occurrences(int32_t count) const {
  if (count >= -kCommon && count <= kCommon)
    return common_.empty() ? 0 : common_[static_cast<size_t>(int64_t{count} + kCommon)];
  const auto at = rare_.find(count);
  return at == rare_.end() ? 0 : at->second;
}

double SpikeHistogram::silent() const {
  return part(occurrences(0));
}

double SpikeHistogram::mean_size() const {
  uint64_t sum = 0;
  for_each([&](int32_t count, uint64_t n) { sum += n * size_of(count); });
  return part(sum);
}

double SpikeHistogram::popcount() const {
  uint64_t sum = 0;
  for_each(
      [&](int32_t count, uint64_t n) { sum += n * static_cast<uint64_t>(std::popcount(size_of(count))); });
  return part(sum);
}

double SpikeHistogram::at_most_seven() const {
  uint64_t sum = 0;
  for_each([&](int32_t count, uint64_t n) { sum += size_of(count) <= 7 ? n : 0; });
  return part(sum);
}

double SpikeHistogram::slot_sparsity(int64_t steps) const {
  check_steps(steps);
  return 1 - popcount() / static_cast<double>(steps);
}

std::vector<double> SpikeHistogram::window_spikes(int64_t steps) const {
  check_steps(steps);
  constexpr int64_t kWindows = 3;
  const uint64_t mask = (uint64_t{1} << steps) - 1;
  std::vector<uint64_t> sums(static_cast<size_t>(steps) + 1);
  for_each([&](int32_t count, uint64_t n) {
    uint64_t rest = size_of(count);
    for (int64_t w = 0; w < kWindows; ++w, rest >>= steps) {
      const int ones = std::popcount(w + 1 < kWindows ? rest & mask : rest);
      sums[static_cast<size_t>(std::min<int64_t>(ones, steps))] += n;
    }
  });
  std::vector<double> parts;
  parts.reserve(sums.size());
  for (const uint64_t sum : sums) parts.push_back(part(sum) / static_cast<double>(kWindows));
  return parts;
}

std::map<int64_t, uint64_t> SpikeHistogram::spikes_per_value(SpikeCode code, int64_t steps) const {
  std::map<int64_t, uint64_t> spikes;
  for_each([&](int32_t count, uint64_t n) { spikes[spikes_of(code, count, steps)] += n; });
  return spikes;
}

SpikeEnergy spike_energy(double popcount) noexcept {
  return {popcount * SpikeEnergy::kInt8Add};
}

}  // namespace mneme
