// The beginning of a snapshot file, which is the same in all versions: prefix, header, token ids.
#include <cstring>

#include "core/checked.h"
#include "core/half.h"
#include "core/json.h"
#include "engine/session_impl.h"

namespace mneme {
namespace {

constexpr uint64_t kPrefix = 16;

template <class T>
T field(const Json& header, const char* key, const std::string& name) {
  try {
    return header.at(key).get<T>();
  } catch (const Json::exception&) {
    fail(ErrorCode::corrupt, "snapshot {}: header field \"{}\" is missing or of the wrong type", name, key);
  }
}

}  // namespace

SnapshotInfo Snapshot::peek(const std::filesystem::path& path, bool with_tokens) {
  const MappedFile file(path, LoadMode::mmap);
  const std::string name = path.string();
  const Bytes bytes = file.bytes();
  const auto text = [&](uint64_t at, uint64_t n) {
    return std::string_view(reinterpret_cast<const char*>(bytes.data()) + at, n);
  };
  require(bytes.size() >= kPrefix && text(0, 8) == "MNEMSNAP", ErrorCode::corrupt,
          "{} is not a Mneme snapshot", name);
  const uint64_t header_bytes = load_le<uint32_t>(bytes.data() + 12);
  require(header_bytes <= bytes.size() - kPrefix, ErrorCode::corrupt, "snapshot {} ends inside its header",
          name);
  const Json header = parse_json(text(kPrefix, header_bytes), "snapshot header", 8);
  SnapshotInfo info;
  info.bytes = bytes.size();
  info.model_hash = field<std::string>(header, "model_hash", name);
  const auto kv = kv_type_from(field<std::string>(header, "kv", name));
  require(kv.has_value(), ErrorCode::corrupt, "snapshot {}: unknown KV type", name);
  info.kv = *kv;
  info.max_rollback = field<uint32_t>(header, "max_rollback", name);
  info.position = field<uint64_t>(header, "position", name);
  info.low_water = field<uint64_t>(header, "low_water", name);
  if (header.contains("note")) info.note = field<std::string>(header, "note", name);
  const uint64_t ids = checked_mul(info.position, sizeof(TokenId), "tokens of a snapshot");
  require(ids <= bytes.size() - kPrefix - header_bytes, ErrorCode::corrupt,
          "snapshot {} ends inside its tokens", name);
  if (!with_tokens) return info;
  info.tokens.resize(info.position);
  if (ids > 0) std::memcpy(info.tokens.data(), bytes.data() + kPrefix + header_bytes, ids);
  return info;
}

}  // namespace mneme
