#include "train/data/shard_manifest.h"

#include <fmt/format.h>

#include <charconv>
#include <fstream>

#include "core/checksum.h"
#include "core/fail.h"
#include "core/json_fields.h"

namespace mneme::train {
namespace {

constexpr uint64_t kMaxManifest = uint64_t{256} << 20;
constexpr uint64_t kMost = uint64_t{1} << 62;

std::string hex(uint64_t value) {
  return fmt::format("{:016x}", value);
}

uint64_t read_hex(JsonFields& fields, std::string_view name) {
  const std::string text = fields.string(name);
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  require(error == std::errc() && end == text.data() + text.size() && text.size() == 16, ErrorCode::corrupt,
          "{} is \"{}\", but must be 16 hexadecimal digits", fields.where(name), text);
  return value;
}

SourceEntry read_source(const Json& json, const std::string& path) {
  JsonFields fields(json, path, ErrorCode::corrupt);
  SourceEntry out;
  out.file.path = fields.string("path");
  out.file.bytes = fields.u64("bytes", 0, kMost);
  out.file.modified_ns = static_cast<int64_t>(fields.u64("modified_ns", 0, kMost));
  out.file.json_lines = fields.boolean("json_lines");
  out.xxh3 = fields.string("xxh3");
  fields.finish();
  return out;
}

ShardEntry read_shard(const Json& json, const std::string& path) {
  JsonFields fields(json, path, ErrorCode::corrupt);
  ShardEntry out;
  out.file = fields.string("file");
  require(!out.file.empty() && out.file.find('/') == std::string::npos && !out.file.starts_with('.'),
          ErrorCode::corrupt, "{} is \"{}\", but must be the name of a file in the folder",
          fields.where("file"), out.file);
  const std::string split = fields.string("split");
  require(split == to_string(Split::train) || split == to_string(Split::validation), ErrorCode::corrupt,
          "{} is \"{}\", but must be train or validation", fields.where("split"), split);
  out.split = split == to_string(Split::train) ? Split::train : Split::validation;
  out.tokens = fields.u64("tokens", 1, kMost);
  out.documents = fields.u64("documents", 1, kMost);
  out.text_bytes = fields.u64("text_bytes", 0, kMost);
  out.payload = read_hex(fields, "xxh3");
  fields.finish();
  return out;
}

template <class Entry, class Read>
std::vector<Entry> read_list(JsonFields& fields, std::string_view name, Read read) {
  const Json* const list = fields.find(name);
  require(list != nullptr && list->is_array(), ErrorCode::corrupt, "{} must be a list", fields.where(name));
  std::vector<Entry> out;
  for (size_t i = 0; i < list->size(); ++i)
    out.push_back(read((*list)[i], fmt::format("{}[{}]", fields.where(name), i)));
  return out;
}

}  // namespace

std::optional<ShardManifest> read_shard_manifest(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return std::nullopt;
  const Json json = parse_json(read_text_file(path, kMaxManifest), path.string());
  JsonFields fields(json, path.string(), ErrorCode::corrupt);
  const uint32_t version = fields.u32("mneme_shards", 1, 1u << 30);
  require(version == 1, ErrorCode::unsupported, "{}: shards of version {}, this program reads version 1",
          path.string(), version);
  ShardManifest out;
  out.identity = read_hex(fields, "identity");
  out.tokenizer = fields.string("tokenizer");
  fingerprint_bytes(out.tokenizer, fields.where("tokenizer"));
  out.options = fields.string("options");
  out.vocab = fields.u32("vocab", 1, 1u << 24);
  out.end_token = fields.u32("end_token", 0, kNoEndToken);
  out.invalid_bytes = fields.u64("invalid_bytes", 0, kMost);
  out.binary_files = fields.u64("binary_files", 0, kMost);
  out.sources = read_list<SourceEntry>(fields, "sources", read_source);
  out.shards = read_list<ShardEntry>(fields, "shards", read_shard);
  out.source = fields.u64("source", 0, out.sources.size());
  out.position = fields.u64("position", 0, kMost);
  fields.finish();
  return out;
}

void write_shard_manifest(const fs::path& path, const ShardManifest& manifest) {
  OrderedJson json = {{"mneme_shards", 1},
                      {"identity", hex(manifest.identity)},
                      {"tokenizer", manifest.tokenizer},
                      {"options", manifest.options},
                      {"vocab", manifest.vocab},
                      {"end_token", manifest.end_token},
                      {"invalid_bytes", manifest.invalid_bytes},
                      {"binary_files", manifest.binary_files},
                      {"sources", OrderedJson::array()},
                      {"shards", OrderedJson::array()},
                      {"source", manifest.source},
                      {"position", manifest.position}};
  for (const SourceEntry& source : manifest.sources)
    json["sources"].push_back({{"path", source.file.path.string()},
                               {"bytes", source.file.bytes},
                               {"modified_ns", source.file.modified_ns},
                               {"json_lines", source.file.json_lines},
                               {"xxh3", source.xxh3}});
  for (const ShardEntry& shard : manifest.shards)
    json["shards"].push_back({{"file", shard.file},
                              {"split", to_string(shard.split)},
                              {"tokens", shard.tokens},
                              {"documents", shard.documents},
                              {"text_bytes", shard.text_bytes},
                              {"xxh3", hex(shard.payload)}});
  AtomicFile file(path);
  // Names of files need not be UTF-8; what is not, cannot be compared later and reads as another file.
  file.write(json.dump(1, ' ', false, OrderedJson::error_handler_t::replace) + "\n");
  file.commit();
}

std::array<uint8_t, 32> fingerprint_bytes(const std::string& text, const std::string& what) {
  std::array<uint8_t, 32> out{};
  bool fine = text.size() == 64;
  for (size_t i = 0; fine && i < out.size(); ++i) {
    const char* const at = text.data() + 2 * i;
    fine = std::from_chars(at, at + 2, out[i], 16).ptr == at + 2;
  }
  require(fine, ErrorCode::corrupt, "{} is \"{}\", but must be 64 hexadecimal digits", what, text);
  return out;
}

std::string xxh3_of_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  require(in.is_open(), ErrorCode::io, "cannot read {}", path.string());
  Xxh3 sum;
  std::string part(size_t{1} << 20, '\0');
  while (in.read(part.data(), static_cast<std::streamsize>(part.size())) || in.gcount() > 0)
    sum.update(std::as_bytes(std::span(part)).first(static_cast<size_t>(in.gcount())));
  require(in.eof(), ErrorCode::io, "cannot read {} to its end", path.string());
  return sum.hex();
}

std::string source_change(const SourceEntry& source) {
  const std::string name = source.file.path.string();
  std::error_code error;
  if (!fs::exists(source.file.path, error)) return {};
  if (source.file.bytes > 0 && fs::file_size(source.file.path, error) == 0) return name + " is empty now";
  const TextFile now = list_text_files({name}).front();
  if (now.bytes != source.file.bytes)
    return fmt::format("{} has {} bytes now and had {}", name, now.bytes, source.file.bytes);
  if (now.modified_ns == source.file.modified_ns) return {};
  if (xxh3_of_file(now.path) == source.xxh3) return {};
  return fmt::format("{} has other content now", name);
}

}  // namespace mneme::train
