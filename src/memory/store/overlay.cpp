// Overlays: a sparse file of changed rows over a table that is not touched. Little-endian:
//
//   0    "MNEMEOVL"
//   8    u32 version = 1, u32 row_bytes
//   16   u64 rows of the base
//   24   u64 count
//   32   fingerprint of the base, 64 characters (zeros: a base without one)
//   96   SHA-256 of bytes 0..95 and all that follows this field
//   128  u64 ids[count], ascending
//   ...  records[count], back to back
#include <algorithm>
#include <array>
#include <cstring>
#include <unordered_map>

#include "core/checked.h"
#include "core/file.h"
#include "core/sha256.h"
#include "memory/store/placements.h"

namespace mneme {
namespace {

constexpr char kMagic[8] = {'M', 'N', 'E', 'M', 'E', 'O', 'V', 'L'};
constexpr uint32_t kVersion = 1;
constexpr uint64_t kHeaderBytes = 128, kHashAt = 96, kFingerprintAt = 32, kFingerprintBytes = 64;

struct Header {
  uint32_t row_bytes = 0;
  uint64_t rows = 0, count = 0;
  std::array<char, kFingerprintBytes> fingerprint{};
};

std::array<std::byte, 32> digest_of(Bytes head, Bytes rest) {
  Sha256 sha;
  const std::string hex = sha.update(head).update(rest).hex();
  std::array<std::byte, 32> out{};
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = static_cast<std::byte>(std::stoul(hex.substr(2 * i, 2), nullptr, 16));
  return out;
}

std::array<char, kFingerprintBytes> padded(const std::string& fingerprint) {
  std::array<char, kFingerprintBytes> out{};
  std::copy_n(fingerprint.begin(), std::min(fingerprint.size(), out.size()), out.begin());
  return out;
}

// One overlay in memory: the file as it is, and where each row is in it.
struct Overlay {
  std::vector<std::byte> file;
  std::unordered_map<uint64_t, const std::byte*> rows;

  uint64_t bytes() const noexcept { return file.capacity() + rows.size() * 40; }
};

Overlay load(const std::filesystem::path& path, const MemoryTable& base, const std::string& fingerprint) {
  const std::string name = path.string();
  const FileHandle file(path);
  Overlay out;
  const uint64_t size = file.size();
  require(size >= kHeaderBytes, ErrorCode::corrupt, "{}: a file of {} bytes is no overlay", name, size);
  std::array<std::byte, kHeaderBytes> head{};
  file.read(0, head.data(), head.size());
  require(std::memcmp(head.data(), kMagic, sizeof(kMagic)) == 0, ErrorCode::corrupt,
          "{}: not an overlay (it does not begin with MNEMEOVL)", name);
  Header header;
  uint32_t version = 0;
  std::memcpy(&version, head.data() + 8, 4);
  std::memcpy(&header.row_bytes, head.data() + 12, 4);
  std::memcpy(&header.rows, head.data() + 16, 8);
  std::memcpy(&header.count, head.data() + 24, 8);
  std::memcpy(header.fingerprint.data(), head.data() + kFingerprintAt, kFingerprintBytes);
  require(version == kVersion, ErrorCode::unsupported,
          "{}: an overlay of version {}, but this program reads version {}", name, version, kVersion);
  const uint64_t row = checked_add(header.row_bytes, 8, "an overlay");
  require(checked_add(kHeaderBytes, checked_mul(header.count, row, "an overlay"), "an overlay") == size,
          ErrorCode::corrupt, "{}: {} bytes are not those of an overlay of {} rows of {} bytes", name, size,
          header.count, header.row_bytes);
  require(header.row_bytes == base.row_bytes() && header.rows == base.rows() &&
              header.fingerprint == padded(fingerprint),
          ErrorCode::mismatch, "{}: made for a table of {} rows of {} bytes{}, and {} is not that table",
          name, header.rows, header.row_bytes,
          header.fingerprint[0] == 0
              ? ""
              : " with fingerprint " + std::string(header.fingerprint.data(), 12) + "...",
          base.path().string());
  out.file.resize(size - kHeaderBytes);
  file.read(kHeaderBytes, out.file.data(), out.file.size());
  const auto digest = digest_of(Bytes(head).first(kHashAt), out.file);
  require(std::memcmp(digest.data(), head.data() + kHashAt, digest.size()) == 0, ErrorCode::corrupt,
          "{}: damaged, its checksum is wrong; make the overlay again", name);
  out.rows.reserve(header.count);
  for (uint64_t i = 0, before = 0; i < header.count; ++i) {
    uint64_t id = 0;
    std::memcpy(&id, out.file.data() + i * 8, 8);
    require(id < header.rows && (i == 0 || id > before), ErrorCode::corrupt,
            "{}: row {} is outside the table or out of order", name, id);
    out.rows.emplace(id, out.file.data() + header.count * 8 + i * header.row_bytes);
    before = id;
  }
  return out;
}

}  // namespace

class OverlayTable final : public MemoryTable {
 public:
  OverlayTable(std::unique_ptr<MemoryTable> base, const RowLayout& layout,
               const std::vector<std::filesystem::path>& paths)
      : MemoryTable(layout, base->placement()), base_(std::move(base)), count_(paths.size()) {
    counters_ = base_->counters_;
    reason_ = base_->reason_;
    for (const auto& path : paths) {
      overlays_.push_back(load(path, *base_, layout.fingerprint));
      for (const auto& [id, row] : overlays_.back().rows) rows_[id] = row;  // the last one wins
      overlays_.back().rows = {};
    }
  }

  uint64_t resident_bytes() const noexcept override {
    uint64_t out = base_->resident_bytes() + rows_.size() * 40;
    for (const Overlay& overlay : overlays_) out += overlay.bytes();
    return out;
  }
  double resident_fraction() const override { return base_->resident_fraction(); }

 private:
  struct Split final : RowBatch::State {
    std::vector<uint64_t> ids;                // that the base has
    std::vector<const std::byte*> addresses;  // of these
    std::vector<uint32_t> places;             // in the caller's list
    std::span<const std::byte*> out;
    std::unique_ptr<RowBatch::State> base;
    uint64_t bytes() const noexcept override {
      return ids.capacity() * 8 + addresses.capacity() * 8 + places.capacity() * 4 +
             (base ? base->bytes() : 0);
    }
  };

  void begin(std::span<const uint64_t> ids, std::span<const std::byte*> addresses,
             std::unique_ptr<RowBatch::State>& state) const override {
    if (state == nullptr) state = std::make_unique<Split>();
    auto& split = static_cast<Split&>(*state);
    split.ids.clear();
    split.places.clear();
    split.out = addresses;
    for (size_t i = 0; i < ids.size(); ++i) {
      if (const auto found = rows_.find(ids[i]); found != rows_.end()) {
        addresses[i] = found->second;
      } else {
        split.ids.push_back(ids[i]);
        split.places.push_back(static_cast<uint32_t>(i));
      }
    }
    count(counters().overlaid, ids.size() - split.ids.size());
    split.addresses.assign(split.ids.size(), nullptr);
    if (!split.ids.empty()) base_->begin(split.ids, split.addresses, split.base);
  }
  void end(std::unique_ptr<RowBatch::State>& state) const override {
    auto& split = static_cast<Split&>(*state);
    if (!split.ids.empty()) base_->end(split.base);
    for (size_t i = 0; i < split.places.size(); ++i) split.out[split.places[i]] = split.addresses[i];
  }
  std::string details() const override {
    return fmt::format("{}; {} rows replaced by {} overlay{}", base_->details(), rows_.size(), count_,
                       count_ == 1 ? "" : "s");
  }

  std::unique_ptr<MemoryTable> base_;
  size_t count_;
  std::vector<Overlay> overlays_;
  std::unordered_map<uint64_t, const std::byte*> rows_;
};

uint64_t overlay_bytes(const std::vector<std::filesystem::path>& overlays) {
  uint64_t out = 0;
  for (const auto& path : overlays) out += 2 * FileHandle(path).size();
  return out;
}

std::unique_ptr<MemoryTable> open_overlays(std::unique_ptr<MemoryTable> base, const RowLayout& layout,
                                           const std::vector<std::filesystem::path>& overlays) {
  if (overlays.empty()) return base;
  return std::make_unique<OverlayTable>(std::move(base), layout, overlays);
}

void write_overlay(const std::filesystem::path& path, const RowLayout& base, std::span<const uint64_t> ids,
                   std::span<const std::byte> rows) {
  const RowMap map(base);
  const uint32_t row_bytes = map.row_bytes();
  require(checked_mul(ids.size(), row_bytes, "an overlay") == rows.size(), ErrorCode::invalid_argument,
          "{}: {} rows of {} bytes are not {} bytes", path.string(), ids.size(), row_bytes, rows.size());
  std::vector<size_t> order(ids.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return ids[a] < ids[b]; });
  std::vector<std::byte> body(ids.size() * (uint64_t{row_bytes} + 8));
  for (size_t i = 0; i < order.size(); ++i) {
    const uint64_t id = ids[order[i]];
    require(id < map.rows(), ErrorCode::invalid_argument, "{}: row {} is outside {}, which has {} rows",
            path.string(), id, base.path.string(), map.rows());
    require(i == 0 || ids[order[i - 1]] != id, ErrorCode::invalid_argument, "{}: row {} is given twice",
            path.string(), id);
    std::memcpy(body.data() + i * 8, &id, 8);
    std::memcpy(body.data() + ids.size() * 8 + i * row_bytes, rows.data() + order[i] * row_bytes, row_bytes);
  }
  std::array<std::byte, kHeaderBytes> head{};
  const uint64_t count_rows = map.rows(), count_ids = ids.size();
  const auto fingerprint = padded(base.fingerprint);
  std::memcpy(head.data(), kMagic, 8);
  std::memcpy(head.data() + 8, &kVersion, 4);
  std::memcpy(head.data() + 12, &row_bytes, 4);
  std::memcpy(head.data() + 16, &count_rows, 8);
  std::memcpy(head.data() + 24, &count_ids, 8);
  std::memcpy(head.data() + kFingerprintAt, fingerprint.data(), fingerprint.size());
  const auto digest = digest_of(Bytes(head).first(kHashAt), body);
  std::memcpy(head.data() + kHashAt, digest.data(), digest.size());
  AtomicFile file(path);
  file.write(head);
  file.write(body);
  file.commit();
}

}  // namespace mneme
