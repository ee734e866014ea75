// Files as the rest of Mneme sees them: a read-only mapping (or a full read), and an atomic writer.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace mneme {

namespace fs = std::filesystem;
using Bytes = std::span<const std::byte>;

enum class LoadMode {
  mmap,  // pages come from the file cache when touched
  read   // the whole file is read into memory at open
};

/// A read-only view of a whole file. Movable, not copyable; safe to read from many threads.
/// Throws Error(not_found | io) when the path cannot be opened, is a directory, or shrinks while being read.
class MappedFile {
 public:
  MappedFile() = default;
  MappedFile(const fs::path& path, LoadMode mode);
  ~MappedFile();
  MappedFile(MappedFile&&) noexcept;
  MappedFile& operator=(MappedFile&&) noexcept;

  Bytes bytes() const noexcept { return {data_, size_}; }
  uint64_t size() const noexcept { return size_; }
  const fs::path& path() const noexcept { return path_; }
  LoadMode mode() const noexcept { return mode_; }

  /// Tells the kernel that `part` will be read soon.
  void will_need(Bytes part) const noexcept;
  /// Gives back the pages of `part` to the system; for `mmap` they are read again when touched, for `read`
  /// their contents become undefined. Used after a tensor has been copied into its run-time layout.
  void release(Bytes part) const noexcept;
  /// Throws Error(io) if the file on disk is now shorter than when it was opened (reading a mapping past the
  /// end of a file kills a process with SIGBUS, so callers check before a long pass over the data).
  void check_not_truncated() const;

 private:
  fs::path path_;
  std::byte* data_ = nullptr;
  size_t size_ = 0;
  LoadMode mode_ = LoadMode::mmap;
  int fd_ = -1;
  void close() noexcept;
};

/// Writes a file so that its name holds either the old content or the whole new content, also after a power
/// cut: unique temporary file in the same folder -> write -> fsync -> rename -> fsync of the folder. A
/// destructor without commit() removes the temporary file. Throws Error(io), e.g. when the disk is full.
class AtomicFile {
 public:
  explicit AtomicFile(fs::path target);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(Bytes data);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }
  /// Writes zero bytes up to the next multiple of `alignment`.
  void pad_to(uint64_t alignment);
  uint64_t position() const noexcept { return position_; }
  /// Makes the content durable and visible under the target name.
  void commit();

 private:
  fs::path target_, temporary_;
  int fd_ = -1;
  int slot_ = -1;  // in the list that remove_unfinished_files() walks
  uint64_t position_ = 0;
  std::string buffer_;
  void flush();
};

/// Removes the temporary file of every AtomicFile that is not committed. Async-signal-safe: for handlers that
/// are about to end the process.
void remove_unfinished_files() noexcept;

/// Removes the temporary files in a folder whose process has ended without doing so itself: killed, or by a
/// power cut. One that was written to within the last minute stays, because a process of another machine may
/// write there. Files that cannot be removed are left. Returns how many went.
int remove_stale_files(const fs::path& folder) noexcept;

/// Reads a small text file. Throws Error(not_found | io), and Error(limit) if it is larger than `max_bytes`.
std::string read_text_file(const fs::path& path, uint64_t max_bytes = uint64_t{256} << 20);

}  // namespace mneme
