// ram: all rows copied into memory at opening, back to back, on huge pages where the system gives them. A row
// is used in place.
#include <algorithm>
#include <cstring>

#include "core/checksum.h"
#include "core/fail.h"
#include "core/huge_buffer.h"
#include "memory/store/placements.h"

namespace mneme {
namespace {

constexpr size_t kPrefetchedRows = 256;
constexpr uint32_t kCacheLine = 64;
constexpr uint64_t kChunk = uint64_t{4} << 20;

class RamTable final : public MemoryTable {
 public:
  RamTable(const RowLayout& layout, const MemoryOptions& options, const BlockSums* sums)
      : MemoryTable(layout, Placement::ram) {
    const RowMap map(layout);
    const std::vector<FileHandle> files = map.open_files();
    require(options.budget_bytes == 0 || bytes() <= options.budget_bytes, ErrorCode::limit,
            "{}: the placement ram needs {} bytes, but the memory budget is {}; use the placement cache or a "
            "larger "
            "budget",
            path().string(), bytes(), options.budget_bytes);
    rows_ = HugeBuffer(bytes());
    done_ = 0;
    for (const RowMap::Segment& segment : map.segments())
      for (const RowMap::Part& part : segment.parts)
        load(files[part.file], segment, part, options, map.contiguous() ? sums : nullptr);
  }

  uint64_t resident_bytes() const noexcept override { return bytes(); }
  double resident_fraction() const override { return 1; }

 private:
  // By read calls and not through a mapping: a bad disk block is then an error and not a signal.
  void load(const FileHandle& file, const RowMap::Segment& segment, const RowMap::Part& part,
            const MemoryOptions& options, const BlockSums* sums) {
    // Whole pages of rows, or as many rows as fit a chunk; with checksums, exactly their blocks.
    const uint64_t group_rows = part.rows_per_page == 0 ? 1 : part.rows_per_page;
    const uint64_t group_bytes = part.rows_per_page == 0 ? part.bytes : kPageBytes;
    const uint64_t chunk = sums != nullptr ? sums->block_bytes : kChunk;
    const uint64_t step = std::max<uint64_t>(chunk / group_bytes, 1) * group_rows;
    std::vector<std::byte> buffer(std::max(chunk, group_bytes));
    const uint64_t end = part.offset + part_span(segment.rows, part.bytes, part.rows_per_page);
    if (sums != nullptr && part.rows_per_page == 0) return load_blocks(file, segment, part, options, *sums);
    for (uint64_t row = 0, block = 0; row < segment.rows; row += step, ++block) {
      const uint64_t count = std::min(step, segment.rows - row), from = part.at(row);
      const uint64_t whole = (count + group_rows - 1) / group_rows * group_bytes;
      const uint64_t size = sums != nullptr ? whole : std::min(whole, end - from);
      file.read(from, buffer.data(), size);
      if (sums != nullptr) check(block, {buffer.data(), size}, *sums);
      for (uint64_t i = 0; i < count; ++i)
        std::memcpy(rows_.data() + (segment.first + row + i) * row_bytes() + part.within,
                    buffer.data() + (part.at(row + i) - from), part.bytes);
      advance(count * part.bytes, options);
    }
  }

  // Records back to back go straight to their place; blocks need not end with a record.
  void load_blocks(const FileHandle& file, const RowMap::Segment& segment, const RowMap::Part& part,
                   const MemoryOptions& options, const BlockSums& sums) {
    const uint64_t total = segment.rows * part.bytes;
    for (uint64_t at = 0, block = 0; at < total; at += sums.block_bytes, ++block) {
      const uint64_t size = std::min(sums.block_bytes, total - at);
      file.read(part.offset + at, rows_.data() + at, size);
      check(block, {rows_.data() + at, size}, sums);
      advance(size, options);
    }
  }

  void check(uint64_t block, std::span<const std::byte> data, const BlockSums& sums) const {
    require(block < sums.sums.size() && xxh3(data) == sums.sums[block], ErrorCode::corrupt,
            "{}: block {} of its rows is damaged (wrong checksum); fetch or build the file again",
            path().string(), block);
  }

  void advance(uint64_t amount, const MemoryOptions& options) {
    done_ += amount;
    if (options.progress) options.progress(done_, bytes());
  }

  void begin(std::span<const uint64_t> ids, std::span<const std::byte*> addresses,
             std::unique_ptr<RowBatch::State>&) const override {
    for (size_t i = 0; i < ids.size(); ++i) addresses[i] = rows_.data() + ids[i] * row_bytes();
    // What a read from memory costs is its latency: the few rows of a token are asked for now, while earlier
    // layers compute. The rows of a chunk would only push each other out of the cache.
    if (ids.size() <= kPrefetchedRows)
      for (const std::byte* const row : addresses)
        for (uint32_t byte = 0; byte < row_bytes(); byte += kCacheLine) __builtin_prefetch(row + byte, 0, 2);
    count(counters().hits, ids.size());
  }
  void end(std::unique_ptr<RowBatch::State>&) const override {}
  std::string details() const override { return "rows used in place"; }

  HugeBuffer rows_;
  uint64_t done_ = 0;
};

}  // namespace

std::unique_ptr<MemoryTable> open_ram(const RowLayout& layout, const MemoryOptions& options,
                                      const BlockSums* sums) {
  return std::make_unique<RamTable>(layout, options, sums);
}

}  // namespace mneme
