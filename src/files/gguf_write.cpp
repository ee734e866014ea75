#include <limits>

#include "core/checked.h"
#include "core/fail.h"
#include "files/gguf_value.h"

namespace mneme {
namespace {

constexpr uint64_t kAlignment = 32;

// The header is built in memory: a few megabytes at most, nearly all of it the vocabulary.
class HeaderBuilder {
 public:
  template <class T>
  void number(T value) {
    text_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void string(std::string_view text) {
    number(uint64_t{text.size()});
    text_ += text;
  }
  void type(GgufType type) { number(static_cast<uint32_t>(type)); }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

template <class Stored, class Wide>
bool all_fit(const std::vector<Wide>& values) {
  for (const Wide v : values)
    if (!std::in_range<Stored>(v)) return false;
  return true;
}

template <class Stored, class Values>
void put_array(HeaderBuilder& out, GgufType type, const Values& values) {
  out.type(GgufType::array);
  out.type(type);
  out.number(uint64_t{values.size()});
  for (const auto v : values) out.number(static_cast<Stored>(v));
}

struct ValueWriter {
  HeaderBuilder& out;

  void operator()(uint64_t v) const {
    const bool fits = std::in_range<uint32_t>(v);
    out.type(fits ? GgufType::u32 : GgufType::u64);
    fits ? out.number(static_cast<uint32_t>(v)) : out.number(v);
  }
  void operator()(int64_t v) const {
    const bool fits = std::in_range<int32_t>(v);
    out.type(fits ? GgufType::i32 : GgufType::i64);
    fits ? out.number(static_cast<int32_t>(v)) : out.number(v);
  }
  void operator()(double v) const {
    out.type(GgufType::f32);
    out.number(static_cast<float>(v));
  }
  void operator()(bool v) const {
    out.type(GgufType::boolean);
    out.number(static_cast<uint8_t>(v));
  }
  void operator()(const std::string& v) const {
    out.type(GgufType::string);
    out.string(v);
  }
  void operator()(const std::vector<uint64_t>& v) const {
    all_fit<uint32_t>(v) ? put_array<uint32_t>(out, GgufType::u32, v)
                         : put_array<uint64_t>(out, GgufType::u64, v);
  }
  void operator()(const std::vector<int64_t>& v) const {
    all_fit<int32_t>(v) ? put_array<int32_t>(out, GgufType::i32, v)
                        : put_array<int64_t>(out, GgufType::i64, v);
  }
  void operator()(const std::vector<double>& v) const { put_array<float>(out, GgufType::f32, v); }
  void operator()(const std::vector<bool>& v) const { put_array<uint8_t>(out, GgufType::boolean, v); }
  void operator()(const std::vector<std::string>& v) const {
    out.type(GgufType::array);
    out.type(GgufType::string);
    out.number(uint64_t{v.size()});
    for (const auto& text : v) out.string(text);
  }
};

std::string build_header(const GgufMetadata& metadata, const std::vector<GgufTensorToWrite>& tensors) {
  HeaderBuilder out;
  for (const char c : std::string_view("GGUF")) out.number(c);
  out.number(uint32_t{3});
  out.number(uint64_t{tensors.size()});
  const bool aligned = metadata.has("general.alignment");  // written by this function, not copied
  out.number(uint64_t{metadata.values().size() - (aligned ? 1 : 0)});
  for (const auto& [key, value] : metadata.values()) {
    if (key == "general.alignment") continue;
    out.string(key);
    std::visit(ValueWriter{out}, value);
  }
  uint64_t offset = 0;
  for (const auto& tensor : tensors) {
    const auto& info = tensor.info;
    require(info.shape.size() <= 4, ErrorCode::invalid_argument,
            "tensor \"{}\" has {} dimensions; GGUF allows 4", info.name, info.shape.size());
    out.string(info.name);
    out.number(static_cast<uint32_t>(info.shape.size()));
    for (size_t d = info.shape.size(); d-- > 0;) out.number(info.shape[d]);
    out.number(static_cast<uint32_t>(info.type));
    out.number(offset);
    offset = checked_align(checked_add(offset, info.bytes, "tensor offset"), kAlignment, "tensor offset");
  }
  return out.text();
}

}  // namespace

void write_gguf(const fs::path& path, const GgufMetadata& metadata,
                const std::vector<GgufTensorToWrite>& tensors,
                const std::function<void(uint64_t done, uint64_t total)>& progress) {
  AtomicFile file(path);
  file.write(build_header(metadata, tensors));
  file.pad_to(kAlignment);
  uint64_t done = 0, total = 0;
  for (const auto& tensor : tensors) total += tensor.info.bytes;
  for (const auto& tensor : tensors) {
    const uint64_t begin = file.position();
    tensor.write(file);
    require(file.position() - begin == tensor.info.bytes, ErrorCode::internal,
            "tensor \"{}\" wrote {} bytes instead of {}", tensor.info.name, file.position() - begin,
            tensor.info.bytes);
    file.pad_to(kAlignment);
    done += tensor.info.bytes;
    if (progress) progress(done, total);
  }
  file.commit();
}

}  // namespace mneme
