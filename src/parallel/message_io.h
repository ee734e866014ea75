// Writing and reading the bytes of a message: little-endian values, varints (7 bits a byte, the lowest first)
// and plain bytes. A reader checks every step, because a message may come from a process of another build or
// be damaged: what is not there throws Error(corrupt).
#pragma once
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/fail.h"
#include "parallel/transport.h"

namespace mneme {

class MessageWriter {
 public:
  /// Makes room for so many bytes, and for the one that Peers adds.
  void reserve(size_t bytes) { bytes_.reserve(bytes + 1); }
  template <class T>
  void value(T v) {
    static_assert(std::is_trivially_copyable_v<T>);
    raw(&v, sizeof v);
  }
  void varint(uint64_t v) {
    for (; v >= 0x80; v >>= 7) bytes_.push_back(static_cast<std::byte>(v | 0x80));
    bytes_.push_back(static_cast<std::byte>(v));
  }
  void raw(const void* data, size_t size) {
    const auto* from = static_cast<const std::byte*>(data);
    bytes_.insert(bytes_.end(), from, from + size);
  }
  void text(std::string_view t) {
    varint(t.size());
    raw(t.data(), t.size());
  }
  size_t size() const noexcept { return bytes_.size(); }
  MessageBytes take() { return std::move(bytes_); }

 private:
  MessageBytes bytes_;
};

class MessageReader {
 public:
  /// `what` names the message in errors. The bytes outlive the reader.
  MessageReader(std::span<const std::byte> bytes, std::string_view what) : left_(bytes), what_(what) {}

  template <class T>
  T value() {
    static_assert(std::is_trivially_copyable_v<T>);
    T v;
    std::memcpy(&v, raw(sizeof v).data(), sizeof v);
    return v;
  }
  /// A varint of at most `most`.
  uint64_t varint(uint64_t most) {
    uint64_t v = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<uint64_t>(raw(1)[0]);
      if (shift == 63 && byte > 1) break;
      v |= (byte & 0x7f) << shift;
      if (byte < 0x80) {
        require(v <= most, ErrorCode::corrupt, "{}: {} where at most {} is right", what_, v, most);
        return v;
      }
    }
    fail(ErrorCode::corrupt, "{}: a number of more than 64 bits", what_);
  }
  std::span<const std::byte> raw(uint64_t size) {
    require(size <= left_.size(), ErrorCode::corrupt, "{}: ends {} bytes too early", what_,
            size - left_.size());
    const auto out = left_.first(size);
    left_ = left_.subspan(size);
    return out;
  }
  std::string text(uint64_t most) {
    const auto bytes = raw(varint(most));
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  size_t left() const noexcept { return left_.size(); }
  const std::string& what() const noexcept { return what_; }
  /// The message must have been read to its end.
  void end() const {
    require(left_.empty(), ErrorCode::corrupt, "{}: {} bytes too many", what_, left_.size());
  }

 private:
  std::span<const std::byte> left_;
  std::string what_;
};

}  // namespace mneme
