#include "files/safetensors_header.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "core/fail.h"
#include "core/json.h"
#include "files/printable.h"

namespace mneme {
namespace {

constexpr uint64_t kMaxHeader = 100'000'000;  // the reference implementation's limit
constexpr uint64_t kMaxRank = 8;
constexpr uint64_t kMaxName = 1024;

// The types that have a DType. The format's others (BOOL, F8_E5M2, U16...) are refused by name.
constexpr std::array kTypes = {DType::f32, DType::f16, DType::bf16,    DType::f64,     DType::i8, DType::i16,
                               DType::i32, DType::i64, DType::f8_e4m3, DType::f8_e8m0, DType::u8};

// Says "FILE: tensor "NAME": ..." for every failure of one entry.
class EntryReader {
 public:
  EntryReader(const std::string& file, const std::string& name) : file_(file), name_(name) {}

  template <class... Args>
  void check(bool ok, fmt::format_string<Args...> format, Args&&... args) const {
    if (!ok) [[unlikely]]
      fail(ErrorCode::corrupt, "{}: tensor \"{}\": {}", file_, printable(name_),
           fmt::format(format, std::forward<Args>(args)...));
  }

  SafetensorsEntry read(const Json& value, uint64_t data_begin, uint64_t file_size) const {
    check(!name_.empty() && name_.size() <= kMaxName && name_.find('\0') == std::string::npos,
          "a name must have 1 to {} bytes and no NUL", kMaxName);
    check(value.is_object(), "its description must be an object with dtype, shape and data_offsets");
    for (const auto& [key, unused] : value.items())
      check(key == "dtype" || key == "shape" || key == "data_offsets", "it has an unknown field \"{}\"",
            printable(key));
    SafetensorsEntry entry;
    entry.info.name = name_;
    entry.info.type = read_type(field(value, "dtype"));
    read_shape(field(value, "shape"), entry.info);
    read_offsets(field(value, "data_offsets"), data_begin, file_size, entry);
    return entry;
  }

 private:
  const std::string& file_;
  const std::string& name_;

  const Json& field(const Json& value, const char* key) const {
    const auto at = value.find(key);
    check(at != value.end(), "it has no field \"{}\"", key);
    return *at;
  }

  DType read_type(const Json& value) const {
    check(value.is_string(), "dtype must be a string such as \"F16\"");
    const auto& text = value.get_ref<const std::string&>();
    for (const DType type : kTypes)
      if (dtype_info(type).name == text) return type;
    fail(ErrorCode::unsupported,
         "{}: tensor \"{}\" has dtype \"{}\", which cannot be read; F32, F16 and BF16 can", file_,
         printable(name_), printable(text));
  }

  void read_shape(const Json& value, TensorInfo& info) const {
    check(value.is_array() && value.size() <= kMaxRank, "shape must be a list of at most {} sizes", kMaxRank);
    uint64_t values = 1;
    for (const auto& item : value) {
      check(item.is_number_unsigned(), "shape must hold whole numbers");
      const auto size = item.get<uint64_t>();
      check(size > 0, "shape has a dimension of zero");
      check(!__builtin_mul_overflow(values, size, &values), "the product of its shape overflows 64 bits");
      info.shape.push_back(size);
    }
    check(!__builtin_mul_overflow(values, uint64_t{dtype_info(info.type).block_bytes}, &info.bytes),
          "its size in bytes overflows 64 bits");
  }

  void read_offsets(const Json& value, uint64_t data_begin, uint64_t file_size,
                    SafetensorsEntry& entry) const {
    check(value.is_array() && value.size() == 2 && value[0].is_number_unsigned() &&
              value[1].is_number_unsigned(),
          "data_offsets must be two whole numbers");
    const auto begin = value[0].get<uint64_t>(), end = value[1].get<uint64_t>();
    check(begin <= end, "data_offsets {} and {} run backwards", begin, end);
    check(
        end <= file_size - data_begin,
        "its data ends at byte {}, but the file holds {} after the header; it may be an incomplete download",
        end, file_size - data_begin);
    check(end - begin == entry.info.bytes, "data_offsets span {} bytes, but dtype and shape need {}",
          end - begin, entry.info.bytes);
    entry.offset = data_begin + begin;
  }
};

void check_metadata(const Json& value, const std::string& file) {
  bool ok = value.is_object();
  if (ok)
    for (const auto& item : value) ok &= item.is_string();
  require(ok, ErrorCode::corrupt, "{}: __metadata__ must be an object of strings", file);
}

// The format allows neither overlaps nor gaps, so that nothing can hide in a file.
void check_cover(const std::vector<SafetensorsEntry>& entries, uint64_t data_begin, uint64_t file_size,
                 const std::string& file) {
  uint64_t at = data_begin;
  for (const auto& entry : entries) {
    require(entry.offset >= at, ErrorCode::corrupt,
            "{}: tensor \"{}\" overlaps the tensor before it at byte {}", file, printable(entry.info.name),
            entry.offset);
    require(entry.offset == at, ErrorCode::corrupt,
            "{}: bytes {} to {} before tensor \"{}\" belong to no tensor", file, at, entry.offset,
            printable(entry.info.name));
    at = entry.offset + entry.info.bytes;
  }
  require(at == file_size, ErrorCode::corrupt, "{}: {} bytes after the last tensor belong to no tensor", file,
          file_size - at);
}

}  // namespace

std::vector<SafetensorsEntry> parse_safetensors_header(Bytes bytes, const std::string& file) {
  require(bytes.size() >= 8, ErrorCode::corrupt,
          "{} has {} bytes; a safetensors file begins with 8 bytes of header length", file, bytes.size());
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof length);
  require(length <= kMaxHeader, ErrorCode::corrupt,
          "{}: the header length is {}; at most {} is allowed, so this is no safetensors file", file, length,
          kMaxHeader);
  require(length <= bytes.size() - 8, ErrorCode::corrupt,
          "{}: the header has {} bytes, but the file ends after {}; it may be an incomplete download", file,
          length, bytes.size() - 8);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + 8, length);
  require(text.starts_with('{'), ErrorCode::corrupt, "{}: the header must begin with '{{' at byte 8", file);
  const Json header = parse_json(text, file + " (header)", 4);
  const uint64_t data_begin = 8 + length;
  std::vector<SafetensorsEntry> entries;
  for (const auto& [name, value] : header.items()) {
    if (name == "__metadata__")
      check_metadata(value, file);
    else
      entries.push_back(EntryReader(file, name).read(value, data_begin, bytes.size()));
  }
  std::sort(entries.begin(), entries.end(), [](auto& a, auto& b) { return a.offset < b.offset; });
  check_cover(entries, data_begin, bytes.size(), file);
  return entries;
}

std::string_view safetensors_dtype(DType type) {
  const bool known = std::find(kTypes.begin(), kTypes.end(), type) != kTypes.end();
  require(known, ErrorCode::unsupported, "safetensors has no dtype for {}; use F32, F16 or BF16",
          dtype_info(type).name);
  return dtype_info(type).name;
}

}  // namespace mneme
