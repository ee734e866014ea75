#include "memory/store/counters.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace mneme {

// Below 8 ns a bucket for each; above, the three bits after the leading one choose among 8.
int LatencyHistogram::bucket_of(uint64_t nanoseconds) noexcept {
  if (nanoseconds < kSteps) return static_cast<int>(nanoseconds);
  const int power = std::bit_width(nanoseconds) - 1;  // >= 3
  const int step = static_cast<int>((nanoseconds >> (power - 3)) & 7);
  return std::min((power - 2) * kSteps + step, kBuckets - 1);
}

double LatencyHistogram::middle_of(int bucket) noexcept {
  if (bucket < kSteps) return bucket;
  const int power = bucket / kSteps + 2, step = bucket % kSteps;
  return std::ldexp(8.0 + step + 0.5, power - 3);
}

Latency LatencyHistogram::read() const noexcept {
  std::array<uint64_t, kBuckets> counts{};
  Latency out;
  for (int i = 0; i < kBuckets; ++i)
    out.count += counts[static_cast<size_t>(i)] =
        buckets_[static_cast<size_t>(i)].load(std::memory_order_relaxed);
  if (out.count == 0) return out;
  const double max = static_cast<double>(max_.load(std::memory_order_relaxed));
  const auto percentile = [&](double p) {
    const auto rank = static_cast<uint64_t>(std::ceil(p * static_cast<double>(out.count)));
    uint64_t seen = 0;
    for (int i = 0; i < kBuckets; ++i)
      if ((seen += counts[static_cast<size_t>(i)]) >= rank) return std::min(middle_of(i), max) / 1e3;
    return max / 1e3;
  };
  out.p50 = percentile(0.50);
  out.p90 = percentile(0.90);
  out.p99 = percentile(0.99);
  out.max = max / 1e3;
  return out;
}

void LatencyHistogram::reset() noexcept {
  for (auto& bucket : buckets_) bucket.store(0, std::memory_order_relaxed);
  max_.store(0, std::memory_order_relaxed);
}

}  // namespace mneme
