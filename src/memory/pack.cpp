// Reading packs. Writing them is pack_writer.cpp.
#include "memory/pack.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <unordered_map>

#include "core/checked.h"
#include "core/checksum.h"
#include "memory/engram_config.h"
#include "memory/pack_description.h"
#include "memory/pack_header.h"
#include "memory/store/placements.h"
#include "simd/rows.h"

namespace mneme {
namespace {

// All of a pack but its rows, which may be larger than the address space that a process is allowed.
class HeadMapping {
 public:
  HeadMapping() = default;
  HeadMapping(const FileHandle& file, uint64_t bytes) : bytes_(bytes) {
    void* map = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file.fd(), 0);
    require(map != MAP_FAILED, ErrorCode::io, "cannot map {}: {}", file.path().string(),
            std::strerror(errno));
    data_ = static_cast<const std::byte*>(map);
  }
  ~HeadMapping() {
    if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), bytes_);
  }
  HeadMapping(HeadMapping&& other) noexcept { *this = std::move(other); }
  HeadMapping& operator=(HeadMapping&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  Bytes bytes() const noexcept { return {data_, bytes_}; }

 private:
  const std::byte* data_ = nullptr;
  uint64_t bytes_ = 0;
};

Bytes section_of(Bytes head, const PackSection& section) {
  return head.subspan(section.offset, section.bytes);
}

}  // namespace

struct Pack::Contents {
  fs::path path;
  std::optional<FileHandle> file;  // none for a buffer
  HeadMapping mapping;
  Bytes head;   // the file up to its rows
  Bytes whole;  // of a buffer
  PackHeader header;
  std::string fingerprint;
  ParsedDescription parsed;
  BlockSums sums;
  std::vector<TensorInfo> tensors;
  std::unordered_map<std::string, size_t> index;

  void parse() {
    const std::string name = path.string();
    const Bytes description = section_of(head, header.description),
                checksums = section_of(head, header.checksums);
    fingerprint = header.fingerprint();
    require(
        pack_fingerprint(header, description, section_of(head, header.token_map), checksums) == fingerprint,
        ErrorCode::corrupt,
        "{}: damaged, the checksum of its header and description is wrong; fetch or build it again", name);
    parsed = parse_pack_description({reinterpret_cast<const char*>(description.data()), description.size()},
                                    header.tensors.bytes, name);
    const EngramTableConfig& table = parsed.description.table;
    const uint32_t bytes = mneme::row_bytes(table.format, table.head_dim);
    require(header.row_count == parsed.rows && header.row_bytes == bytes, ErrorCode::corrupt,
            "{}: its header says {} rows of {} bytes, but its config {} rows of {}", name, header.row_count,
            header.row_bytes, parsed.rows, bytes);
    sums.block_bytes = header.block_bytes;
    sums.sums.resize(header.blocks());
    if (!checksums.empty()) std::memcpy(sums.sums.data(), checksums.data(), checksums.size());
    for (const PackEntry& entry : parsed.tensors) {
      index.emplace(entry.info.name, tensors.size());
      tensors.push_back(entry.info);
    }
  }

  Bytes data(size_t i) const {
    return section_of(head, header.tensors).subspan(parsed.tensors[i].offset, parsed.tensors[i].info.bytes);
  }
};

Pack::Pack(std::unique_ptr<Contents> contents) : contents_(std::move(contents)) {}
Pack::~Pack() = default;

std::shared_ptr<const Pack> Pack::open(const fs::path& path) {
  auto contents = std::make_unique<Contents>();
  contents->path = path;
  contents->file.emplace(path);
  const FileHandle& file = *contents->file;
  const uint64_t size = file.size();
  std::vector<std::byte> start(std::min<uint64_t>(size, kPackHeaderBytes));
  file.read(0, start.data(), start.size());
  contents->header = parse_pack_header(start, size, path.string());
  contents->mapping = HeadMapping(file, contents->header.rows.offset);
  contents->head = contents->mapping.bytes();
  contents->parse();
  return std::shared_ptr<const Pack>(new Pack(std::move(contents)));
}

std::shared_ptr<const Pack> Pack::parse(Bytes file, const std::string& name) {
  auto contents = std::make_unique<Contents>();
  contents->path = name;
  contents->whole = file;
  contents->header = parse_pack_header(file, file.size(), name);
  contents->head = file.first(contents->header.rows.offset);
  contents->parse();
  return std::shared_ptr<const Pack>(new Pack(std::move(contents)));
}

bool Pack::is_pack(const fs::path& path) {
  std::error_code ignored;
  if (!fs::is_regular_file(path, ignored)) return false;
  const FileHandle file(path);
  std::array<std::byte, 8> magic{};
  if (file.size() < magic.size()) return false;
  file.read(0, magic.data(), magic.size());
  return std::memcmp(magic.data(), "MNEMEPAK", magic.size()) == 0;
}

const PackDescription& Pack::description() const noexcept {
  return contents_->parsed.description;
}
const EngramModuleConfig* Pack::find_module(uint32_t layer_id) const noexcept {
  for (const EngramModuleConfig& module : description().modules)
    if (module.layer_id == layer_id) return &module;
  return nullptr;
}
const fs::path& Pack::path() const noexcept {
  return contents_->path;
}
const std::string& Pack::fingerprint() const noexcept {
  return contents_->fingerprint;
}
Bytes Pack::token_map() const noexcept {
  return section_of(contents_->head, contents_->header.token_map);
}
RowLayout Pack::rows() const {
  const PackHeader& h = contents_->header;
  RowLayout out(RowRegion{contents_->path, h.rows.offset, h.row_count, h.row_bytes, h.rows_per_page});
  out.fingerprint = contents_->fingerprint;
  return out;
}
const BlockSums& Pack::block_sums() const noexcept {
  return contents_->sums;
}
uint64_t Pack::row_count() const noexcept {
  return contents_->header.row_count;
}
uint32_t Pack::row_bytes() const noexcept {
  return contents_->header.row_bytes;
}
uint32_t Pack::rows_per_page() const noexcept {
  return contents_->header.rows_per_page;
}

void Pack::verify(const std::function<void(uint64_t, uint64_t)>& progress) const {
  const Contents& c = *contents_;
  const uint64_t total = c.header.tensors.bytes + c.header.rows.bytes;
  for (size_t i = 0; i < c.tensors.size(); ++i)
    require(xxh3(data(c.tensors[i])) == c.parsed.tensors[i].checksum, ErrorCode::corrupt,
            "{}: tensor \"{}\" is damaged (wrong checksum)", path().string(), c.tensors[i].name);
  std::vector<std::byte> buffer(c.file ? c.header.block_bytes : 0);
  for (uint64_t block = 0; block < c.header.blocks(); ++block) {
    const uint64_t from = block * c.header.block_bytes,
                   size = std::min(c.header.block_bytes, c.header.rows.bytes - from);
    if (c.file) c.file->read(c.header.rows.offset + from, buffer.data(), size);
    const Bytes data =
        c.file ? Bytes(buffer).first(size) : c.whole.subspan(c.header.rows.offset + from, size);
    const auto row_at = [&](uint64_t byte) {
      const uint64_t row =
          c.header.rows_per_page == 0 ? byte / row_bytes() : byte / kPageBytes * c.header.rows_per_page;
      return std::min(row, c.header.row_count - 1);
    };
    require(xxh3(data) == c.sums.sums[block], ErrorCode::corrupt,
            "{}: block {} of its rows (about rows {} to {}) is damaged (wrong checksum); fetch or build the "
            "file again",
            path().string(), block, row_at(from), row_at(from + size));
    if (progress) progress(c.header.tensors.bytes + from + size, total);
  }
}

const std::vector<TensorInfo>& Pack::tensors() const {
  return contents_->tensors;
}
const TensorInfo* Pack::find(std::string_view name) const {
  const auto found = contents_->index.find(std::string(name));
  return found == contents_->index.end() ? nullptr : &contents_->tensors[found->second];
}
Bytes Pack::data(const TensorInfo& tensor) const {
  const Contents& c = *contents_;
  const auto i = static_cast<size_t>(&tensor - c.tensors.data());
  require(i < c.tensors.size(), ErrorCode::internal, "{} has no tensor \"{}\"", path().string(), tensor.name);
  if (c.file) c.file->check_not_shorter(c.header.file_bytes);
  return c.data(i);
}
void Pack::release(const TensorInfo& tensor) const {
  if (!contents_->file) return;
  const Bytes part = data(tensor);
  const auto begin = (reinterpret_cast<uintptr_t>(part.data()) + kPageBytes - 1) / kPageBytes * kPageBytes;
  const auto end = reinterpret_cast<uintptr_t>(part.data() + part.size()) / kPageBytes * kPageBytes;
  if (end > begin) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}
uint64_t Pack::file_bytes() const {
  return contents_->header.file_bytes;
}
std::vector<fs::path> Pack::paths() const {
  return {contents_->path};
}

std::unique_ptr<MemoryTable> MemoryTable::open_pack(const std::filesystem::path& pack,
                                                    const MemoryOptions& options) {
  const auto opened = Pack::open(pack);
  return open_table(opened->rows(), options, &opened->block_sums());
}

}  // namespace mneme
