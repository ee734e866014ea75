// Read bandwidth of memory: the ceiling of decoding, which reads every weight once a token.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace mneme {

struct BandwidthResult {
  double gbps = 0;  // 1e9 bytes/s, median
  double sd = 0;
  int threads = 0;
};

/// A buffer much larger than the caches, on huge pages where the system gives them, and timed passes over it
/// with the widest loads of the active instruction set and several independent sums. Not thread-safe.
class ReadBandwidth {
 public:
  /// Allocates and fills `bytes` (rounded up to 2 MiB). Throws Error(out_of_memory).
  explicit ReadBandwidth(uint64_t bytes);
  ~ReadBandwidth();
  ReadBandwidth(const ReadBandwidth&) = delete;
  ReadBandwidth& operator=(const ReadBandwidth&) = delete;

  /// One pass by `threads` threads, each over its own slice: 1e9 bytes/s.
  double pass(int threads);
  /// Median of `passes` passes (after one that warms up) at each thread count; the best of them.
  BandwidthResult best(std::span<const int> thread_counts, int passes);

  uint64_t bytes() const noexcept { return bytes_; }
  bool huge_pages() const noexcept { return huge_pages_; }
  /// The sum of all 64-bit words that the passes have read so far. A pass that did not read everything gives
  /// another one: see expected_sum().
  uint64_t sum() const noexcept { return sum_; }
  uint64_t expected_sum(uint64_t passes) const noexcept { return passes * sum_of_one_; }

 private:
  std::byte* data_ = nullptr;
  uint64_t bytes_ = 0;
  bool huge_pages_ = false;
  uint64_t sum_ = 0;
  uint64_t sum_of_one_ = 0;
};

/// Bytes for a bandwidth buffer: `wanted`, less if memory is short. Reads /proc/meminfo.
uint64_t bandwidth_buffer_bytes(uint64_t wanted);
/// 1, 2, 4, ... and `cores`.
std::vector<int> thread_counts_up_to(int cores);
/// Sum of the 64-bit words of `words`, whose size is a multiple of 64, with the active instruction set.
uint64_t sum_words(std::span<const uint64_t> words);

}  // namespace mneme
