#include "memory/pack_header.h"

#include <bit>
#include <cstring>

#include "core/checked.h"
#include "core/sha256.h"
#include "memory/store/row_map.h"

namespace mneme {
namespace {

static_assert(std::endian::native == std::endian::little, "packs are read and written in place");

constexpr char kMagic[8] = {'M', 'N', 'E', 'M', 'E', 'P', 'A', 'K'};
constexpr uint64_t kMaxDescription = uint64_t{64} << 20;

// A walk over the header in one place, so that reading and writing cannot disagree.
template <class Header, class Field>
void walk(Header& header, Field field) {
  uint64_t at = 16;
  const auto next = [&](auto& value) {
    field(at, value);
    at += sizeof(value);
  };
  for (auto* section :
       {&header.description, &header.token_map, &header.checksums, &header.tensors, &header.rows}) {
    next(section->offset);
    next(section->bytes);
  }
  next(header.row_count);      // 96
  next(header.row_bytes);      // 104
  next(header.rows_per_page);  // 108
  next(header.block_bytes);    // 112
  next(header.file_bytes);     // 120
}

}  // namespace

std::string PackHeader::fingerprint() const {
  std::string out;
  for (const uint8_t byte : sha256) out += fmt::format("{:02x}", byte);
  return out;
}

uint64_t pack_rows_section(uint64_t rows, uint32_t row_bytes, uint32_t rows_per_page) {
  if (rows_per_page == 0) return checked_mul(rows, row_bytes, "rows of a pack");
  const uint64_t pages = rows / rows_per_page + (rows % rows_per_page != 0 ? 1 : 0);
  return checked_mul(pages, kPageBytes, "rows of a pack");
}

PackHeader parse_pack_header(Bytes head, uint64_t file_bytes, const std::string& name) {
  require(head.size() >= kPackHeaderBytes, ErrorCode::corrupt, "{}: a file of {} bytes is no memory pack",
          name, head.size());
  require(std::memcmp(head.data(), kMagic, sizeof(kMagic)) == 0, ErrorCode::corrupt,
          "{}: not a memory pack (it does not begin with MNEMEPAK)", name);
  uint32_t version = 0, header_bytes = 0;
  std::memcpy(&version, head.data() + 8, 4);
  std::memcpy(&header_bytes, head.data() + 12, 4);
  require(version == kPackVersion, ErrorCode::unsupported,
          "{}: a memory pack of version {}, but this program reads version {}", name, version, kPackVersion);
  require(header_bytes == kPackHeaderBytes, ErrorCode::corrupt,
          "{}: its header says {} bytes; it must have {}", name, header_bytes, kPackHeaderBytes);
  PackHeader header;
  walk(header, [&](uint64_t at, auto& value) { std::memcpy(&value, head.data() + at, sizeof(value)); });
  std::memcpy(header.sha256.data(), head.data() + kPackHashedBytes, header.sha256.size());
  require(header.file_bytes <= file_bytes, ErrorCode::corrupt,
          "{}: incomplete, it has {} of {} bytes; fetch or build it again", name, file_bytes,
          header.file_bytes);
  require(header.file_bytes == file_bytes, ErrorCode::corrupt, "{}: has {} bytes, but its header says {}",
          name, file_bytes, header.file_bytes);
  const auto sane = [&](bool good, const char* what) {
    require(good, ErrorCode::corrupt, "{}: damaged header: {}", name, what);
  };
  for (uint64_t i = kPackHashedBytes + header.sha256.size(); i < kPackHeaderBytes; ++i)
    sane(head[i] == std::byte{0}, "its last bytes are not zero");
  uint64_t end = kPackHeaderBytes;
  for (const PackSection* s :
       {&header.description, &header.token_map, &header.checksums, &header.tensors, &header.rows}) {
    sane(s->offset >= end && s->offset % kPackAlignment == 0, "its sections overlap or are not aligned");
    end = checked_add(s->offset, s->bytes, "end of a section");
    sane(end <= file_bytes, "a section ends beyond the file");
  }
  sane(header.description.bytes > 0 && header.description.bytes <= kMaxDescription,
       "the size of its description");
  sane(header.rows.offset % kPageBytes == 0, "its rows do not begin at a page");
  sane(header.row_count > 0 && header.row_bytes > 0, "it has no rows");
  sane(header.rows_per_page == 0 || uint64_t{header.rows_per_page} * header.row_bytes <= kPageBytes,
       "more rows in a page than fit");
  sane(header.rows.bytes == pack_rows_section(header.row_count, header.row_bytes, header.rows_per_page),
       "the size of its rows");
  sane(header.block_bytes >= kPageBytes && header.block_bytes % kPageBytes == 0 &&
           header.block_bytes <= (uint64_t{1} << 30),
       "the size of its blocks");
  sane(header.checksums.bytes == header.blocks() * 8, "the number of its checksums");
  return header;
}

std::array<std::byte, kPackHeaderBytes> pack_header_bytes(const PackHeader& header) {
  std::array<std::byte, kPackHeaderBytes> out{};
  const auto header_bytes = static_cast<uint32_t>(kPackHeaderBytes);
  std::memcpy(out.data(), kMagic, sizeof(kMagic));
  std::memcpy(out.data() + 8, &kPackVersion, 4);
  std::memcpy(out.data() + 12, &header_bytes, 4);
  walk(header, [&](uint64_t at, const auto& value) { std::memcpy(out.data() + at, &value, sizeof(value)); });
  std::memcpy(out.data() + kPackHashedBytes, header.sha256.data(), header.sha256.size());
  return out;
}

std::string pack_fingerprint(const PackHeader& header, Bytes description, Bytes token_map, Bytes checksums) {
  const auto bytes = pack_header_bytes(header);
  Sha256 sha;
  sha.update(Bytes(bytes).first(kPackHashedBytes)).update(description).update(token_map).update(checksums);
  return sha.hex();
}

}  // namespace mneme
