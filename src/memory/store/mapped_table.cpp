// mmap: rows used in place from the file cache. A page that is not there is a page fault when the row is
// touched, one after another; that is what the placements direct and cache avoid.
//
// A file that shrinks is noticed when rows are asked for and again when they are handed out. Between that and
// the use of a row, the system can only raise SIGBUS; whoever cannot trust the file uses direct or cache.
#include <sys/mman.h>

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

 private:
  std::byte* data_ = nullptr;
  uint64_t bytes_ = 0;
};

class MappedTable final : public MemoryTable {
 public:
  MappedTable(const RowLayout& layout, const MemoryOptions& options)
      : MemoryTable(layout, Placement::mmap), map_(layout), files_(map_.open_files()) {
    // The kernel maps up to 2 MB around each page that is touched, and gives back what it likes: a bound on
    // that would be a promise that nobody keeps.
    require(options.budget_bytes == 0 || bytes() <= options.budget_bytes, ErrorCode::limit,
            "{}: the placement mmap needs {} bytes in the end, because what it touches stays mapped, but the "
            "memory "
            "budget is {}; use the placement cache, or no budget",
            path().string(), bytes(), options.budget_bytes);
    for (size_t i = 0; i < files_.size(); ++i) mappings_.emplace_back(files_[i], map_.files()[i].end);
  }

  uint64_t resident_bytes() const noexcept override { return 0; }
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
  std::string details() const override { return "rows used in place; the system keeps what it likes"; }

  RowMap map_;
  std::vector<FileHandle> files_;
  std::vector<Mapping> mappings_;
};

}  // namespace

std::unique_ptr<MemoryTable> open_mapped(const RowLayout& layout, const MemoryOptions& options) {
  return std::make_unique<MappedTable>(layout, options);
}

}  // namespace mneme
