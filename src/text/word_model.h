// The model stage: one word -> ids. Implementations are immutable; what changes while encoding lives in a
// WordScratch that the caller keeps for the length of one text.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer_spec.h"

namespace mneme {

/// A symbol of a word that is being merged: a doubly linked list over a vector.
struct Symbol {
  TokenId id;
  int32_t previous, next;  // indices, -1 at the ends
  uint32_t begin, length;  // bytes of the word; length 0: merged away
};

/// A candidate merge. The queue yields the smallest (rank, left); rank grows as quality falls.
struct Candidate {
  double rank;
  int32_t left;
  TokenId result;
  uint32_t length;  // of left + right when the candidate was made; a stale one differs
};

struct BestNode {
  double score = 0;
  int64_t from = -1;
  TokenId id = -1;
};

struct WordScratch {
  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;
  std::vector<BestNode> lattice;
  std::string text;
};

class WordModel {
 public:
  virtual ~WordModel() = default;
  /// Appends the ids of `word` (valid UTF-8 unless the model reads bytes) to `out`.
  virtual void encode(std::string_view word, WordScratch& scratch, std::vector<TokenId>& out) const = 0;
};

/// Both forms of byte pair encoding. O(n log n) in the length of the word. The vocabulary of `spec` must
/// outlive the model; merges and scores are copied into tables. Throws Error(corrupt) for what does not fit.
std::unique_ptr<WordModel> make_bpe(const TokenizerSpec& spec, const Vocabulary& vocab, bool byte_level);
std::unique_ptr<WordModel> make_spm_bpe(const TokenizerSpec& spec, const Vocabulary& vocab);
/// O(n * longest piece).
std::unique_ptr<WordModel> make_unigram(const TokenizerSpec& spec, const Vocabulary& vocab);

/// The ids of "<0x00>" ... "<0xFF>"; -1 where there is none.
std::vector<TokenId> find_byte_pieces(const Vocabulary& vocab);

/// GPT-2's byte alphabet: each byte is spelled by one printable character, e.g. a space by "Ġ".
char32_t byte_to_alphabet(uint8_t byte) noexcept;
/// The byte that a character of the alphabet spells, or -1.
int alphabet_to_byte(char32_t code) noexcept;
void append_byte_alphabet(std::string& out, std::string_view bytes);

}  // namespace mneme
