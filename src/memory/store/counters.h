// What a table counts about itself. Relaxed atomics: any thread may count, and a reader sees sums that are
// each right, though not of one instant.
#pragma once
#include <array>
#include <atomic>
#include <cstdint>

#include "mneme/memory.h"

namespace mneme {

/// Durations in buckets: 8 for each power of two, from 1 ns to 5 hours, so a percentile is exact to 1/16.
class LatencyHistogram {
 public:
  void add(uint64_t nanoseconds) noexcept {
    buckets_[bucket_of(nanoseconds)].fetch_add(1, std::memory_order_relaxed);
    uint64_t seen = max_.load(std::memory_order_relaxed);
    while (seen < nanoseconds && !max_.compare_exchange_weak(seen, nanoseconds, std::memory_order_relaxed)) {
    }
  }
  Latency read() const noexcept;
  void reset() noexcept;

 private:
  static constexpr int kSteps = 8, kBuckets = 44 * kSteps;
  static int bucket_of(uint64_t nanoseconds) noexcept;
  static double middle_of(int bucket) noexcept;  // nanoseconds

  std::array<std::atomic<uint64_t>, kBuckets> buckets_{};
  std::atomic<uint64_t> max_{0};
};

struct MemoryTable::Counters {
  std::atomic<uint64_t> reads{0}, rows{0}, distinct{0}, hits{0}, misses{0}, overlaid{0}, disk_reads{0},
      disk_bytes{0};
  LatencyHistogram batch, disk;
};

inline void count(std::atomic<uint64_t>& counter, uint64_t amount) noexcept {
  counter.fetch_add(amount, std::memory_order_relaxed);
}

}  // namespace mneme
