// RowCache: a bounded number of rows in memory, the ones that are asked for again and again. The policy is
// S3-FIFO (Yang et al., SOSP 2023): new rows enter a small queue of a tenth of the space; those asked for
// again while they are in it move on to the main queue, the others leave and are remembered by name only, for
// as long as the main queue is. A row that comes back so soon enters the main queue at once. A scan of rows
// that are asked for once therefore passes through the small queue and disturbs nothing, which matters
// because half of all n-grams of a text occur once.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "core/huge_buffer.h"

namespace mneme {

/// Thread-safe: rows are spread over shards by a hash of their number, each with a lock of its own.
class RowCache {
 public:
  /// As many rows as fit into `bytes` with their bookkeeping, but no more than `most_rows`.
  RowCache(uint64_t bytes, uint32_t row_bytes, uint64_t most_rows);
  ~RowCache();
  RowCache(const RowCache&) = delete;
  RowCache& operator=(const RowCache&) = delete;

  /// Copies the row to `out` if it is here.
  bool get(uint64_t id, std::byte* out) noexcept;
  /// Asks for the cache lines that get() will look at.
  void prefetch(uint64_t id) const noexcept;
  /// Takes in a row that get() did not find.
  void put(uint64_t id, const std::byte* row) noexcept;

  uint64_t capacity() const noexcept { return capacity_; }
  uint64_t rows() const noexcept;   // that are here
  uint64_t bytes() const noexcept;  // all memory it holds

  /// Bytes that a row takes with its bookkeeping.
  static uint64_t bytes_per_row(uint32_t row_bytes) noexcept;

 private:
  struct Shard;
  Shard& shard_of(uint64_t hash) const noexcept;

  uint32_t row_bytes_;
  uint64_t capacity_ = 0;
  size_t shard_count_ = 1;
  std::unique_ptr<Shard[]> shards_;
  HugeBuffer rows_;
};

}  // namespace mneme
