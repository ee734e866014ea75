#include "files/gguf_header.h"

#include <algorithm>
#include <bit>

#include "core/checked.h"
#include "files/gguf_cursor.h"
#include "files/gguf_value.h"

namespace mneme {
namespace {

constexpr uint64_t kMaxKey = 65535;             // the format's own limit
constexpr uint64_t kMaxName = 1024;             // writers keep to 64
constexpr uint64_t kMaxAlignment = 1ull << 21;  // one huge page
constexpr uint64_t kMinPair = 8 + 1 + 4 + 1;    // length, one character, type, one byte
constexpr uint64_t kMinInfo = 8 + 1 + 4 + 4 + 8;

uint32_t read_version(GgufCursor& in) {
  require(in.remaining() >= 4 && std::memcmp(in.take(4, "magic"), "GGUF", 4) == 0, ErrorCode::corrupt,
          "{} is not a GGUF file: it does not begin with \"GGUF\"", in.file());
  const auto version = in.number<uint32_t>("version");
  if (version != 0 && (version & 0xffff) == 0)
    in.fail_here(ErrorCode::unsupported, 4,
                 "big-endian GGUF files cannot be read; use the little-endian file of this model");
  if (version != 2 && version != 3)
    in.fail_here(ErrorCode::unsupported, 4, "GGUF version {} cannot be read; versions 2 and 3 can", version);
  return version;
}

// A count is plausible only if its smallest possible records fit into the rest of the file.
uint64_t read_count(GgufCursor& in, const char* what, uint64_t smallest) {
  const uint64_t byte = in.at();
  const auto count = in.number<uint64_t>(what);
  if (count > in.remaining() / smallest)
    in.fail_here(ErrorCode::corrupt, byte,
                 "{} is {}, but the {} bytes that follow hold at most {}; the file may be incomplete", what,
                 count, in.remaining(), in.remaining() / smallest);
  return count;
}

std::string_view read_name(GgufCursor& in, const char* what, uint64_t most) {
  const uint64_t byte = in.at();
  const std::string_view name = in.string(what);
  if (name.empty()) in.fail_here(ErrorCode::corrupt, byte, "{} is empty", what);
  if (name.size() > most)
    in.fail_here(ErrorCode::corrupt, byte, "{} has {} bytes; at most {} are allowed", what, name.size(),
                 most);
  if (name.find('\0') != std::string_view::npos)
    in.fail_here(ErrorCode::corrupt, byte, "{} \"{}\" contains a NUL byte", what, printable(name));
  return name;
}

void read_metadata(GgufCursor& in, uint64_t pairs, GgufMetadata& metadata) {
  for (uint64_t i = 0; i < pairs; ++i) {
    const uint64_t byte = in.at();
    const std::string key(read_name(in, "metadata key", kMaxKey));
    if (metadata.has(key))
      in.fail_here(ErrorCode::corrupt, byte, "metadata key \"{}\" appears twice", printable(key));
    metadata.set(key, read_gguf_value(in, key));
  }
}

uint64_t read_alignment(const GgufMetadata& metadata, const std::string& file) {
  if (!metadata.has("general.alignment")) return 32;
  const auto* value = std::get_if<uint64_t>(metadata.find("general.alignment"));
  require(value != nullptr, ErrorCode::corrupt, "{}: general.alignment must be an unsigned integer", file);
  require(std::has_single_bit(*value) && *value >= 8 && *value <= kMaxAlignment, ErrorCode::corrupt,
          "{}: general.alignment is {}; it must be a power of two from 8 to {}", file, *value, kMaxAlignment);
  return *value;
}

// The shape and size of one tensor. The offset is still relative to the tensor data.
GgufTensor read_tensor(GgufCursor& in, uint64_t alignment) {
  GgufTensor tensor;
  const uint64_t byte = in.at();
  tensor.info.name = read_name(in, "tensor name", kMaxName);
  const std::string name = printable(tensor.info.name);
  const auto bad = [&]<class... Args>(fmt::format_string<Args...> format, Args&&... args) {
    in.fail_here(ErrorCode::corrupt, byte, "tensor \"{}\": {}", name,
                 fmt::format(format, std::forward<Args>(args)...));
  };
  const auto rank = in.number<uint32_t>("number of dimensions");
  if (rank > 4) bad("it has {} dimensions; at most 4 are allowed", rank);
  uint64_t values = 1;
  for (uint32_t d = 0; d < rank; ++d) {
    const auto size = in.number<uint64_t>("dimension");
    if (size == 0) bad("dimension {} is zero", d);
    if (__builtin_mul_overflow(values, size, &values)) bad("the product of its dimensions overflows 64 bits");
    tensor.info.shape.push_back(size);
  }
  std::reverse(tensor.info.shape.begin(), tensor.info.shape.end());
  const auto type = in.number<uint32_t>("tensor type");
  const auto dtype = find_dtype(type);
  if (!dtype)
    in.fail_here(
        ErrorCode::unsupported, byte,
        "tensor \"{}\" has type {} ({}), which cannot be read; F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, "
        "Q5_1 and Q2_K to Q6_K can",
        name, gguf_type_name(type), type);
  tensor.info.type = dtype->type;
  const uint64_t row = rank == 0 ? 1 : tensor.info.shape.back();
  if (row % dtype->block_size != 0)
    bad("its rows of {} values are not whole blocks of {} ({})", row, dtype->block_size, dtype->name);
  if (__builtin_mul_overflow(values / dtype->block_size, uint64_t{dtype->block_bytes}, &tensor.info.bytes))
    bad("its size in bytes overflows 64 bits");
  tensor.offset = in.number<uint64_t>("tensor offset");
  if (tensor.offset % alignment != 0)
    bad("its offset {} is not a multiple of the alignment {}", tensor.offset, alignment);
  return tensor;
}

// Offsets become absolute; every tensor must lie inside the file and on no other.
void place_tensors(GgufHeader& header, uint64_t size, const std::string& file) {
  std::vector<const GgufTensor*> order;
  for (auto& tensor : header.tensors) {
    const std::string name = printable(tensor.info.name);
    uint64_t begin = 0, end = 0;
    require(!__builtin_add_overflow(tensor.offset, header.data_begin, &begin) &&
                !__builtin_add_overflow(begin, tensor.info.bytes, &end),
            ErrorCode::corrupt, "{}: tensor \"{}\": its offset {} overflows 64 bits", file, name,
            tensor.offset);
    require(
        end <= size, ErrorCode::corrupt,
        "{}: tensor \"{}\" lies at bytes {} to {}, but the file ends at {}; it may be an incomplete download",
        file, name, begin, end, size);
    tensor.offset = begin;
    order.push_back(&tensor);
  }
  std::sort(order.begin(), order.end(), [](auto* a, auto* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < order.size(); ++i)
    require(order[i - 1]->offset + order[i - 1]->info.bytes <= order[i]->offset, ErrorCode::corrupt,
            "{}: tensors \"{}\" and \"{}\" overlap at byte {}", file, printable(order[i - 1]->info.name),
            printable(order[i]->info.name), order[i]->offset);
}

}  // namespace

GgufHeader parse_gguf_header(Bytes bytes, const std::string& file) {
  GgufCursor in(bytes, file);
  GgufHeader header;
  header.version = read_version(in);
  const auto tensors = read_count(in, "tensor count", kMinInfo);
  const auto pairs = read_count(in, "metadata count", kMinPair);
  read_metadata(in, pairs, header.metadata);
  header.alignment = read_alignment(header.metadata, file);
  header.tensors.reserve(tensors);
  for (uint64_t i = 0; i < tensors; ++i) header.tensors.push_back(read_tensor(in, header.alignment));
  header.data_begin = checked_align(in.at(), header.alignment, "start of the tensor data");
  place_tensors(header, bytes.size(), file);
  return header;
}

}  // namespace mneme
