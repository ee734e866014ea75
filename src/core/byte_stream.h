// A file or standard input from its beginning to its end, piece by piece: for texts that need not fit memory.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "core/file.h"

namespace mneme {

/// Movable, not copyable; one thread at a time.
class ByteStream {
 public:
  static constexpr size_t kPiece = size_t{1} << 20;

  /// Opens a regular file, a pipe or a device. Throws Error(not_found | io).
  explicit ByteStream(const fs::path& path);
  static ByteStream standard_input();
  ~ByteStream();
  ByteStream(ByteStream&& other) noexcept;
  ByteStream& operator=(ByteStream&&) = delete;

  /// The next bytes, at most kPiece of them, empty at the end; valid until the next call. Throws Error(io).
  std::string_view next();
  uint64_t bytes_read() const noexcept { return read_; }
  /// Size of a regular file when it was opened; 0 for anything else.
  uint64_t total_bytes() const noexcept { return total_; }

 private:
  ByteStream() = default;

  std::string name_, buffer_;
  int fd_ = -1;
  bool owned_ = false;
  uint64_t read_ = 0, total_ = 0;
};

}  // namespace mneme
