#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <new>

#include "core/checked.h"
#include "core/file.h"
#include "mneme/memory.h"

namespace mneme {
namespace {

void copy_rows(const std::byte* rows, size_t row_bytes, std::span<const uint64_t> ids,
               std::byte* out) noexcept {
  for (const uint64_t id : ids) {
    std::memcpy(out, rows + id * row_bytes, row_bytes);
    out += row_bytes;
  }
}

void check_region(const RowRegion& region, uint64_t file_bytes) {
  const uint64_t bytes = checked_mul(region.rows, region.row_bytes, "size of a memory table");
  const uint64_t end = checked_add(region.offset, bytes, "end of a memory table");
  require(
      end <= file_bytes, ErrorCode::corrupt,
      "{}: {} rows of {} bytes from offset {} end at byte {}, but the file has {}; it is incomplete or its "
      "description belongs to another file",
      region.path.string(), region.rows, region.row_bytes, region.offset, end, file_bytes);
}

class MappedTable final : public MemoryTable {
 public:
  explicit MappedTable(const RowRegion& region)
      : MemoryTable(region, Placement::mmap), file_(region.path, LoadMode::mmap) {
    check_region(region, file_.size());
    first_ = file_.bytes().data() + region.offset;
  }
  uint64_t resident_bytes() const noexcept override { return 0; }

 private:
  void read_checked(std::span<const uint64_t> ids, std::byte* out) const override {
    file_.check_not_truncated();  // touching a page beyond the end would kill the process
    copy_rows(first_, row_bytes(), ids, out);
  }

  MappedFile file_;
  const std::byte* first_ = nullptr;
};

class RamTable final : public MemoryTable {
 public:
  explicit RamTable(const RowRegion& region) : MemoryTable(region, Placement::ram) {
    const MappedFile file(region.path, LoadMode::mmap);
    check_region(region, file.size());
    rows_.reset(new (std::nothrow) std::byte[bytes()]);
    require(rows_ != nullptr, ErrorCode::out_of_memory,
            "no memory for the {} bytes of {}; use the placement mmap", bytes(), region.path.string());
    load(region);
  }
  uint64_t resident_bytes() const noexcept override { return bytes(); }

 private:
  // By read calls, not through the mapping: a bad disk block is then an error and not a signal.
  void load(const RowRegion& region) {
    const int fd = ::open(region.path.c_str(), O_RDONLY | O_CLOEXEC);
    require(fd >= 0, ErrorCode::io, "cannot open {}: {}", region.path.string(), std::strerror(errno));
    uint64_t done = 0;
    ssize_t got = 1;
    while (done < bytes()) {
      got = ::pread(fd, rows_.get() + done, bytes() - done, static_cast<off_t>(region.offset + done));
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) break;
      done += static_cast<uint64_t>(got);
    }
    const int error = errno;
    ::close(fd);
    require(done == bytes(), ErrorCode::io, "cannot read {} at byte {}: {}", region.path.string(),
            region.offset + done, got == 0 ? "the file became shorter" : std::strerror(error));
  }

  void read_checked(std::span<const uint64_t> ids, std::byte* out) const override {
    copy_rows(rows_.get(), row_bytes(), ids, out);
  }

  std::unique_ptr<std::byte[]> rows_;
};

}  // namespace

std::string_view to_string(Placement placement) noexcept {
  return placement == Placement::ram ? "ram" : "mmap";
}

std::unique_ptr<MemoryTable> MemoryTable::open(const RowRegion& region, Placement placement) {
  require(region.rows > 0 && region.row_bytes > 0, ErrorCode::invalid_argument,
          "{}: a memory table of {} rows of {} bytes; both must be at least 1", region.path.string(),
          region.rows, region.row_bytes);
  if (placement == Placement::ram) return std::make_unique<RamTable>(region);
  return std::make_unique<MappedTable>(region);
}

void MemoryTable::read(std::span<const uint64_t> ids, std::span<std::byte> out) const {
  require(ids.size() <= out.size() / region_.row_bytes && ids.size() * region_.row_bytes == out.size(),
          ErrorCode::invalid_argument, "{} rows of {} bytes do not fill a buffer of {} bytes", ids.size(),
          region_.row_bytes, out.size());
  for (const uint64_t id : ids)
    require(id < region_.rows, ErrorCode::invalid_argument, "row {} is outside {}, which has {} rows", id,
            region_.path.string(), region_.rows);
  read_checked(ids, out.data());
  reads_.fetch_add(1, std::memory_order_relaxed);
  rows_read_.fetch_add(ids.size(), std::memory_order_relaxed);
}

MemoryStatistics MemoryTable::statistics() const noexcept {
  const uint64_t rows = rows_read_.load(std::memory_order_relaxed);
  return {reads_.load(std::memory_order_relaxed), rows, rows * region_.row_bytes};
}

}  // namespace mneme
