// MemoryTable: rows of bytes by number, whatever they lie on. The noun on which conditional memory (Engram)
// is built: hashed n-grams select rows of a table that may be far larger than RAM. A table knows nothing of
// what a row means; formats, hashing and gating are its users' business.
//
// A row is one contiguous record of row_bytes (values and their scale together), row i at offset + i *
// row_bytes of one file. The whole interface is read(): the ids of a chunk at once, because only a placement
// that sees them together can sort, merge and overlap its reads.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string_view>

namespace mneme {

/// Where rows are when they are asked for. Chosen by the user, never changed behind their back.
enum class Placement {
  ram,  // copied into memory when the table is opened
  mmap  // read in place from the file cache; a page that is not there costs a page fault
};
std::string_view to_string(Placement placement) noexcept;

/// Part of a file that holds rows: `rows` records of `row_bytes`, the first at `offset`.
struct RowRegion {
  std::filesystem::path path;
  uint64_t offset = 0;
  uint64_t rows = 0;
  uint32_t row_bytes = 0;
};

struct MemoryStatistics {
  uint64_t reads = 0;  // calls of read() that succeeded
  uint64_t rows = 0;   // rows handed out, duplicates included
  uint64_t bytes = 0;  // rows * row_bytes
};

/// Immutable and thread-safe: any number of threads may read at once.
class MemoryTable {
 public:
  /// Opens a region. Throws Error: invalid_argument (no rows, no bytes a row), corrupt (the region ends
  /// beyond the file, or its size overflows), not_found, io, out_of_memory (ram).
  static std::unique_ptr<MemoryTable> open(const RowRegion& region, Placement placement);
  virtual ~MemoryTable() = default;
  MemoryTable(const MemoryTable&) = delete;
  MemoryTable& operator=(const MemoryTable&) = delete;

  /// Copies row ids[i] to out[i * row_bytes]; ids in any order, with duplicates, possibly none. Throws
  /// Error(invalid_argument) for an id outside the table or an `out` of another size than ids * row_bytes,
  /// before anything is written, and Error(io) if the file shrank or cannot be read.
  void read(std::span<const uint64_t> ids, std::span<std::byte> out) const;

  uint64_t rows() const noexcept { return region_.rows; }
  uint32_t row_bytes() const noexcept { return region_.row_bytes; }
  uint64_t bytes() const noexcept { return region_.rows * region_.row_bytes; }
  const std::filesystem::path& path() const noexcept { return region_.path; }
  Placement placement() const noexcept { return placement_; }
  /// Memory that the table itself holds (the file cache of `mmap` is not counted).
  virtual uint64_t resident_bytes() const noexcept = 0;
  /// Since opening.
  MemoryStatistics statistics() const noexcept;

 protected:
  MemoryTable(const RowRegion& region, Placement placement) : region_(region), placement_(placement) {}

 private:
  /// read() of ids that are inside the table into an `out` of the right size.
  virtual void read_checked(std::span<const uint64_t> ids, std::byte* out) const = 0;

  RowRegion region_;
  Placement placement_;
  mutable std::atomic<uint64_t> reads_{0}, rows_read_{0};
};

}  // namespace mneme
