// Reads the header of a GGUF file front to back. Every read is checked against the end of the bytes, and
// every failure names the file, the field and the byte where it lies.
#pragma once
#include <cstring>
#include <string>
#include <string_view>

#include "core/fail.h"
#include "core/file.h"
#include "files/printable.h"

namespace mneme {

class GgufCursor {
 public:
  GgufCursor(Bytes bytes, std::string file) : bytes_(bytes), file_(std::move(file)) {}

  uint64_t at() const noexcept { return at_; }
  uint64_t remaining() const noexcept { return bytes_.size() - at_; }
  const std::string& file() const noexcept { return file_; }

  /// `what` names the field in messages.
  template <class T>
  T number(std::string_view what) {
    T value;
    std::memcpy(&value, take(sizeof(T), what), sizeof(T));
    return value;
  }
  /// A u64 length and that many bytes; a view into the file.
  std::string_view string(std::string_view what) {
    const auto length = number<uint64_t>(what);
    if (length > remaining()) [[unlikely]]
      fail_length(length, what);
    const char* text = reinterpret_cast<const char*>(bytes_.data()) + at_;
    at_ += length;
    return {text, static_cast<size_t>(length)};
  }
  const std::byte* take(uint64_t size, std::string_view what) {
    if (size > remaining()) [[unlikely]]
      fail_end(size, what);
    const std::byte* from = bytes_.data() + at_;
    at_ += size;
    return from;
  }
  /// Throws Error(code) with "FILE: text (byte N)".
  template <class... Args>
  [[noreturn]] void fail_here(ErrorCode code, uint64_t byte, fmt::format_string<Args...> format,
                              Args&&... args) const {
    fail(code, "{}: {} (byte {})", file_, fmt::format(format, std::forward<Args>(args)...), byte);
  }

 private:
  Bytes bytes_;
  std::string file_;
  uint64_t at_ = 0;
  [[noreturn]] void fail_end(uint64_t size, std::string_view what) const;
  [[noreturn]] void fail_length(uint64_t length, std::string_view what) const;
};

}  // namespace mneme
