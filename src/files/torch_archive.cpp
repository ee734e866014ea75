#include "files/torch_archive.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "core/fail.h"
#include "files/printable.h"

namespace mneme {
namespace {

// Fixed sizes and signatures of zip's records (PKWARE's APPNOTE, sections 4.3.7 to 4.3.16).
constexpr uint64_t kEndBytes = 22, kLocatorBytes = 20, kEnd64Bytes = 56, kEntryBytes = 46, kLocalBytes = 30;
constexpr uint32_t kEndMark = 0x06054b50, kLocatorMark = 0x07064b50, kEnd64Mark = 0x06064b50,
                   kEntryMark = 0x02014b50, kLocalMark = 0x04034b50;
constexpr uint64_t kMaxEntries = 1'000'000;
constexpr uint16_t kZip64Field = 1;

/// Reads little-endian fields at checked places of one file.
class Fields {
 public:
  Fields(Bytes bytes, const std::string& file) : bytes_(bytes), file_(file) {}

  uint64_t size() const { return bytes_.size(); }

  template <class... Args>
  void check(bool ok, fmt::format_string<Args...> format, Args&&... args) const {
    if (!ok) [[unlikely]]
      fail(ErrorCode::corrupt, "{}: {}", file_, fmt::format(format, std::forward<Args>(args)...));
  }
  void check_span(uint64_t at, uint64_t size, std::string_view what) const {
    check(at <= bytes_.size() && size <= bytes_.size() - at,
          "{} has {} bytes at {}, but the file ends at {}; it may be an incomplete download", what, size, at,
          bytes_.size());
  }
  template <class T>
  T get(uint64_t at, std::string_view what) const {
    check_span(at, sizeof(T), what);
    T value;
    std::memcpy(&value, bytes_.data() + at, sizeof value);
    return value;
  }
  std::string_view text(uint64_t at, uint64_t size, std::string_view what) const {
    check_span(at, size, what);
    return {reinterpret_cast<const char*>(bytes_.data()) + at, static_cast<size_t>(size)};
  }
  const std::string& file() const { return file_; }

 private:
  Bytes bytes_;
  const std::string& file_;
};

struct Directory {
  uint64_t entries = 0, bytes = 0, offset = 0;
};

Directory read_directory64(const Fields& in, uint64_t end_at) {
  in.check(end_at >= kLocatorBytes, "a zip64 record is announced, but the file has no room for it");
  const uint64_t locator = end_at - kLocatorBytes;
  in.check(in.get<uint32_t>(locator, "the zip64 locator") == kLocatorMark,
           "a zip64 locator is announced, but byte {} holds none", locator);
  const auto at = in.get<uint64_t>(locator + 8, "the zip64 locator");
  in.check_span(at, kEnd64Bytes, "the zip64 end record");
  in.check(in.get<uint32_t>(at, "the zip64 end record") == kEnd64Mark,
           "the zip64 end record should be at byte {}, but is not", at);
  const auto entries = in.get<uint64_t>(at + 32, "the zip64 end record");
  require(in.get<uint32_t>(at + 16, "disk") == 0 && in.get<uint32_t>(at + 20, "disk") == 0 &&
              in.get<uint64_t>(at + 24, "entries") == entries,
          ErrorCode::unsupported, "{} is one disk of a zip archive in several", in.file());
  return {entries, in.get<uint64_t>(at + 40, "the zip64 end record"),
          in.get<uint64_t>(at + 48, "the zip64 end record")};
}

// torch writes no archive comment, so the end record is the last thing in the file.
Directory read_directory(const Fields& in) {
  in.check(
      in.size() >= kEndBytes && in.get<uint32_t>(in.size() - kEndBytes, "the zip end record") == kEndMark,
      "it does not end with a zip end record as torch writes it; it may be an incomplete download, or a "
      "checkpoint of torch before 1.6");
  const uint64_t at = in.size() - kEndBytes;
  Directory out{in.get<uint16_t>(at + 10, "entries"), in.get<uint32_t>(at + 12, "directory size"),
                in.get<uint32_t>(at + 16, "directory offset")};
  const auto disk = in.get<uint16_t>(at + 4, "disk"), first_disk = in.get<uint16_t>(at + 6, "disk");
  if (out.entries == 0xffff || out.bytes == 0xffffffff || out.offset == 0xffffffff)
    out = read_directory64(in, at);
  else
    require(disk == 0 && first_disk == 0 && in.get<uint16_t>(at + 8, "entries") == out.entries,
            ErrorCode::unsupported, "{} is one disk of a zip archive in several", in.file());
  in.check_span(out.offset, out.bytes, "the zip directory");
  in.check(out.offset + out.bytes <= at, "the zip directory reaches into the end record");
  in.check(out.entries <= kMaxEntries && out.entries <= out.bytes / kEntryBytes,
           "the zip directory announces {} entries, which do not fit its {} bytes", out.entries, out.bytes);
  return out;
}

struct RawEntry {
  StoredEntry entry;
  uint64_t header = 0;  // of its local header
};

// Sizes and offset that do not fit 32 bits are in the zip64 extra field, in this order, only those needed.
void read_zip64(const Fields& in, uint64_t at, uint64_t size, std::array<uint64_t*, 3> values) {
  const uint64_t end = at + size;
  while (end - at >= 4) {
    const auto id = in.get<uint16_t>(at, "an extra field"),
               length = in.get<uint16_t>(at + 2, "an extra field");
    at += 4;
    in.check(length <= end - at, "an extra field of the zip directory has {} bytes, but {} are left", length,
             end - at);
    if (id == kZip64Field) {
      uint64_t left = length;
      for (uint64_t* value : values) {
        if (*value != 0xffffffff) continue;
        in.check(left >= 8, "a zip64 field of the zip directory is too short");
        *value = in.get<uint64_t>(at, "a zip64 field");
        at += 8;
        left -= 8;
      }
      return;
    }
    at += length;
  }
}

/// Reads the directory entry at `at` and moves past it.
RawEntry read_entry(const Fields& in, uint64_t& at, const Directory& directory) {
  const uint64_t end = directory.offset + directory.bytes;
  in.check(end - at >= kEntryBytes && in.get<uint32_t>(at, "a directory entry") == kEntryMark,
           "byte {} should begin an entry of the zip directory", at);
  const auto flags = in.get<uint16_t>(at + 8, "flags"), method = in.get<uint16_t>(at + 10, "method");
  uint64_t packed = in.get<uint32_t>(at + 20, "size"), plain = in.get<uint32_t>(at + 24, "size");
  const uint64_t name = in.get<uint16_t>(at + 28, "name"), extra = in.get<uint16_t>(at + 30, "extra"),
                 comment = in.get<uint16_t>(at + 32, "comment");
  RawEntry out;
  out.header = in.get<uint32_t>(at + 42, "offset");
  out.entry.crc32 = in.get<uint32_t>(at + 16, "checksum");
  at += kEntryBytes;
  in.check(name + extra + comment <= end - at, "an entry of the zip directory reaches past its end");
  out.entry.name = in.text(at, name, "a name");
  const std::string shown = printable(out.entry.name);
  read_zip64(in, at + name, extra, {&plain, &packed, &out.header});
  at += name + extra + comment;
  require((flags & 1) == 0, ErrorCode::unsupported, "{}: entry \"{}\" is encrypted", in.file(), shown);
  require(method == 0, ErrorCode::unsupported,
          "{}: entry \"{}\" is compressed; torch stores its entries plain", in.file(), shown);
  in.check(packed == plain, "entry \"{}\" is stored, but has the two sizes {} and {}", shown, packed, plain);
  out.entry.bytes = plain;
  return out;
}

// The local header repeats the name and may pad its extra field to align the data.
void locate(const Fields& in, const Directory& directory, RawEntry& raw) {
  const std::string shown = printable(raw.entry.name);
  in.check(raw.header <= directory.offset && directory.offset - raw.header >= kLocalBytes &&
               in.get<uint32_t>(raw.header, "a local header") == kLocalMark,
           "entry \"{}\" should begin at byte {}, but no local header is there", shown, raw.header);
  const uint64_t name = in.get<uint16_t>(raw.header + 26, "name"),
                 extra = in.get<uint16_t>(raw.header + 28, "extra");
  const uint64_t room = directory.offset - raw.header - kLocalBytes;
  in.check(name + extra <= room && raw.entry.bytes <= room - name - extra,
           "entry \"{}\" has {} bytes, more than there are before the zip directory", shown, raw.entry.bytes);
  in.check(in.text(raw.header + kLocalBytes, name, "a name") == raw.entry.name,
           "entry \"{}\" has another name in its local header", shown);
  raw.entry.offset = raw.header + kLocalBytes + name + extra;
}

}  // namespace

std::vector<StoredEntry> read_stored_archive(Bytes bytes, const std::string& file) {
  const Fields in(bytes, file);
  const Directory directory = read_directory(in);
  std::vector<RawEntry> raw;
  uint64_t at = directory.offset;
  for (uint64_t i = 0; i < directory.entries; ++i) {
    raw.push_back(read_entry(in, at, directory));
    locate(in, directory, raw.back());
  }
  std::sort(raw.begin(), raw.end(), [](const auto& a, const auto& b) { return a.header < b.header; });
  for (size_t i = 1; i < raw.size(); ++i)
    in.check(raw[i].header >= raw[i - 1].entry.offset + raw[i - 1].entry.bytes,
             "entries \"{}\" and \"{}\" overlap", printable(raw[i - 1].entry.name),
             printable(raw[i].entry.name));
  std::vector<StoredEntry> out;
  out.reserve(raw.size());
  for (const RawEntry& item : raw) out.push_back(item.entry);
  std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  for (size_t i = 1; i < out.size(); ++i)
    in.check(out[i].name != out[i - 1].name, "two entries are named \"{}\"", printable(out[i].name));
  return out;
}

uint32_t crc32_of(Bytes bytes) noexcept {
  static const std::array<uint32_t, 256> table = [] {
    std::array<uint32_t, 256> out{};
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t value = i;
      for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ (value & 1 ? 0xedb88320u : 0u);
      out[i] = value;
    }
    return out;
  }();
  uint32_t crc = ~0u;
  for (const std::byte b : bytes) crc = crc >> 8 ^ table[(crc ^ static_cast<uint32_t>(b)) & 0xff];
  return ~crc;
}

}  // namespace mneme
