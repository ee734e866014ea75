// shards.json, the description of a folder of token shards, and shards.partial.json, the same of a set that
// is not finished: which shards are there, and where in the texts the work goes on.
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/file.h"
#include "text/documents.h"
#include "train/data/shards.h"

namespace mneme::train {

inline constexpr const char* kManifestName = "shards.json";
inline constexpr const char* kPartialManifestName = "shards.partial.json";

struct SourceEntry {
  TextFile file;     // path, size and time when it was read
  std::string xxh3;  // of its bytes; empty in a set that is not finished
};

struct ShardEntry {
  std::string file;  // in the folder
  Split split = Split::train;
  uint64_t tokens = 0, documents = 0, text_bytes = 0;
  uint64_t payload = 0;  // XXH3, as the shard's header has it
};

struct ShardManifest {
  uint64_t identity = 0;  // XXH3 of tokenizer, options and the sources' names and sizes
  std::string tokenizer;  // fingerprint
  std::string options;    // in words, for messages and people
  uint32_t vocab = 0, end_token = kNoEndToken;
  uint64_t invalid_bytes = 0, binary_files = 0;
  std::vector<SourceEntry> sources;
  std::vector<ShardEntry> shards;
  // Where a set that is not finished goes on: byte `position` of source `source`.
  uint64_t source = 0, position = 0;
};

/// The file, or nothing if there is none. Throws Error(corrupt) naming the field that is wrong.
std::optional<ShardManifest> read_shard_manifest(const fs::path& path);
void write_shard_manifest(const fs::path& path, const ShardManifest& manifest);

/// SHA-256 as text to bytes. Throws Error(corrupt) for anything but 64 hexadecimal digits.
std::array<uint8_t, 32> fingerprint_bytes(const std::string& hex, const std::string& what);

/// Is the text still what was read? Size and time are compared, and the content where only the time differs.
/// Empty: yes, or it is gone (which is fine: the tokens are here); otherwise what is wrong with it.
std::string source_change(const SourceEntry& source);
/// XXH3 of a file, read in pieces, as 16 hexadecimal digits.
std::string xxh3_of_file(const fs::path& path);

}  // namespace mneme::train
