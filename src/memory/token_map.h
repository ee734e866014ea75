// The token map: which tokens of a vocabulary are one word to Engram. "Apple", "apple" and " apple" hash
// alike, which makes n-grams of the same words meet in the same rows; a vocabulary of 129,280 tokens shrinks
// to 99,092 classes. Built once for a tokenizer and kept in the pack, so that nobody's Unicode tables can
// change it later.
//
// The key of a token (arXiv 2601.07372, section 2.2, as its authors' demonstration computes it):
//   1. the token decoded by itself, special tokens included; if that holds U+FFFD (a part of a character),
//   the
//      vocabulary's own spelling is the key;
//   2. otherwise NFKC, NFD, without combining marks, lower case, runs of space, tab, CR and LF become one
//   space,
//      and white space at both ends goes, unless the text is one single space; if nothing is left, the
//      decoded text itself.
// Tokens with equal keys form a class; classes are numbered in the order of their first token.
//
// Each step is that of Hugging Face's `tokenizers`, with which published maps were made, and not of Python's
// str: marks are all of \p{M}, lower case knows no context (a final sigma is a sigma), white space at the
// ends is the Unicode property White_Space, and the normal forms are those of Unicode 9.
//
// Serialized, little-endian:
//   "MNEMETKM" | u32 version = 1 | u32 tokens | u32 classes | fingerprint [32] | a bit for each token, low
//   bit first: begins a class | u24 class of each other token | SHA-256 of all that [32]
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "memory/engram_hash.h"
#include "mneme/tokenizer.h"

namespace mneme {

/// SHA-256 over the number of tokens and the spelling of each: equal for equal vocabularies, whichever file
/// they come from. Hexadecimal.
std::string vocabulary_fingerprint(const Tokenizer& tokenizer);

/// Step 2 above; `text` is valid UTF-8.
std::string normalize_token_text(std::string_view text);

/// Immutable and thread-safe.
class TokenMap {
 public:
  /// A second or so for 150,000 tokens.
  static TokenMap build(const Tokenizer& tokenizer);
  /// `name` stands for the bytes in messages. Throws Error: corrupt (not a token map, damaged, ids out of
  /// range or not in the order of first appearance), unsupported (another version).
  static TokenMap parse(std::span<const std::byte> bytes, std::string_view name);
  std::vector<std::byte> serialize() const;

  uint32_t tokens() const noexcept { return static_cast<uint32_t>(classes_.size()); }
  uint32_t classes() const noexcept { return class_count_; }
  const std::string& fingerprint() const noexcept { return fingerprint_; }
  /// -1 for an id that the tokenizer does not have (embeddings are often padded beyond it).
  TokenClass operator[](TokenId id) const noexcept {
    return id >= 0 && static_cast<size_t>(id) < classes_.size() ? classes_[static_cast<size_t>(id)] : -1;
  }
  /// Throws Error(mismatch) unless the map was made for this vocabulary; `name` is the map's file.
  void check_tokenizer(const Tokenizer& tokenizer, std::string_view name) const;

  bool operator==(const TokenMap&) const = default;

 private:
  std::vector<TokenClass> classes_;  // [tokens]
  uint32_t class_count_ = 0;
  std::string fingerprint_;  // hexadecimal
};

}  // namespace mneme
