// RowMap: a RowLayout with every size checked, which says where each part of a row lies. FileHandle: a file
// opened for reading rows.
#pragma once
#include <cstdint>
#include <filesystem>
#include <vector>

#include "mneme/memory.h"

namespace mneme {

inline constexpr uint64_t kPageBytes = 4096;  // unit of direct reads and of rows_per_page

/// A regular file opened for reading. Throws Error(not_found | io).
class FileHandle {
 public:
  FileHandle() = default;
  explicit FileHandle(const std::filesystem::path& path, bool direct = false);
  ~FileHandle();
  FileHandle(FileHandle&& other) noexcept;
  FileHandle& operator=(FileHandle&& other) noexcept;

  int fd() const noexcept { return fd_; }
  const std::filesystem::path& path() const noexcept { return path_; }
  /// Size now. Throws Error(io).
  uint64_t size() const;
  /// Throws Error(io) if the file now ends before `end`.
  void check_not_shorter(uint64_t end) const;
  /// Reads all of [offset, offset + bytes). Throws Error(io), naming the byte.
  void read(uint64_t offset, std::byte* into, uint64_t bytes) const;

 private:
  std::filesystem::path path_;
  int fd_ = -1;
};

/// Whether the filesystem lets `path` be opened for direct reads.
bool can_read_directly(const std::filesystem::path& path) noexcept;

/// The share of bytes [begin, end) of a file that the file cache holds.
double resident_fraction_of(const FileHandle& file, uint64_t begin, uint64_t end);

class RowMap {
 public:
  struct Part {
    uint32_t file = 0;  // index into files()
    uint64_t offset = 0;
    uint32_t bytes = 0;
    uint32_t rows_per_page = 0;
    uint32_t within = 0;  // where the part begins in the record

    /// Byte of the file at which the part of the segment's row `row` begins.
    uint64_t at(uint64_t row) const noexcept {
      if (rows_per_page == 0) return offset + row * bytes;
      return offset + row / rows_per_page * kPageBytes + row % rows_per_page * bytes;
    }
  };
  struct Segment {
    uint64_t first = 0, rows = 0;
    std::vector<Part> parts;
  };
  struct File {
    std::filesystem::path path;
    uint64_t begin = ~uint64_t{0}, end = 0;  // of the bytes that rows use
  };

  /// Throws Error: invalid_argument (nothing to read, records of different sizes), corrupt (overflow).
  explicit RowMap(const RowLayout& layout);

  uint64_t rows() const noexcept { return rows_; }
  uint32_t row_bytes() const noexcept { return row_bytes_; }
  const std::vector<Segment>& segments() const noexcept { return segments_; }
  const std::vector<File>& files() const noexcept { return files_; }
  /// One part only, so that a record can be used where it lies.
  bool contiguous() const noexcept { return contiguous_; }
  const Segment& segment_of(uint64_t row) const noexcept {
    size_t i = 0;
    while (row - segments_[i].first >= segments_[i].rows) ++i;  // a table has one or a few
    return segments_[i];
  }
  /// Opens all files and checks that the rows end inside them. Throws Error(not_found | io | corrupt).
  std::vector<FileHandle> open_files(bool direct = false) const;

 private:
  uint64_t rows_ = 0;
  uint32_t row_bytes_ = 0;
  bool contiguous_ = true;
  std::vector<Segment> segments_;
  std::vector<File> files_;
};

/// Bytes that `rows` parts take from the first to the last. Throws Error(corrupt) on overflow.
uint64_t part_span(uint64_t rows, uint32_t bytes, uint32_t rows_per_page);

/// How many records of that size are put into a page of a pack: as many as fit, or 0 (back to back) where
/// that would leave more than an eighth unused. Records above a page are always back to back.
uint32_t pack_rows_per_page(uint32_t row_bytes) noexcept;

}  // namespace mneme
