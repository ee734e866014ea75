// Training text as token shards (files/token_shard.h): a folder made by build_shards() (shard_build.h),
// opened as one long stream of tokens.
//
//   FOLDER/shards.json             what it was made from, and what it holds: the file that makes it complete
//   FOLDER/train-00000.tokens ...  the shards of each split
//   FOLDER/validation-00000.tokens
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/file.h"
#include "files/token_shard.h"

namespace mneme::train {

enum class Split { train, validation };
std::string_view to_string(Split split) noexcept;

/// The shards of one split, memory-mapped. Immutable; safe to read from many threads. Copies are cheap.
class ShardSet {
 public:
  struct Options {
    bool verify = true;         // read every byte once and compare the checksums
    bool check_sources = true;  // refuse shards whose text has changed since (text that is gone is fine)
  };
  /// Throws Error(not_found) if the folder holds no finished set; Error(corrupt) naming the file that is
  /// damaged; Error(mismatch) naming the shard or the text that is not the one that was indexed. A split that
  /// got no documents is an empty set.
  static ShardSet open(const fs::path& folder, Split split = Split::train);
  static ShardSet open(const fs::path& folder, Split split, const Options& options);

  uint64_t tokens() const noexcept { return tokens_; }
  uint64_t documents() const noexcept { return documents_; }
  /// UTF-8 bytes of the documents; tokens / bytes turns nats per token into bits per byte.
  uint64_t text_bytes() const noexcept { return text_bytes_; }
  uint32_t vocab() const noexcept { return vocab_; }
  uint32_t end_token() const noexcept { return end_token_; }
  /// text/tokenizer_fingerprint.h of the tokenizer that made the ids.
  const std::string& tokenizer_hash() const noexcept { return tokenizer_hash_; }
  const fs::path& folder() const noexcept { return folder_; }
  /// 16 hexadecimal digits over all shards: equal sets hold equal tokens.
  const std::string& hash() const noexcept { return hash_; }

  /// Throws Error(mismatch) unless the ids came from the tokenizer with this fingerprint. `what` names it.
  void require_tokenizer(std::string_view fingerprint, std::string_view what) const;

  /// Copies the tokens [first, first + out.size()). Throws Error(limit) beyond the end, and Error(io) naming
  /// a shard that was cut while it is in use: each read asks for the file's length first.
  void read(uint64_t first, std::span<int64_t> out) const;
  /// Where document `index` begins in the stream. Throws as read() does.
  uint64_t document_start(uint64_t index) const;

 private:
  struct Shard;
  std::vector<std::shared_ptr<const Shard>> shards_;
  fs::path folder_;
  std::string tokenizer_hash_, hash_;
  uint64_t tokens_ = 0, documents_ = 0, text_bytes_ = 0;
  uint32_t vocab_ = 0, end_token_ = kNoEndToken;
};

}  // namespace mneme::train
