// Writing packs, so that hours of work survive Ctrl-C, a crash and a full disk.
//
// Everything but the checksums and the header is known before the first row, so the file has its final shape
// at once: head, then rows in blocks. The journal beside it begins with the SHA-256 of the head and gets,
// each time rows have been made durable, the checksums of their blocks. A journal that begins otherwise
// belongs to another pack, and is not used. When all blocks are there the checksums and the header are filled
// in and the file gets its name.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "core/checked.h"
#include "core/checksum.h"
#include "core/sha256.h"
#include "memory/engram_config.h"
#include "memory/pack_description.h"
#include "memory/pack_header.h"
#include "memory/store/placements.h"
#include "simd/rows.h"

namespace mneme {
namespace {

constexpr uint64_t kDurableEvery = uint64_t{256} << 20;  // bytes between two entries of the journal

fs::path partial_of(const fs::path& path) {
  return path.string() + ".partial";
}
fs::path journal_of(const fs::path& path) {
  return path.string() + ".journal";
}

[[noreturn]] void fail_write(const fs::path& path) {
  const int error = errno;
  const bool full = error == ENOSPC || error == EFBIG || error == EDQUOT;
  fail(ErrorCode::io, "cannot write {}: {}{}", path.string(), std::strerror(error),
       full ? "; make space and run the same command again to go on, or remove the file" : "");
}

// A file being written in place, closed at the end of its scope.
class WorkFile {
 public:
  explicit WorkFile(const fs::path& path) : path_(path) {
    fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd_ < 0) fail_write(path);
  }
  ~WorkFile() {
    if (fd_ >= 0) ::close(fd_);
  }
  WorkFile(const WorkFile&) = delete;
  WorkFile& operator=(const WorkFile&) = delete;

  /// Nobody else may write it as long as this lives. The name must still be that of the file that is locked:
  /// another writer may have finished and renamed it in between.
  void lock(const fs::path& target) const {
    struct stat mine {
    }, named{};
    const bool locked = ::flock(fd_, LOCK_EX | LOCK_NB) == 0;
    const bool same =
        ::fstat(fd_, &mine) == 0 && ::stat(path_.c_str(), &named) == 0 && mine.st_ino == named.st_ino;
    require(locked && same, ErrorCode::limit, "{} is being written by another process; wait for it to end",
            target.string());
  }
  uint64_t size() const {
    struct stat info {};
    return ::fstat(fd_, &info) == 0 ? static_cast<uint64_t>(info.st_size) : 0;
  }
  void write(uint64_t at, Bytes data) const {
    while (!data.empty()) {
      const ssize_t done = ::pwrite(fd_, data.data(), data.size(), static_cast<off_t>(at));
      if (done < 0 && errno == EINTR) continue;
      if (done <= 0) fail_write(path_);
      at += static_cast<uint64_t>(done);
      data = data.subspan(static_cast<size_t>(done));
    }
  }
  bool read(uint64_t at, std::span<std::byte> data) const {
    while (!data.empty()) {
      const ssize_t got = ::pread(fd_, data.data(), data.size(), static_cast<off_t>(at));
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) return false;
      at += static_cast<uint64_t>(got);
      data = data.subspan(static_cast<size_t>(got));
    }
    return true;
  }
  void sync() const {
    if (::fdatasync(fd_) != 0) fail_write(path_);
  }
  void resize(uint64_t bytes) const {
    if (::ftruncate(fd_, static_cast<off_t>(bytes)) != 0) fail_write(path_);
  }

 private:
  fs::path path_;
  int fd_ = -1;
};

struct Plan {
  PackHeader header;
  std::string description;
  std::vector<PackEntry> tensors;
  std::string identity;  // of the head, for the journal
};

void check_tensors(const PackToWrite& pack, const std::string& name) {
  for (const PackTensor& tensor : pack.tensors)
    require(tensor.info.bytes == tensor.data.size(), ErrorCode::invalid_argument,
            "{}: tensor \"{}\" has {} of {} bytes", name, tensor.info.name, tensor.data.size(),
            tensor.info.bytes);
}

Plan make_plan(const fs::path& path, const PackToWrite& pack) {
  const EngramTableConfig& table = pack.description.table;
  validate(table, path.string() + ": table");
  check_modules(pack.description, path.string());
  check_tensors(pack, path.string());
  require(table.raw_ids == pack.token_map.empty(), ErrorCode::invalid_argument,
          "{}: a table of {} {} a token map", path.string(), table.raw_ids ? "raw ids" : "token classes",
          table.raw_ids ? "has not" : "needs");
  const EngramHash hash(table);
  Plan plan;
  PackHeader& h = plan.header;
  uint64_t tensor_bytes = 0;
  for (const PackTensor& tensor : pack.tensors) {
    const uint64_t at = checked_align(tensor_bytes, kPackAlignment, "tensors of a pack");
    plan.tensors.push_back({tensor.info, at, xxh3(tensor.data)});
    tensor_bytes = checked_add(at, tensor.info.bytes, "tensors of a pack");
  }
  plan.description = pack_description_json(pack.description, hash, plan.tensors);
  h.row_count = hash.rows();
  h.row_bytes = mneme::row_bytes(table.format, table.head_dim);
  h.rows_per_page = pack_rows_per_page(h.row_bytes);
  h.block_bytes = kPackBlockBytes;
  h.rows.bytes = pack_rows_section(h.row_count, h.row_bytes, h.rows_per_page);
  uint64_t end = kPackHeaderBytes;
  const auto place = [&](PackSection& section, uint64_t bytes, uint64_t alignment) {
    section = {checked_align(end, alignment, "a pack"), bytes};
    end = checked_add(section.offset, bytes, "a pack");
  };
  place(h.description, plan.description.size(), kPackAlignment);
  place(h.token_map, pack.token_map.size(), kPackAlignment);
  place(h.checksums, h.blocks() * 8, kPackAlignment);
  place(h.tensors, tensor_bytes, kPackAlignment);
  place(h.rows, h.rows.bytes, kPageBytes);
  h.file_bytes = checked_align(end, kPageBytes, "a pack");  // so that the last page can be read whole
  plan.identity = pack_fingerprint(h, std::as_bytes(std::span(plan.description)), pack.token_map, {});
  return plan;
}

void check_space(const fs::path& path, uint64_t wanted, uint64_t there) {
  std::error_code error;
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  const fs::space_info space = fs::space(folder, error);
  require(!error, ErrorCode::io, "cannot write to {}: {}", folder.string(), error.message());
  require(wanted <= there || wanted - there <= space.available, ErrorCode::io,
          "{} needs {} more on disk, but {} has {} free", path.string(),
          bytes_text(wanted - std::min(wanted, there)), folder.string(), bytes_text(space.available));
}

// Journal: the identity, 64 hexadecimal digits; then 8 bytes for each finished block.
std::vector<uint64_t> finished_blocks(const WorkFile& journal, const std::string& identity, uint64_t blocks) {
  std::string found(identity.size(), '\0');
  std::vector<uint64_t> sums;
  if (!journal.read(0, std::as_writable_bytes(std::span(found))) || found != identity) return sums;
  sums.resize(std::min((journal.size() - identity.size()) / 8, blocks));
  if (!journal.read(identity.size(), std::as_writable_bytes(std::span(sums)))) sums.clear();
  return sums;
}

// Blocks that the journal names but the file does not hold are done again (it was cut, or edited).
uint64_t still_good(const WorkFile& file, const PackHeader& header, const std::vector<uint64_t>& sums) {
  std::vector<std::byte> block(header.block_bytes);
  const auto good = [&](uint64_t i) {
    const uint64_t from = i * header.block_bytes,
                   size = std::min(header.block_bytes, header.rows.bytes - from);
    return file.read(header.rows.offset + from, std::span(block).first(size)) &&
           xxh3(Bytes(block).first(size)) == sums[i];
  };
  const uint64_t count = sums.size();
  for (const uint64_t i : {uint64_t{0}, count / 2, count - 1})
    if (count > 0 && !good(i)) return 0;
  return count;
}

// Fills blocks in order from wherever rows come; a block need not begin with a record.
class BlockWriter {
 public:
  BlockWriter(const WorkFile& file, const WorkFile& journal, const Plan& plan, const PackToWrite& pack,
              std::vector<uint64_t>& sums)
      : file_(file), journal_(journal), plan_(plan), pack_(pack), sums_(sums) {}

  void run() {
    const PackHeader& h = plan_.header;
    std::vector<std::byte> block(h.block_bytes);
    uint64_t written = 0;
    for (uint64_t i = sums_.size(); i < h.blocks(); ++i) {
      const uint64_t from = i * h.block_bytes, size = std::min(h.block_bytes, h.rows.bytes - from);
      if (h.rows_per_page == 0)
        fill_flat(from, std::span(block).first(size));
      else
        fill_pages(from, std::span(block).first(size));
      file_.write(h.rows.offset + from, Bytes(block).first(size));
      sums_.push_back(xxh3(Bytes(block).first(size)));
      written += size;
      if (written >= kDurableEvery || i + 1 == h.blocks()) {
        make_durable();
        written = 0;
      }
      if (pack_.progress) pack_.progress(h.rows.offset + from + size, h.file_bytes);
    }
  }

  /// Also called when the work is interrupted.
  void make_durable() {
    if (journaled_ == sums_.size()) return;
    file_.sync();
    const auto fresh = std::span(sums_).subspan(journaled_);
    journal_.write(plan_.identity.size() + journaled_ * 8, std::as_bytes(fresh));
    journal_.sync();
    journaled_ = sums_.size();
  }

 private:
  void fill_flat(uint64_t from, std::span<std::byte> block) {
    const uint64_t bytes = plan_.header.row_bytes;
    const uint64_t first = from / bytes, last = (from + block.size() - 1) / bytes;
    records_.resize((last - first + 1) * bytes);
    pack_.rows(first, last - first + 1, records_.data());
    std::memcpy(block.data(), records_.data() + (from - first * bytes), block.size());
  }
  void fill_pages(uint64_t from, std::span<std::byte> block) {
    const PackHeader& h = plan_.header;
    const uint64_t first = from / kPageBytes * h.rows_per_page;
    const uint64_t count = std::min(block.size() / kPageBytes * h.rows_per_page, h.row_count - first);
    records_.resize(count * h.row_bytes);
    pack_.rows(first, count, records_.data());
    std::memset(block.data(), 0, block.size());
    for (uint64_t row = 0; row < count; row += h.rows_per_page)
      std::memcpy(block.data() + row / h.rows_per_page * kPageBytes, records_.data() + row * h.row_bytes,
                  std::min<uint64_t>(h.rows_per_page, count - row) * h.row_bytes);
  }

  const WorkFile& file_;
  const WorkFile& journal_;
  const Plan& plan_;
  const PackToWrite& pack_;
  std::vector<uint64_t>& sums_;
  size_t journaled_ = sums_.size();
  std::vector<std::byte> records_;
};

void sync_folder_of(const fs::path& path) {
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

void write_head(const WorkFile& file, const Plan& plan, const PackToWrite& pack) {
  const PackHeader& h = plan.header;
  file.write(h.description.offset, std::as_bytes(std::span(plan.description)));
  file.write(h.token_map.offset, pack.token_map);
  for (size_t i = 0; i < pack.tensors.size(); ++i)
    file.write(h.tensors.offset + plan.tensors[i].offset, pack.tensors[i].data);
}

}  // namespace

uint64_t pack_row_bytes(uint64_t rows, uint32_t row_bytes) {
  return pack_rows_section(rows, row_bytes, pack_rows_per_page(row_bytes));
}

uint64_t write_pack(const fs::path& path, const PackToWrite& pack) {
  Plan plan = make_plan(path, pack);
  PackHeader& h = plan.header;
  const fs::path partial = partial_of(path), journal_path = journal_of(path);
  std::error_code ignored;
  struct stat before {};
  const bool existed = ::stat(partial.c_str(), &before) == 0;
  check_space(path, h.file_bytes, existed ? static_cast<uint64_t>(before.st_blocks) * 512 : 0);
  const WorkFile file(partial);
  file.lock(path);
  const WorkFile journal(journal_path);
  std::vector<uint64_t> sums = finished_blocks(journal, plan.identity, h.blocks());
  sums.resize(still_good(file, h, sums));
  const uint64_t resumed = std::min(sums.size() * h.block_bytes, h.rows.bytes);
  file.resize(h.rows.offset + resumed);
  write_head(file, plan, pack);
  file.sync();
  journal.resize(plan.identity.size() + sums.size() * 8);
  journal.write(0, std::as_bytes(std::span(plan.identity)));
  BlockWriter writer(file, journal, plan, pack, sums);
  try {
    writer.run();
  } catch (...) {
    try {
      writer.make_durable();
    } catch (const Error&) {  // the first failure is the one to report; a little more is done again
    }
    throw;
  }
  file.resize(h.file_bytes);
  file.write(h.checksums.offset, std::as_bytes(std::span(sums)));
  const std::string fingerprint = pack_fingerprint(h, std::as_bytes(std::span(plan.description)),
                                                   pack.token_map, std::as_bytes(std::span(sums)));
  for (size_t i = 0; i < h.sha256.size(); ++i)
    h.sha256[i] = static_cast<uint8_t>(std::stoul(fingerprint.substr(2 * i, 2), nullptr, 16));
  file.write(0, pack_header_bytes(h));
  file.sync();
  if (::rename(partial.c_str(), path.c_str()) != 0) fail_write(path);
  fs::remove(journal_path, ignored);
  sync_folder_of(path);
  return h.rows_per_page == 0 ? resumed / h.row_bytes : resumed / kPageBytes * h.rows_per_page;
}

void discard_partial_pack(const fs::path& path) {
  std::error_code ignored;
  fs::remove(partial_of(path), ignored);
  fs::remove(journal_of(path), ignored);
}

}  // namespace mneme
