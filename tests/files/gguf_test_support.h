// Builds small GGUF files in memory, field by field, so that tests can break any one of them.
#pragma once
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mneme::test {

class ByteWriter {
 public:
  template <class T>
  ByteWriter& put(T value) {
    bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  ByteWriter& raw(std::string_view text) {
    bytes += text;
    return *this;
  }
  ByteWriter& string(std::string_view text) { return put(uint64_t{text.size()}).raw(text); }

  std::string bytes;
};

struct TensorRecord {
  std::string name;
  std::vector<uint64_t> dims;  // innermost first, as in the file
  uint32_t type = 0;
  uint64_t offset = 0;
};

/// A GGUF file from its parts. Each field defaults to a valid value; counts follow the vectors unless set.
struct GgufImage {
  std::string magic = "GGUF";
  uint32_t version = 3;
  int64_t tensor_count = -1, pair_count = -1;
  std::vector<std::string> pairs = {
      ByteWriter().string("general.architecture").put(8u).string("llama").bytes};
  std::vector<TensorRecord> tensors = {{"a", {4, 2}, 0, 0}, {"b", {32}, 8, 32}};
  uint64_t alignment = 32;
  uint64_t data_bytes = 96;

  std::string bytes() const {
    ByteWriter out;
    out.raw(magic).put(version);
    out.put(tensor_count < 0 ? uint64_t{tensors.size()} : static_cast<uint64_t>(tensor_count));
    out.put(pair_count < 0 ? uint64_t{pairs.size()} : static_cast<uint64_t>(pair_count));
    for (const auto& pair : pairs) out.raw(pair);
    for (const auto& tensor : tensors) {
      out.string(tensor.name).put(static_cast<uint32_t>(tensor.dims.size()));
      for (const uint64_t d : tensor.dims) out.put(d);
      out.put(tensor.type).put(tensor.offset);
    }
    while (out.bytes.size() % alignment != 0) out.put('\0');
    for (uint64_t i = 0; i < data_bytes; ++i) out.put(static_cast<uint8_t>(i));
    return out.bytes;
  }
};

inline std::span<const std::byte> view(const std::string& text) {
  return std::as_bytes(std::span(text));
}

}  // namespace mneme::test
