// Byte pair encoding. A word starts as its characters (or bytes); the best mergeable pair of neighbours is
// merged until none is left. "Best" is the lowest rank in the list of merges (GPT-2) or the highest score of
// the merged piece (SentencePiece); ties go to the leftmost pair. A binary heap of candidates and a linked
// list of symbols make it O(n log n), so that a megabyte without spaces is one word like any other.
#include <algorithm>
#include <array>

#include "core/fail.h"
#include "text/utf8.h"
#include "text/word_model.h"

namespace mneme {

namespace {

bool worse(const Candidate& a, const Candidate& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
}

// Merges scratch.symbols in place. pair(left symbol, right symbol, rank&, result&) says whether two
// neighbours may merge.
template <class Pair>
void merge_all(WordScratch& scratch, const Pair& pair) {
  std::vector<Symbol>& symbols = scratch.symbols;
  std::vector<Candidate>& heap = scratch.heap;
  heap.clear();
  const auto candidate = [&](int32_t left, Candidate& out) {
    const Symbol& a = symbols[static_cast<size_t>(left)];
    if (a.next < 0) return false;
    const Symbol& b = symbols[static_cast<size_t>(a.next)];
    out.left = left;
    out.length = a.length + b.length;
    return pair(a, b, out.rank, out.result);
  };
  const auto push = [&](int32_t left) {
    Candidate next;
    if (!candidate(left, next)) return;
    heap.push_back(next);
    std::push_heap(heap.begin(), heap.end(), worse);
  };
  for (int32_t i = 0; i + 1 < static_cast<int32_t>(symbols.size()); ++i) {
    Candidate next;
    if (candidate(i, next)) heap.push_back(next);
  }
  std::make_heap(heap.begin(), heap.end(), worse);
  while (!heap.empty()) {
    const Candidate best = heap.front();
    std::pop_heap(heap.begin(), heap.end(), worse);
    heap.pop_back();
    Symbol& a = symbols[static_cast<size_t>(best.left)];
    if (a.length == 0 || a.next < 0) continue;
    Symbol& b = symbols[static_cast<size_t>(a.next)];
    if (a.length + b.length != best.length) continue;  // one of the two has grown since
    a.id = best.result;
    a.length = best.length;
    a.next = b.next;
    b.length = 0;
    if (a.next >= 0) symbols[static_cast<size_t>(a.next)].previous = best.left;
    if (a.previous >= 0) push(a.previous);
    push(best.left);
  }
}

void add_symbol(std::vector<Symbol>& symbols, TokenId id, size_t begin, size_t length) {
  const auto index = static_cast<int32_t>(symbols.size());
  if (index > 0) symbols.back().next = index;
  symbols.push_back({id, index - 1, -1, static_cast<uint32_t>(begin), static_cast<uint32_t>(length)});
}

// SentencePiece texts are one word from end to end. No merge reaches across a place before "▁" unless some
// piece holds a "▁" after the character that stands there, so the text may be cut at all other such places:
// short words stay in the cache.
class SpaceCuts {
 public:
  SpaceCuts(const Vocabulary& vocab, bool wanted) {
    enabled_ = wanted && vocab.find(kSpace) >= 0;  // an unknown "▁" might be fused with its neighbours
    if (!enabled_) return;
    for (size_t id = 0; id < vocab.size(); ++id) {
      const std::string_view piece = vocab[static_cast<TokenId>(id)];
      for (size_t at = next_space(piece, 0); at < piece.size(); at = next_space(piece, at + 1))
        joined_[static_cast<uint8_t>(piece[at - 1])] = true;
    }
  }

  template <class EncodePart>
  void for_each_part(std::string_view word, const EncodePart& encode_part) const {
    for (size_t begin = 0; begin < word.size();) {
      size_t end = enabled_ ? next_space(word, begin + 1) : word.size();
      while (end < word.size() && joined_[static_cast<uint8_t>(word[end - 1])])
        end = next_space(word, end + 1);
      encode_part(word.substr(begin, end - begin));
      begin = end;
    }
  }

 private:
  static constexpr std::string_view kSpace = "▁";
  bool enabled_ = false;
  std::array<bool, 256> joined_{};  // last bytes of characters before which some piece goes on with "▁"

  // Position of the next "▁", at or after `from`, that follows another character; or the end.
  static size_t next_space(std::string_view text, size_t from) {
    for (size_t at = std::max<size_t>(from, 1); (at = text.find(kSpace, at)) != std::string_view::npos;
         at += kSpace.size())
      if (!text.substr(0, at).ends_with(kSpace)) return at;
    return text.size();
  }
};

class Bpe final : public WordModel {
 public:
  Bpe(const TokenizerSpec& spec, const Vocabulary& vocab, bool byte_level)
      : vocab_(vocab),
        byte_level_(byte_level),
        byte_fallback_(spec.byte_fallback),
        fuse_unk_(spec.fuse_unk),
        ignore_merges_(spec.ignore_merges),
        cuts_(vocab, !byte_level),
        unk_(spec.unk) {
    merges_.reserve(spec.merges.size());
    uint32_t rank = 0;
    for (const Merge& merge : spec.merges) merges_.add(merge.left, merge.right, rank++, merge.result);
    byte_pieces_ = find_byte_pieces(vocab);
    std::string spelling;
    for (uint32_t byte = 0; byte < 256; ++byte) {
      spelling.clear();
      append_utf8(spelling, byte_to_alphabet(static_cast<uint8_t>(byte)));
      bytes_[byte] = vocab.find(spelling);
    }
    for (uint32_t c = 0; c < 128; ++c) ascii_[c] = vocab.find(std::string(1, static_cast<char>(c)));
  }

  void encode(std::string_view word, WordScratch& scratch, std::vector<TokenId>& out) const override {
    if (ignore_merges_ && whole(word, scratch, out)) return;
    cuts_.for_each_part(word, [&](std::string_view part) { encode_part(part, scratch, out); });
  }

 private:
  const Vocabulary& vocab_;
  MergeTable merges_;
  bool byte_level_, byte_fallback_, fuse_unk_, ignore_merges_;
  SpaceCuts cuts_;
  TokenId unk_;
  std::array<TokenId, 256> bytes_{};  // of the byte alphabet
  std::array<TokenId, 128> ascii_{};  // of plain characters
  std::vector<TokenId> byte_pieces_;  // "<0x00>" and on

  void encode_part(std::string_view word, WordScratch& scratch, std::vector<TokenId>& out) const {
    scratch.symbols.clear();
    if (byte_level_)
      add_bytes(word, scratch.symbols);
    else
      add_characters(word, scratch.symbols);
    merge_all(scratch, [&](const Symbol& a, const Symbol& b, double& rank, TokenId& result) {
      const MergeTable::Entry* entry = merges_.find(a.id, b.id);
      if (!entry) return false;
      rank = entry->rank;
      result = entry->result;
      return true;
    });
    for (const Symbol& symbol : scratch.symbols)
      if (symbol.length) out.push_back(symbol.id);
  }

  bool whole(std::string_view word, WordScratch& scratch, std::vector<TokenId>& out) const {
    if (word.size() > vocab_.longest()) return false;
    std::string_view spelling = word;
    if (byte_level_) {
      scratch.text.clear();
      append_byte_alphabet(scratch.text, word);
      spelling = scratch.text;
    }
    const TokenId id = vocab_.find(spelling);
    if (id >= 0) out.push_back(id);
    return id >= 0;
  }

  // A byte without a piece is unknown; models without an unknown token leave it out, as the reference does.
  void add_bytes(std::string_view word, std::vector<Symbol>& symbols) const {
    for (size_t i = 0; i < word.size(); ++i) {
      const TokenId id = bytes_[static_cast<uint8_t>(word[i])];
      if (id >= 0)
        add_symbol(symbols, id, i, 1);
      else if (unk_ >= 0 && !(fuse_unk_ && !symbols.empty() && symbols.back().id == unk_))
        add_symbol(symbols, unk_, i, 1);
    }
  }

  void add_characters(std::string_view word, std::vector<Symbol>& symbols) const {
    size_t unknown = 0, unknown_begin = 0;  // bytes of unknown characters that wait to become one token
    const auto flush = [&] {
      if (unknown) add_symbol(symbols, unk_, unknown_begin, unknown);
      unknown = 0;
    };
    for (size_t at = 0; at < word.size();) {
      const auto byte = static_cast<uint8_t>(word[at]);
      const size_t length = byte < 0x80 ? 1 : decode_utf8(word.substr(at)).length;
      const TokenId id = byte < 0x80 ? ascii_[byte] : vocab_.find(word.substr(at, length));
      if (id >= 0) {
        flush();
        add_symbol(symbols, id, at, length);
      } else if (!byte_fallback_ || !add_byte_pieces(word, at, length, symbols)) {
        if (unk_ >= 0) {
          if (!fuse_unk_) flush();
          if (!unknown) unknown_begin = at;
          unknown += length;
        }
      }
      at += length;
    }
    flush();
  }

  bool add_byte_pieces(std::string_view word, size_t at, size_t length, std::vector<Symbol>& symbols) const {
    for (size_t i = at; i < at + length; ++i)
      if (byte_pieces_[static_cast<uint8_t>(word[i])] < 0) return false;
    for (size_t i = at; i < at + length; ++i)
      add_symbol(symbols, byte_pieces_[static_cast<uint8_t>(word[i])], i, 1);
    return true;
  }
};

class SpmBpe final : public WordModel {
 public:
  SpmBpe(const TokenizerSpec& spec, const Vocabulary& vocab)
      : vocab_(vocab),
        byte_fallback_(spec.byte_fallback),
        cuts_(vocab, true),
        unk_(spec.unk),
        byte_pieces_(find_byte_pieces(vocab)) {
    // Control, unknown and byte pieces are never the result of a merge.
    ranks_.resize(vocab.size(), kNever);
    for (size_t id = 0; id < spec.scores.size(); ++id) {
      const TokenType type = spec.types.empty() ? TokenType::normal : spec.types[id];
      if (type == TokenType::normal || type == TokenType::user_defined || type == TokenType::unused)
        ranks_[id] = -spec.scores[id];
    }
  }

  void encode(std::string_view word, WordScratch& scratch, std::vector<TokenId>& out) const override {
    cuts_.for_each_part(word, [&](std::string_view part) { encode_part(part, scratch, out); });
  }

 private:
  static constexpr double kNever = 1e300;
  const Vocabulary& vocab_;
  bool byte_fallback_;
  SpaceCuts cuts_;
  TokenId unk_;
  std::vector<TokenId> byte_pieces_;
  std::vector<double> ranks_;  // minus the score, so that less is better

  void encode_part(std::string_view word, WordScratch& scratch, std::vector<TokenId>& out) const {
    scratch.symbols.clear();
    for (size_t at = 0; at < word.size();) {
      const size_t length = decode_utf8(word.substr(at)).length;
      add_symbol(scratch.symbols, vocab_.find(word.substr(at, length)), at, length);
      at += length;
    }
    merge_all(scratch, [&](const Symbol& a, const Symbol& b, double& rank, TokenId& result) {
      if (a.length + b.length > vocab_.longest()) return false;
      result = vocab_.find(word.substr(a.begin, a.length + b.length));
      if (result < 0) return false;
      rank = ranks_[static_cast<size_t>(result)];
      return rank != kNever;
    });
    bool after_unknown = false;
    for (const Symbol& symbol : scratch.symbols) {
      if (symbol.length == 0) continue;
      const bool known = symbol.id >= 0 && ranks_[static_cast<size_t>(symbol.id)] != kNever;
      if (known)
        out.push_back(symbol.id);
      else if (!(byte_fallback_ && append_bytes(word.substr(symbol.begin, symbol.length), out)) &&
               unk_ >= 0 && !after_unknown)
        out.push_back(unk_);
      after_unknown = !known && !out.empty() && out.back() == unk_;
    }
  }

  bool append_bytes(std::string_view bytes, std::vector<TokenId>& out) const {
    for (const char c : bytes)
      if (byte_pieces_[static_cast<uint8_t>(c)] < 0) return false;
    for (const char c : bytes) out.push_back(byte_pieces_[static_cast<uint8_t>(c)]);
    return true;
  }
};

}  // namespace

std::unique_ptr<WordModel> make_bpe(const TokenizerSpec& spec, const Vocabulary& vocab, bool byte_level) {
  return std::make_unique<Bpe>(spec, vocab, byte_level);
}

std::unique_ptr<WordModel> make_spm_bpe(const TokenizerSpec& spec, const Vocabulary& vocab) {
  return std::make_unique<SpmBpe>(spec, vocab);
}

}  // namespace mneme
