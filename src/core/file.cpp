#include "core/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstring>
#include <optional>
#include <utility>

#include "core/fail.h"

namespace mneme {
namespace {

constexpr size_t kWriteBuffer = size_t{1} << 20;

[[noreturn]] void fail_errno(const char* what, const fs::path& path) {
  const int error = errno;
  const auto code = error == ENOENT ? ErrorCode::not_found : ErrorCode::io;
  fail(code, "cannot {} {}: {}", what, path.string(), std::strerror(error));
}

size_t page_size() {
  static const auto size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return size;
}

void write_all(int fd, const char* data, size_t size, const fs::path& path) {
  while (size > 0) {
    const ssize_t done = ::write(fd, data, size);
    if (done < 0) {
      if (errno == EINTR) continue;
      fail_errno("write", path);
    }
    data += done;
    size -= static_cast<size_t>(done);
  }
}

void sync_folder(const fs::path& folder) {
  const int fd = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;  // a folder that cannot be opened cannot be synced; the rename itself has succeeded
  ::fsync(fd);
  ::close(fd);
}

// Names of temporary files, for a signal handler: static storage, no locks. A slot is free, being filled, or
// ready. A file beyond the last slot is only cleaned up by its destructor.
enum SlotState : int { kFree, kFilling, kReady };
struct UnfinishedFile {
  std::atomic<int> state{kFree};
  std::array<char, 4096> path{};
};
std::array<UnfinishedFile, 16> g_unfinished;
static_assert(std::atomic<int>::is_always_lock_free);

int remember_unfinished(const fs::path& path) {
  const std::string& name = path.native();
  if (name.size() >= g_unfinished[0].path.size()) return -1;
  for (size_t i = 0; i < g_unfinished.size(); ++i) {
    int expected = kFree;
    if (!g_unfinished[i].state.compare_exchange_strong(expected, kFilling)) continue;
    std::copy(name.begin(), name.end(), g_unfinished[i].path.begin());
    g_unfinished[i].path[name.size()] = '\0';
    g_unfinished[i].state.store(kReady);
    return static_cast<int>(i);
  }
  return -1;
}

constexpr std::string_view kPartial = ".partial";

/// The process that made a temporary file, by its name: NAME.PID-SERIAL.partial.
std::optional<pid_t> writer_of(std::string_view name) {
  if (!name.ends_with(kPartial)) return {};
  name.remove_suffix(kPartial.size());
  const size_t dot = name.rfind('.'), dash = name.rfind('-');
  if (dot == std::string_view::npos || dash == std::string_view::npos || dash < dot) return {};
  pid_t pid = 0;
  const auto [end, problem] = std::from_chars(name.data() + dot + 1, name.data() + dash, pid);
  if (problem != std::errc() || end != name.data() + dash || pid <= 0) return {};
  return pid;
}

void forget_unfinished(int& slot) {
  if (slot >= 0) g_unfinished[static_cast<size_t>(slot)].state.store(kFree);
  slot = -1;
}

}  // namespace

void remove_unfinished_files() noexcept {
  for (UnfinishedFile& file : g_unfinished)
    if (file.state.load() == kReady) ::unlink(file.path.data());
}

int remove_stale_files(const fs::path& folder) noexcept {
  int removed = 0;
  try {
    std::error_code error;
    for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
      const auto pid = writer_of(at->path().filename().string());
      if (!pid || ::kill(*pid, 0) == 0 || errno != ESRCH) continue;
      std::error_code unknown;
      const auto written = fs::last_write_time(at->path(), unknown);
      if (unknown || fs::file_time_type::clock::now() - written < std::chrono::minutes(1)) continue;
      removed += ::unlink(at->path().c_str()) == 0 ? 1 : 0;
    }
  } catch (const std::exception&) {  // no memory for a name: the rest stays
  }
  return removed;
}

MappedFile::MappedFile(const fs::path& path, LoadMode mode) : path_(path), mode_(mode) {
  fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd_ < 0) fail_errno("open", path);
  struct stat info {};
  if (::fstat(fd_, &info) != 0) {
    const int error = errno;
    close();
    errno = error;
    fail_errno("stat", path);
  }
  if (!S_ISREG(info.st_mode)) {
    close();
    fail(ErrorCode::io, "cannot open {}: it is not a regular file", path.string());
  }
  size_ = static_cast<size_t>(info.st_size);
  if (size_ == 0) return;
  const bool map = mode == LoadMode::mmap;
  void* memory = map ? ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd_, 0)
                     : ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    const int error = errno;
    close();
    errno = error;
    fail_errno(map ? "map" : "allocate memory for", path);
  }
  data_ = static_cast<std::byte*>(memory);
  if (map) return;
  for (size_t at = 0; at < size_;) {
    const ssize_t got = ::pread(fd_, data_ + at, size_ - at, static_cast<off_t>(at));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      const int error = got == 0 ? EIO : errno;
      const size_t size = size_;
      close();
      if (got == 0)
        fail(ErrorCode::io, "{} became shorter while it was read ({} of {} bytes)", path_.string(), at, size);
      errno = error;
      fail_errno("read", path_);
    }
    at += static_cast<size_t>(got);
  }
}

MappedFile::~MappedFile() {
  close();
}

MappedFile::MappedFile(MappedFile&& other) noexcept {
  *this = std::move(other);
}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  if (this == &other) return *this;
  close();
  path_ = std::move(other.path_);
  data_ = std::exchange(other.data_, nullptr);
  size_ = std::exchange(other.size_, 0);
  fd_ = std::exchange(other.fd_, -1);
  mode_ = other.mode_;
  return *this;
}

void MappedFile::close() noexcept {
  if (data_ != nullptr) ::munmap(data_, size_);
  if (fd_ >= 0) ::close(fd_);
  data_ = nullptr;
  size_ = 0;
  fd_ = -1;
}

void MappedFile::will_need(Bytes part) const noexcept {
  if (part.empty() || mode_ != LoadMode::mmap) return;
  const auto begin = reinterpret_cast<uintptr_t>(part.data()) & ~(page_size() - 1);
  const auto end = reinterpret_cast<uintptr_t>(part.data() + part.size());
  ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_WILLNEED);
}

void MappedFile::release(Bytes part) const noexcept {
  if (part.empty()) return;
  // Only whole pages inside the part: neighbours may still be in use.
  const auto begin = (reinterpret_cast<uintptr_t>(part.data()) + page_size() - 1) & ~(page_size() - 1);
  const auto end = reinterpret_cast<uintptr_t>(part.data() + part.size()) & ~(page_size() - 1);
  if (end > begin) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

void MappedFile::check_not_truncated() const {
  if (fd_ < 0) return;
  struct stat info {};
  if (::fstat(fd_, &info) != 0) fail_errno("stat", path_);
  require(static_cast<uint64_t>(info.st_size) >= size_, ErrorCode::io,
          "{} shrank from {} to {} bytes while it was in use; restore the file and load it again",
          path_.string(), size_, static_cast<uint64_t>(info.st_size));
}

AtomicFile::AtomicFile(fs::path target) : target_(std::move(target)) {
  static std::atomic<uint64_t> serial{0};
  temporary_ = target_;
  temporary_ += fmt::format(".{}-{}{}", ::getpid(), serial.fetch_add(1), kPartial);
  fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd_ < 0) fail_errno("create", temporary_);
  slot_ = remember_unfinished(fs::absolute(temporary_));
  buffer_.reserve(kWriteBuffer);
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) {
    ::close(fd_);
    ::unlink(temporary_.c_str());
  }
  forget_unfinished(slot_);
}

void AtomicFile::write(Bytes data) {
  require(fd_ >= 0, ErrorCode::internal, "write to {} after commit", target_.string());
  const auto* text = reinterpret_cast<const char*>(data.data());
  position_ += data.size();
  if (buffer_.size() + data.size() <= kWriteBuffer) {
    buffer_.append(text, data.size());
    return;
  }
  flush();
  write_all(fd_, text, data.size(), temporary_);
}

void AtomicFile::pad_to(uint64_t alignment) {
  const uint64_t missing = (alignment - position_ % alignment) % alignment;
  write(std::string(missing, '\0'));
}

void AtomicFile::flush() {
  write_all(fd_, buffer_.data(), buffer_.size(), temporary_);
  buffer_.clear();
}

void AtomicFile::commit() {
  flush();
  if (::fsync(fd_) != 0) fail_errno("sync", temporary_);
  const int fd = std::exchange(fd_, -1);
  if (::close(fd) != 0 || ::rename(temporary_.c_str(), target_.c_str()) != 0) {
    const int error = errno;
    ::unlink(temporary_.c_str());
    errno = error;
    fail_errno("save", target_);
  }
  forget_unfinished(slot_);
  sync_folder(target_.parent_path());
}

std::string read_text_file(const fs::path& path, uint64_t max_bytes) {
  const MappedFile file(path, LoadMode::read);
  require(file.size() <= max_bytes, ErrorCode::limit,
          "{} has {} bytes, more than the {} allowed for this kind of file", path.string(), file.size(),
          max_bytes);
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

}  // namespace mneme
