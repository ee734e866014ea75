// MemoryTable: rows of bytes by number, whatever they lie on. The noun on which conditional memory (Engram)
// is built: hashed n-grams select rows of a table that may be far larger than RAM. A table knows nothing of
// what a row means; formats, hashing and gating are its users' business.
//
//   const auto table = MemoryTable::open_pack("facts.engram", {.placement = Placement::cache,
//                                                              .budget_bytes = 512 << 20});
//   RowBatch batch;                  // one for each stream of chunks, used again and again
//   table->start(ids, batch);        // sorts, dedupes, issues the reads, returns
//   ...                              // compute something else
//   table->wait(batch);
//   batch.rows()[i]                  // the record of ids[i]; duplicates share an address
//
// The ids of a whole chunk come at once, because only a placement that sees them together can sort, merge and
// overlap its reads. No row is handed from thread to thread: a batch has its own queue of reads (io_uring),
// and a large one is driven to its end by one helper thread while the caller computes.
//
// The C interface is mneme_memory.h; docs/memory.md says how to choose a placement.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mneme {

/// Where rows are when they are asked for. Chosen by the user, never changed behind their back.
enum class Placement {
  automatic,  // ram if the table fits into the budget, else cache; describe() says which and why
  ram,        // copied into memory when the table is opened (huge pages); rows are used in place
  mmap,       // used in place from the file cache; a page that is not there costs a page fault
  direct,     // read when asked for, past the file cache (O_DIRECT), many reads in flight
  cache       // direct, and a bounded number of rows kept in memory
};
std::string_view to_string(Placement placement) noexcept;
/// "auto", "ram", "mmap", "direct" or "cache". Throws Error(invalid_argument) that lists them.
Placement placement_from(std::string_view word);

/// A part of each record: `bytes` bytes, in a file of their own or shared.
struct RowPart {
  std::filesystem::path path;
  uint64_t offset = 0;  // of the first row's part
  uint32_t bytes = 0;   // of a row
  /// 0: parts lie back to back. n: n of them at the start of every 4096 bytes from `offset` on, so that none
  /// straddles a page; the rest of the page is not used.
  uint32_t rows_per_page = 0;
};

/// Consecutive rows whose records are put together from the same parts, in this order. A pack has one part;
/// a released checkpoint keeps weights and scales in two tensors.
struct RowSegment {
  uint64_t rows = 0;
  std::vector<RowPart> parts;
};

/// Part of a file that holds rows: `rows` records of `row_bytes`, the first at `offset`.
struct RowRegion {
  std::filesystem::path path;
  uint64_t offset = 0;
  uint64_t rows = 0;
  uint32_t row_bytes = 0;
  uint32_t rows_per_page = 0;  // see RowPart
};

/// A whole table: row 0 of segment 1 follows the last row of segment 0. All records have the same size.
struct RowLayout {
  std::filesystem::path path;  // named in messages and statistics
  std::vector<RowSegment> segments;
  /// What an overlay must name as its base; a pack's fingerprint, or empty.
  std::string fingerprint;

  RowLayout() = default;
  RowLayout(const RowRegion& region);  // NOLINT(google-explicit-constructor): the common case
};

struct MemoryOptions {
  Placement placement = Placement::automatic;
  /// Most memory that the table and the buffers of its batches may hold together; 0: no bound was given, and
  /// then automatic and cache take half of what the system has free. mmap, whose pages nobody can bound, is
  /// refused for a table above the budget.
  uint64_t budget_bytes = 0;
  /// cache: what one start() may ask for, in ids, over all batches at a time; its buffers are set aside from
  /// the budget. 0: a quarter of the budget is.
  uint64_t batch_ids = 0;
  uint32_t queue_depth = 128;  // reads in flight for each batch, 1..4096
  /// direct, cache: pages that are not asked for but read along where that joins two reads into one.
  uint32_t gap_pages = 0;
  /// Sparse files of changed rows (write_overlay()), the last one first in precedence; held in memory.
  std::vector<std::filesystem::path> overlays;
  /// Called while ram is loaded; may throw to stop.
  std::function<void(uint64_t done, uint64_t total)> progress;
};

/// Microseconds; 0 if nothing was measured. Values are exact to 7 %.
struct Latency {
  uint64_t count = 0;
  double p50 = 0, p90 = 0, p99 = 0, max = 0;
};

struct MemoryStatistics {
  uint64_t reads = 0;       // batches that succeeded
  uint64_t rows = 0;        // rows handed out, duplicates included
  uint64_t bytes = 0;       // rows * row_bytes
  uint64_t distinct = 0;    // direct, cache: rows after the duplicates of each batch were removed
  uint64_t hits = 0;        // of those, found in memory (all rows in ram; unknown, so 0, for mmap)
  uint64_t misses = 0;      // and read from the file
  uint64_t overlaid = 0;    // and taken from an overlay
  uint64_t disk_reads = 0;  // requests to the device
  uint64_t disk_bytes = 0;  // that they transferred
  Latency batch;            // what start() and wait() of one batch took of the caller's time
  Latency disk;             // of one request to the device

  double hit_rate() const noexcept {
    return hits + misses == 0 ? 0.0 : static_cast<double>(hits) / static_cast<double>(hits + misses);
  }
};

class MemoryTable;
struct BlockSums;

/// The rows of one start(): addresses and the buffers behind them, which are kept for the next start(). Used
/// by one thread at a time, with one table at a time, and destroyed before that table. Movable; the
/// destructor waits for reads that are under way.
class RowBatch {
 public:
  RowBatch();
  ~RowBatch();
  RowBatch(RowBatch&&) noexcept;
  RowBatch& operator=(RowBatch&&) noexcept;

  /// After wait(): one address for each id as given; equal ids share an address. Valid until the batch is
  /// started again or destroyed. Rows have no alignment beyond that of their place in the file.
  std::span<const std::byte* const> rows() const noexcept { return addresses_; }
  /// Between start() and wait().
  bool pending() const noexcept { return pending_ != nullptr; }
  /// Memory behind the rows, without the table's own.
  uint64_t buffer_bytes() const noexcept;

  /// What a placement keeps with a batch.
  struct State {
    virtual ~State() = default;
    virtual uint64_t bytes() const noexcept = 0;
  };

 private:
  friend class MemoryTable;
  std::vector<const std::byte*> addresses_;
  const MemoryTable* pending_ = nullptr;
  const MemoryTable* owner_ = nullptr;  // whose state_ it is
  std::unique_ptr<State> state_;
  uint64_t spent_ = 0;  // nanoseconds in start()
  void finish() noexcept;
};

/// Immutable and thread-safe: any number of threads may read at once, each with its own batch.
class MemoryTable {
 public:
  /// Opens a table. Throws Error: invalid_argument (no rows, no bytes a row), corrupt (rows end beyond their
  /// file, or sizes overflow; a damaged overlay), mismatch (an overlay of another table), not_found, io,
  /// limit (the budget is too small: what would do is said), unsupported (direct, and the filesystem refuses
  /// it), out_of_memory.
  static std::unique_ptr<MemoryTable> open(const RowLayout& layout, const MemoryOptions& options);
  static std::unique_ptr<MemoryTable> open(const RowLayout& layout, Placement placement);
  /// The rows of a pack (`.engram`). Throws also Error(corrupt | unsupported) for a file that is none; ram
  /// checks every block against its checksum.
  static std::unique_ptr<MemoryTable> open_pack(const std::filesystem::path& pack,
                                                const MemoryOptions& options);
  virtual ~MemoryTable() = default;
  MemoryTable(const MemoryTable&) = delete;
  MemoryTable& operator=(const MemoryTable&) = delete;

  /// Begins to bring rows; ids in any order, with duplicates, possibly none, free again on return. A batch
  /// that is pending is waited for first. Throws Error(invalid_argument) for an id outside the table and
  /// Error(limit) for a batch whose buffers exceed the budget, before anything is read.
  void start(std::span<const uint64_t> ids, RowBatch& batch) const;
  /// Returns when all rows of the batch are there; at once if it is not pending. Throws Error(io) if the file
  /// shrank or cannot be read; the batch then has no rows and may be started again.
  void wait(RowBatch& batch) const;

  /// start(), wait() and a copy of row ids[i] to out[i * row_bytes]. Throws also Error(invalid_argument) for
  /// an `out` of another size than ids * row_bytes; nothing is written unless all rows were read.
  void read(std::span<const uint64_t> ids, std::span<std::byte> out) const;

  uint64_t rows() const noexcept { return rows_; }
  uint32_t row_bytes() const noexcept { return row_bytes_; }
  uint64_t bytes() const noexcept { return rows_ * row_bytes_; }
  const std::filesystem::path& path() const noexcept { return path_; }
  /// What was chosen; never automatic.
  Placement placement() const noexcept { return placement_; }
  /// One line: path, placement, bytes on disk and in memory, how it reads, and why it was chosen.
  std::string describe() const;

  /// Memory that the table itself holds, overlays included, buffers of batches not (the file cache of `mmap`
  /// is not counted).
  virtual uint64_t resident_bytes() const noexcept = 0;
  /// The share of the table's file that lies in the system's memory (mincore), or 1 for ram. Looks at every
  /// page: milliseconds for each GB.
  virtual double resident_fraction() const = 0;
  /// Since opening, or since reset_statistics().
  MemoryStatistics statistics() const;
  void reset_statistics() const noexcept;

  struct Counters;  // src/memory/counters.h

 protected:
  MemoryTable(const RowLayout& layout, Placement placement);
  Counters& counters() const noexcept { return *counters_; }
  const RowLayout& layout() const noexcept { return layout_; }

 private:
  friend class RowBatch;
  friend class OverlayTable;
  friend std::unique_ptr<MemoryTable> open_table(const RowLayout&, const MemoryOptions&, const BlockSums*);
  /// start() of ids that are inside the table: sets addresses[i], or will have by the end of finish().
  virtual void begin(std::span<const uint64_t> ids, std::span<const std::byte*> addresses,
                     std::unique_ptr<RowBatch::State>& state) const = 0;
  virtual void end(std::unique_ptr<RowBatch::State>& state) const = 0;
  /// How it reads, for describe().
  virtual std::string details() const = 0;

  RowLayout layout_;
  std::filesystem::path path_;
  uint64_t rows_ = 0;
  uint32_t row_bytes_ = 0;
  Placement placement_;
  std::string reason_;                  // of automatic
  std::shared_ptr<Counters> counters_;  // an overlay counts with its base
};

/// Writes a sparse file of changed rows for the table with that fingerprint: row ids[i] is rows[i *
/// row_bytes]. Ids in any order, each once. The file appears whole or not at all; the base is not touched.
/// Throws Error: invalid_argument (an id twice or outside, sizes that disagree), io.
void write_overlay(const std::filesystem::path& path, const RowLayout& base, std::span<const uint64_t> ids,
                   std::span<const std::byte> rows);

}  // namespace mneme
