// direct and cache: rows are read from the file when they are asked for, past the file cache, so that what
// the table holds is what it says it holds. cache keeps a bounded number of them.
#include <fcntl.h>

#include <algorithm>

#include "core/checked.h"
#include "memory/store/row_reader.h"

namespace mneme {
namespace {

constexpr uint32_t kMaxDepth = 4096;
constexpr uint32_t kMaxRowBytes = 16u << 20;

bool all_direct(const RowMap& map) {
  return std::all_of(map.files().begin(), map.files().end(),
                     [](const RowMap::File& file) { return can_read_directly(file.path); });
}

class ReadingTable final : public MemoryTable {
 public:
  ReadingTable(const RowLayout& layout, const MemoryOptions& options,
               const std::function<ReadQueueFactory(uint32_t)>& queues)
      : MemoryTable(layout, options.placement), map_(layout) {
    require(options.queue_depth >= 1 && options.queue_depth <= kMaxDepth, ErrorCode::invalid_argument,
            "a queue of {} reads; it must have 1 to {}", options.queue_depth, kMaxDepth);
    require(row_bytes() <= kMaxRowBytes, ErrorCode::unsupported,
            "{}: rows of {} bytes; the placement {} takes up to {}, use ram or mmap", path().string(),
            row_bytes(), to_string(placement()), kMaxRowBytes);
    std::vector<FileHandle> files = map_.open_files();  // checks sizes, and says if one is missing
    direct_ = all_direct(map_);
    require(direct_ || placement() == Placement::cache, ErrorCode::unsupported,
            "{}: its filesystem refuses direct reads (O_DIRECT); use the placement mmap, ram or cache",
            path().string());
    if (direct_)
      files = map_.open_files(true);
    else
      for (const FileHandle& file : files) ::posix_fadvise(file.fd(), 0, 0, POSIX_FADV_RANDOM);
    const bool cached = placement() == Placement::cache;
    const uint64_t budget =
        options.budget_bytes == 0 && cached ? std::max<uint64_t>(free_memory() / 2, 1) : options.budget_bytes;
    account_ = std::make_shared<MemoryAccount>(budget, path().string());
    RowReaderOptions reader{options.queue_depth, options.gap_pages};
    if (budget > 0) divide(budget, options, reader, cached);
    reader_ = std::make_unique<RowReader>(map_, std::move(files), reader, queues(reader.queue_depth),
                                          account_, counters(), cache_.get());
  }

  uint64_t resident_bytes() const noexcept override { return cache_ ? cache_->bytes() : 0; }
  double resident_fraction() const override {
    double sum = 0, bytes = 0;
    for (size_t i = 0; i < map_.files().size(); ++i) {
      const RowMap::File& file = map_.files()[i];
      const auto size = static_cast<double>(file.end - file.begin);
      sum += resident_fraction_of(reader_->files()[i], file.begin, file.end) * size;
      bytes += size;
    }
    return sum / bytes;
  }

 private:
  // What batches need comes first, the cache gets the rest.
  void divide(uint64_t budget, const MemoryOptions& options, RowReaderOptions& reader, bool cached) {
    RowReaderOptions one = reader;
    one.queue_depth = 1;
    const uint64_t one_row = RowReader::lane_bytes(map_, one) + RowReader::batch_bytes(1, map_);
    const uint64_t least = one_row + (cached ? RowCache::bytes_per_row(row_bytes()) : 0);
    require(budget >= least, ErrorCode::limit,
            "{}: a memory budget of {} bytes is too small for one row; the placement {} needs at least {}",
            path().string(), budget, to_string(placement()), least);
    uint64_t reserve = cached ? std::max(budget / 4, one_row) : budget;
    if (cached && options.batch_ids > 0) {
      reserve = checked_add(RowReader::lane_bytes(map_, one), RowReader::batch_bytes(options.batch_ids, map_),
                            "buffers of batches");
      require(reserve + RowCache::bytes_per_row(row_bytes()) <= budget, ErrorCode::limit,
              "{}: batches of {} rows need {} bytes, but the memory budget is {}; give at least {}, or "
              "smaller chunks",
              path().string(), options.batch_ids, reserve, budget,
              reserve + RowCache::bytes_per_row(row_bytes()));
      // A deeper queue, as far as an eighth of the budget allows.
      const uint64_t deeper = std::min(budget - reserve - RowCache::bytes_per_row(row_bytes()), budget / 8);
      reader.queue_depth = fitting_depth(reader, RowReader::lane_bytes(map_, one) + deeper);
      reserve += RowReader::lane_bytes(map_, reader) - RowReader::lane_bytes(map_, one);
    } else {
      reader.queue_depth = fitting_depth(reader, std::max(reserve / 2, RowReader::lane_bytes(map_, one)));
    }
    if (!cached) return;
    cache_ = std::make_unique<RowCache>(budget - reserve, row_bytes(), rows());
    held_ = std::make_unique<MemoryCharge>(account_);
    held_->resize(cache_->bytes(), "the cache");
  }

  uint32_t fitting_depth(const RowReaderOptions& reader, uint64_t bytes) const {
    RowReaderOptions one = reader;
    one.queue_depth = 1;
    return static_cast<uint32_t>(
        std::clamp<uint64_t>(bytes / RowReader::lane_bytes(map_, one), 1, reader.queue_depth));
  }

  void begin(std::span<const uint64_t> ids, std::span<const std::byte*> addresses,
             std::unique_ptr<RowBatch::State>& state) const override {
    reader_->begin(ids, addresses, state);
  }
  void end(std::unique_ptr<RowBatch::State>& state) const override { reader_->end(state); }

  std::string details() const override {
    std::string out =
        fmt::format("{} reads by {}, {} in flight", direct_ ? "direct" : "buffered (O_DIRECT is refused)",
                    reader_->queue_name(), reader_->queue_depth());
    if (cache_ != nullptr) out += fmt::format("; up to {} rows are kept", cache_->capacity());
    if (account_->budget() > 0) out += fmt::format("; budget {}", bytes_text(account_->budget()));
    return out;
  }

  RowMap map_;
  bool direct_ = true;
  std::shared_ptr<MemoryAccount> account_;
  std::unique_ptr<RowCache> cache_;
  std::unique_ptr<MemoryCharge> held_;  // by the cache
  std::unique_ptr<RowReader> reader_;
};

}  // namespace

std::unique_ptr<MemoryTable> open_reading(const RowLayout& layout, const MemoryOptions& options,
                                          const std::function<ReadQueueFactory(uint32_t)>& queues) {
  return std::make_unique<ReadingTable>(layout, options, queues);
}

}  // namespace mneme
