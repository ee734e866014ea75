#include "memory/store/row_map.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

#include "core/checked.h"

namespace mneme {

FileHandle::FileHandle(const std::filesystem::path& path, bool direct) : path_(path) {
  fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | (direct ? O_DIRECT : 0));
  if (fd_ < 0) {
    const int error = errno;
    fail(error == ENOENT ? ErrorCode::not_found : ErrorCode::io, "cannot open {}: {}", path.string(),
         std::strerror(error));
  }
  struct stat info {};
  if (::fstat(fd_, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(std::exchange(fd_, -1));
    fail(ErrorCode::io, "cannot open {}: it is not a regular file", path.string());
  }
}

FileHandle::~FileHandle() {
  if (fd_ >= 0) ::close(fd_);
}

FileHandle::FileHandle(FileHandle&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)) {}

FileHandle& FileHandle::operator=(FileHandle&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  return *this;
}

uint64_t FileHandle::size() const {
  struct stat info {};
  if (::fstat(fd_, &info) != 0)
    fail(ErrorCode::io, "cannot stat {}: {}", path_.string(), std::strerror(errno));
  return static_cast<uint64_t>(info.st_size);
}

void FileHandle::check_not_shorter(uint64_t end) const {
  const uint64_t now = size();
  if (now < end)  // asked for each batch: no string of the path is made for nothing
    fail(ErrorCode::io,
         "{} shrank to {} bytes while it was in use, but its rows end at byte {}; restore the file and open "
         "it "
         "again",
         path_.string(), now, end);
}

void FileHandle::read(uint64_t offset, std::byte* into, uint64_t bytes) const {
  constexpr uint64_t kMost = uint64_t{1} << 30;
  for (uint64_t done = 0; done < bytes;) {
    const ssize_t got =
        ::pread(fd_, into + done, std::min(bytes - done, kMost), static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    require(got > 0, ErrorCode::io, "cannot read {} at byte {}: {}", path_.string(), offset + done,
            got == 0 ? "the file became shorter" : std::strerror(errno));
    done += static_cast<uint64_t>(got);
  }
}

bool can_read_directly(const std::filesystem::path& path) noexcept {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
  if (fd >= 0) ::close(fd);
  return fd >= 0;
}

double resident_fraction_of(const FileHandle& file, uint64_t begin, uint64_t end) {
  constexpr uint64_t kWindow = uint64_t{1} << 30;
  static const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  begin = begin / page * page;
  end = std::min(end, file.size());
  if (begin >= end) return 0;
  std::vector<unsigned char> present(kWindow / page);
  uint64_t pages = 0, inside = 0;
  for (uint64_t at = begin; at < end; at += kWindow) {
    const uint64_t bytes = std::min(kWindow, end - at);
    void* map = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file.fd(), static_cast<off_t>(at));
    require(map != MAP_FAILED, ErrorCode::io, "cannot map {}: {}", file.path().string(),
            std::strerror(errno));
    const uint64_t count = (bytes + page - 1) / page;
    if (::mincore(map, bytes, present.data()) == 0) {
      pages += count;
      for (uint64_t i = 0; i < count; ++i) inside += present[i] & 1;
    }
    ::munmap(map, bytes);
  }
  return pages == 0 ? 0.0 : static_cast<double>(inside) / static_cast<double>(pages);
}

uint64_t part_span(uint64_t rows, uint32_t bytes, uint32_t rows_per_page) {
  if (rows == 0) return 0;
  if (rows_per_page == 0) return checked_mul(rows, bytes, "size of a memory table");
  const uint64_t last = rows - 1;
  const uint64_t pages = checked_mul(last / rows_per_page, kPageBytes, "size of a memory table");
  return checked_add(pages, (last % rows_per_page + 1) * bytes, "size of a memory table");
}

uint32_t pack_rows_per_page(uint32_t row_bytes) noexcept {
  if (row_bytes == 0 || row_bytes > kPageBytes) return 0;
  const auto fit = static_cast<uint32_t>(kPageBytes / row_bytes);
  return kPageBytes - uint64_t{fit} * row_bytes <= kPageBytes / 8 ? fit : 0;
}

RowMap::RowMap(const RowLayout& layout) {
  const std::string name = layout.path.string();
  for (const RowSegment& given : layout.segments) {
    Segment segment{rows_, given.rows, {}};
    uint64_t record = 0;
    for (const RowPart& part : given.parts) {
      require(part.rows_per_page == 0 || uint64_t{part.rows_per_page} * part.bytes <= kPageBytes,
              ErrorCode::invalid_argument, "{}: {} rows of {} bytes do not fit into a page of {}", name,
              part.rows_per_page, part.bytes, kPageBytes);
      const auto file =
          std::find_if(files_.begin(), files_.end(), [&](const File& f) { return f.path == part.path; });
      const auto index = static_cast<uint32_t>(file - files_.begin());
      if (file == files_.end()) files_.push_back({part.path});
      const uint64_t span = part_span(given.rows, part.bytes, part.rows_per_page);
      const uint64_t end = checked_add(part.offset, span, "end of a memory table");
      require(end <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max()), ErrorCode::corrupt,
              "{}: rows end at byte {}, beyond any file", name, end);
      files_[index].begin = std::min(files_[index].begin, part.offset);
      files_[index].end = std::max(files_[index].end, end);
      segment.parts.push_back(
          {index, part.offset, part.bytes, part.rows_per_page, static_cast<uint32_t>(record)});
      record += part.bytes;
      require(part.bytes > 0 && record <= (uint64_t{1} << 30), ErrorCode::invalid_argument,
              "{}: a memory table of rows of {} bytes; they must have 1 to 2^30", name, record);
    }
    require(given.rows > 0 && record > 0, ErrorCode::invalid_argument,
            "{}: a memory table of {} rows of {} bytes; both must be at least 1", name, given.rows, record);
    require(rows_ == 0 || record == row_bytes_, ErrorCode::invalid_argument,
            "{}: rows of {} and of {} bytes in one table; they must have one size", name, row_bytes_, record);
    row_bytes_ = static_cast<uint32_t>(record);
    rows_ = checked_add(rows_, given.rows, "rows of a memory table");
    contiguous_ &= given.parts.size() == 1;
    segments_.push_back(std::move(segment));
  }
  require(rows_ > 0, ErrorCode::invalid_argument, "{}: a memory table of no rows; it must have at least 1",
          name);
  checked_mul(rows_, row_bytes_, "size of a memory table");
}

std::vector<FileHandle> RowMap::open_files(bool direct) const {
  std::vector<FileHandle> out;
  for (const File& file : files_) {
    out.emplace_back(file.path, direct);
    const uint64_t size = out.back().size();
    require(
        file.end <= size, ErrorCode::corrupt,
        "{}: {} rows of {} bytes from offset {} end at byte {}, but the file has {}; it is incomplete or its "
        "description belongs to another file",
        file.path.string(), rows_, row_bytes_, file.begin, file.end, size);
  }
  return out;
}

}  // namespace mneme
