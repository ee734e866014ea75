// A token shard: the token ids of many documents, one after the other, in a file that is mapped as it is.
//
//   offset  bytes
//        0      8  "MNEMETOK"
//        8      4  format version, 1
//       12      4  bytes per token: 2 (vocabularies of up to 65,536 pieces) or 4
//       16      8  tokens
//       24      8  documents
//       32      8  bytes of text that the tokens came from, end tokens apart: bits per byte need it
//       40      4  vocabulary size; every token is below it
//       44      4  the end token, which follows every document; 0xFFFFFFFF: none
//       48     32  SHA-256 of the tokenizer (text/tokenizer_fingerprint.h)
//       80      8  XXH3 of the sources and options that it was made from (shards.json beside it lists them)
//       88      8  XXH3 of everything from offset 128 on
//       96     24  zero
//      120      8  XXH3 of bytes 0 to 119
//      128         tokens, little-endian, then zeros up to a multiple of 8
//                  documents × 8 bytes: where each document begins, in tokens; the first is 0, ascending
//
// All numbers are little-endian. The file ends with the last document's entry.
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/file.h"

namespace mneme {

inline constexpr uint32_t kNoEndToken = 0xFFFFFFFF;

/// What the header says.
struct TokenShardInfo {
  uint64_t tokens = 0, documents = 0, text_bytes = 0;
  uint32_t vocab = 0;
  uint32_t end_token = kNoEndToken;
  std::array<uint8_t, 32> tokenizer{};  // SHA-256
  uint64_t sources = 0;                 // XXH3
  uint64_t payload = 0;                 // XXH3 of what follows the header
  uint32_t token_bytes() const noexcept { return vocab <= 65536 ? 2 : 4; }
};

/// Checks the header, the sizes and the file's length, and reads nothing else. `what` names the file in
/// messages. Throws Error(corrupt | unsupported).
TokenShardInfo read_token_shard_header(Bytes file, const std::string& what);

/// Reads every byte once: the payload's checksum, tokens below the vocabulary, borders ascending. Throws
/// Error(corrupt) that says which of them failed.
void verify_token_shard(Bytes file, const TokenShardInfo& info, const std::string& what);

/// The two parts of a file whose header was read.
Bytes token_shard_tokens(Bytes file, const TokenShardInfo& info) noexcept;
std::span<const uint64_t> token_shard_documents(Bytes file, const TokenShardInfo& info) noexcept;

/// Writes one shard, atomically. `info` gives vocab, end_token, tokenizer, sources and text_bytes; counts and
/// checksum are made here. `tokens` are ids below info.vocab. Returns the whole header. Throws Error(io).
TokenShardInfo write_token_shard(const fs::path& path, std::span<const uint32_t> tokens,
                                 std::span<const uint64_t> documents, TokenShardInfo info);

}  // namespace mneme
