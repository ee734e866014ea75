// mmap: rows used in place from the file cache. A page that is not there is a page fault when the row is
// touched, one after another; that is what the placements direct and cache avoid.
//
// A file that shrinks is noticed when rows are asked for and again when they are handed out. Between that and
// the use of a row, the system can only raise SIGBUS; whoever cannot trust the file uses direct or cache.
#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "core/fail.h"
#include "memory/store/placements.h"

namespace mneme {
namespace {

class Mapping {
 public:
  Mapping(const FileHandle& file, uint64_t bytes) : bytes_(bytes) {
    void* map = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file.fd(), 0);
    require(map != MAP_FAILED, ErrorCode::io, "cannot map {}: {}", file.path().string(),
            std::strerror(errno));
    data_ = static_cast<std::byte*>(map);
    ::madvise(data_, bytes_, MADV_RANDOM);
  }
  ~Mapping() {
    if (data_ != nullptr) ::munmap(data_, bytes_);
  }
  Mapping(Mapping&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Mapping& operator=(Mapping&&) = delete;
  const std::byte* data() const noexcept { return data_; }
  void give_back() const noexcept { ::madvise(data_, bytes_, MADV_DONTNEED); }

 private:
  std::byte* data_ = nullptr;
  uint64_t bytes_ = 0;
};

// Which windows of the mappings have been touched since pages were last given back. The kernel maps up to 64
// KB around a fault, so that is the size of a window.
class TouchedWindows {
 public:
  static constexpr uint64_t kWindow = uint64_t{64} << 10;
  TouchedWindows(uint64_t bytes, uint64_t most) : bits_(bytes / kWindow / 64 + 1), most_(most / kWindow) {}

  /// Counts the windows of [at, at + bytes) as touched; true if now more are touched than may be.
  bool touch(uint64_t at, uint64_t bytes) noexcept {
    for (uint64_t window = at / kWindow; window <= (at + bytes - 1) / kWindow; ++window) {
      const uint64_t bit = uint64_t{1} << (window % 64);
      auto& word = bits_[window / 64];
      if ((word.load(std::memory_order_relaxed) & bit) == 0 &&
          (word.fetch_or(bit, std::memory_order_relaxed) & bit) == 0)
        touched_.fetch_add(1, std::memory_order_relaxed);
    }
    return touched_.load(std::memory_order_relaxed) > most_;
  }
  void clear() noexcept {
    for (auto& word : bits_) word.store(0, std::memory_order_relaxed);
    touched_.store(0, std::memory_order_relaxed);
  }
  uint64_t bytes() const noexcept { return bits_.size() * sizeof(bits_[0]); }

 private:
  std::vector<std::atomic<uint64_t>> bits_;
  uint64_t most_;
  std::atomic<uint64_t> touched_{0};
};

class MappedTable final : public MemoryTable {
 public:
  MappedTable(const RowLayout& layout, const MemoryOptions& options)
      : MemoryTable(layout, Placement::mmap), map_(layout), files_(map_.open_files()) {
    for (size_t i = 0; i < files_.size(); ++i) mappings_.emplace_back(files_[i], map_.files()[i].end);
    if (options.budget_bytes == 0) return;
    uint64_t all = 0;
    for (const RowMap::File& file : map_.files()) {
      first_window_.push_back(all);
      all += file.end / TouchedWindows::kWindow + 1;
    }
    const uint64_t least = 2 * TouchedWindows::kWindow * map_.segments()[0].parts.size() + row_bytes();
    require(options.budget_bytes >= least + all / 8, ErrorCode::limit,
            "{}: the placement mmap needs at least {} bytes, but the memory budget is {}", path().string(),
            least + all / 8, options.budget_bytes);
    touched_ =
        std::make_unique<TouchedWindows>(all * TouchedWindows::kWindow, options.budget_bytes - all / 8);
  }

  uint64_t resident_bytes() const noexcept override { return touched_ ? touched_->bytes() : 0; }
  double resident_fraction() const override {
    double sum = 0, bytes = 0;
    for (size_t i = 0; i < files_.size(); ++i) {
      const auto [begin, end] = std::pair(map_.files()[i].begin, map_.files()[i].end);
      sum += resident_fraction_of(files_[i], begin, end) * static_cast<double>(end - begin);
      bytes += static_cast<double>(end - begin);
    }
    return sum / bytes;
  }

 private:
  // Only where a record has several parts.
  struct Gathered final : RowBatch::State {
    std::vector<std::byte> rows;
    uint64_t bytes() const noexcept override { return rows.capacity(); }
  };

  void begin(std::span<const uint64_t> ids, std::span<const std::byte*> addresses,
             std::unique_ptr<RowBatch::State>& state) const override {
    check_files();
    std::byte* out = nullptr;
    if (!map_.contiguous()) {
      if (state == nullptr) state = std::make_unique<Gathered>();
      auto& rows = static_cast<Gathered&>(*state).rows;
      rows.resize(ids.size() * row_bytes());
      out = rows.data();
    }
    for (size_t i = 0; i < ids.size(); ++i) {
      const RowMap::Segment& segment = map_.segment_of(ids[i]);
      for (const RowMap::Part& part : segment.parts) {
        const uint64_t at = part.at(ids[i] - segment.first);
        if (touched_ != nullptr) keep_budget(part, at);
        const std::byte* const row = mappings_[part.file].data() + at;
        if (out == nullptr)
          addresses[i] = row;
        else
          std::memcpy(out + i * row_bytes() + part.within, row, part.bytes);
      }
      if (out != nullptr) addresses[i] = out + i * row_bytes();
    }
  }
  void end(std::unique_ptr<RowBatch::State>&) const override { check_files(); }

  void check_files() const {
    for (size_t i = 0; i < files_.size(); ++i) files_[i].check_not_shorter(map_.files()[i].end);
  }
  void keep_budget(const RowMap::Part& part, uint64_t at) const {
    const uint64_t window = first_window_[part.file] * TouchedWindows::kWindow + at;
    if (!touched_->touch(window, part.bytes)) return;
    for (const Mapping& mapping : mappings_) mapping.give_back();  // rows in use fault in again
    touched_->clear();
    touched_->touch(window, part.bytes);
  }

  std::string details() const override {
    return touched_ == nullptr ? "rows used in place, the system keeps what it likes"
                               : "rows used in place, pages given back at the budget";
  }

  RowMap map_;
  std::vector<FileHandle> files_;
  std::vector<Mapping> mappings_;
  std::vector<uint64_t> first_window_;  // of each file, in touched_
  std::unique_ptr<TouchedWindows> touched_;
};

}  // namespace

std::unique_ptr<MemoryTable> open_mapped(const RowLayout& layout, const MemoryOptions& options) {
  return std::make_unique<MappedTable>(layout, options);
}

}  // namespace mneme
