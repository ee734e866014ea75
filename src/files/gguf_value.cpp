#include "files/gguf_value.h"

namespace mneme {
namespace {

template <class Wide, class Stored>
std::vector<Wide> read_numbers(GgufCursor& in, uint64_t count, std::string_view key) {
  const std::byte* from = in.take(count * sizeof(Stored), key);  // cannot overflow: checked by the caller
  std::vector<Wide> out(count);
  for (uint64_t i = 0; i < count; ++i) {
    Stored value;
    std::memcpy(&value, from + i * sizeof(Stored), sizeof(Stored));
    out[i] = static_cast<Wide>(value);
  }
  return out;
}

bool read_bool(GgufCursor& in, std::string_view key) {
  const uint64_t byte = in.at();
  const auto value = in.number<uint8_t>(key);
  if (value > 1)
    in.fail_here(ErrorCode::corrupt, byte, "metadata \"{}\" is a bool of value {}; it must be 0 or 1",
                 printable(key), value);
  return value != 0;
}

std::vector<bool> read_bools(GgufCursor& in, uint64_t count, std::string_view key) {
  std::vector<bool> out(count);
  for (uint64_t i = 0; i < count; ++i) out[i] = read_bool(in, key);
  return out;
}

std::vector<std::string> read_strings(GgufCursor& in, uint64_t count, std::string_view key) {
  std::vector<std::string> out;
  out.reserve(count);
  for (uint64_t i = 0; i < count; ++i) out.emplace_back(in.string(key));
  return out;
}

uint64_t smallest_size(GgufType type) {
  switch (type) {
    case GgufType::u8:
    case GgufType::i8:
    case GgufType::boolean:
      return 1;
    case GgufType::u16:
    case GgufType::i16:
      return 2;
    case GgufType::u32:
    case GgufType::i32:
    case GgufType::f32:
      return 4;
    default:
      return 8;
  }
}

[[noreturn]] void fail_type(GgufCursor& in, uint64_t byte, uint32_t type, std::string_view key) {
  in.fail_here(ErrorCode::corrupt, byte, "metadata \"{}\" has the unknown type {}; types are 0 to 12",
               printable(key), type);
}

GgufValue read_array(GgufCursor& in, std::string_view key) {
  const uint64_t byte = in.at();
  const auto id = in.number<uint32_t>(key);
  const auto type = static_cast<GgufType>(id);
  const auto count = in.number<uint64_t>(key);
  if (id > static_cast<uint32_t>(GgufType::f64)) fail_type(in, byte, id, key);
  if (type == GgufType::array)
    in.fail_here(ErrorCode::unsupported, byte, "metadata \"{}\" is an array of arrays, which cannot be read",
                 printable(key));
  if (count > in.remaining() / smallest_size(type))
    in.fail_here(ErrorCode::corrupt, byte, "metadata \"{}\" is an array of {} elements, but {} bytes follow",
                 printable(key), count, in.remaining());
  switch (type) {
    case GgufType::u8:
      return read_numbers<uint64_t, uint8_t>(in, count, key);
    case GgufType::u16:
      return read_numbers<uint64_t, uint16_t>(in, count, key);
    case GgufType::u32:
      return read_numbers<uint64_t, uint32_t>(in, count, key);
    case GgufType::u64:
      return read_numbers<uint64_t, uint64_t>(in, count, key);
    case GgufType::i8:
      return read_numbers<int64_t, int8_t>(in, count, key);
    case GgufType::i16:
      return read_numbers<int64_t, int16_t>(in, count, key);
    case GgufType::i32:
      return read_numbers<int64_t, int32_t>(in, count, key);
    case GgufType::i64:
      return read_numbers<int64_t, int64_t>(in, count, key);
    case GgufType::f32:
      return read_numbers<double, float>(in, count, key);
    case GgufType::f64:
      return read_numbers<double, double>(in, count, key);
    case GgufType::boolean:
      return read_bools(in, count, key);
    default:
      return read_strings(in, count, key);
  }
}

}  // namespace

void GgufCursor::fail_end(uint64_t size, std::string_view what) const {
  fail_here(ErrorCode::corrupt, at_,
            "\"{}\" needs {} bytes, but the file ends after {}; it may be incomplete", printable(what), size,
            remaining());
}

void GgufCursor::fail_length(uint64_t length, std::string_view what) const {
  fail_here(ErrorCode::corrupt, at_ - 8, "\"{}\" is a string of {} bytes, but the file ends after {}",
            printable(what), length, remaining());
}

GgufValue read_gguf_value(GgufCursor& in, std::string_view key) {
  const uint64_t byte = in.at();
  const auto id = in.number<uint32_t>(key);
  switch (static_cast<GgufType>(id)) {
    case GgufType::u8:
      return uint64_t{in.number<uint8_t>(key)};
    case GgufType::u16:
      return uint64_t{in.number<uint16_t>(key)};
    case GgufType::u32:
      return uint64_t{in.number<uint32_t>(key)};
    case GgufType::u64:
      return in.number<uint64_t>(key);
    case GgufType::i8:
      return int64_t{in.number<int8_t>(key)};
    case GgufType::i16:
      return int64_t{in.number<int16_t>(key)};
    case GgufType::i32:
      return int64_t{in.number<int32_t>(key)};
    case GgufType::i64:
      return in.number<int64_t>(key);
    case GgufType::f32:
      return double{in.number<float>(key)};
    case GgufType::f64:
      return in.number<double>(key);
    case GgufType::boolean:
      return read_bool(in, key);
    case GgufType::string:
      return std::string(in.string(key));
    case GgufType::array:
      return read_array(in, key);
  }
  fail_type(in, byte, id, key);
}

}  // namespace mneme
