// Unigram: the segmentation of a word whose pieces have the highest sum of log probabilities, found left to
// right over all positions (Viterbi). An unknown character costs ten more than the rarest piece; neighbouring
// unknown characters become one token, or their bytes where the vocabulary has byte pieces.
#include <algorithm>
#include <limits>

#include "text/utf8.h"
#include "text/word_model.h"

namespace mneme {

namespace {

constexpr double kUnknownPenalty = 10.0;

// Pieces sorted by spelling; a prefix search narrows a range byte by byte, starting from a table of two.
class PrefixIndex {
 public:
  explicit PrefixIndex(const Vocabulary& vocab, size_t pieces) : vocab_(vocab), starts_(256 * 256 + 1) {
    for (size_t id = 0; id < pieces; ++id) {
      const std::string_view spelling = vocab[static_cast<TokenId>(id)];
      if (!spelling.empty() && vocab.find(spelling) == static_cast<TokenId>(id))
        sorted_.push_back(static_cast<TokenId>(id));
    }
    std::sort(sorted_.begin(), sorted_.end(), [&](TokenId a, TokenId b) { return vocab[a] < vocab[b]; });
    size_t next = 0;
    for (size_t key = 0; key < 256 * 256; ++key) {
      while (next < sorted_.size() && key_of(vocab[sorted_[next]]) < key) ++next;
      starts_[key] = static_cast<uint32_t>(next);
    }
    starts_.back() = static_cast<uint32_t>(sorted_.size());
  }

  // Calls found(id, length) for every piece that `text` begins with, shortest first.
  template <class Found>
  void for_each_prefix(std::string_view text, const Found& found) const {
    // One-byte pieces share the key (byte, 0) with pieces whose second byte is NUL and come first in it.
    const size_t first = static_cast<uint8_t>(text[0]) * size_t{256};
    if (starts_[first] < sorted_.size() && vocab_[sorted_[starts_[first]]] == text.substr(0, 1))
      found(sorted_[starts_[first]], size_t{1});
    if (text.size() < 2) return;
    const size_t key = first + static_cast<uint8_t>(text[1]);
    auto low = sorted_.begin() + starts_[key], high = sorted_.begin() + starts_[key + 1];
    for (size_t length = 2; low != high && length <= text.size(); ++length) {
      const auto byte = static_cast<uint8_t>(text[length - 1]);
      const auto at = [&](TokenId id) {
        const std::string_view s = vocab_[id];
        return s.size() < length ? -1 : static_cast<int>(static_cast<uint8_t>(s[length - 1]));
      };
      low = std::lower_bound(low, high, int{byte}, [&](TokenId id, int b) { return at(id) < b; });
      high = std::upper_bound(low, high, int{byte}, [&](int b, TokenId id) { return b < at(id); });
      if (low != high && vocab_[*low].size() == length) found(*low, length);
    }
  }

 private:
  const Vocabulary& vocab_;
  std::vector<TokenId> sorted_;
  std::vector<uint32_t> starts_;  // of the first piece whose first two bytes are at least the key
  static size_t key_of(std::string_view s) {
    return static_cast<uint8_t>(s[0]) * size_t{256} + (s.size() > 1 ? static_cast<uint8_t>(s[1]) : 0);
  }
};

class Unigram final : public WordModel {
 public:
  Unigram(const TokenizerSpec& spec, const Vocabulary& vocab)
      : vocab_(vocab),
        index_(vocab, spec.scores.size()),
        scores_(spec.scores),
        byte_fallback_(spec.byte_fallback),
        unk_(spec.unk),
        byte_pieces_(find_byte_pieces(vocab)) {
    unknown_score_ = *std::min_element(scores_.begin(), scores_.end()) - kUnknownPenalty;
  }

  void encode(std::string_view word, WordScratch& scratch, std::vector<TokenId>& out) const override {
    search(word, scratch.lattice);
    const size_t first_new = out.size();
    size_t unknown_end = 0;  // end of a run of unknown characters, walking backwards
    std::vector<BestNode>& best = scratch.lattice;
    for (size_t end = word.size(); end > 0;) {
      const auto begin = static_cast<size_t>(best[end].from);
      if (best[end].id == unk_) {
        if (unknown_end == 0) unknown_end = end;
        if (begin == 0 || best[begin].id != unk_) {
          append_unknown(word.substr(begin, unknown_end - begin), out);
          unknown_end = 0;
        }
      } else {
        out.push_back(best[end].id);
      }
      end = begin;
    }
    std::reverse(out.begin() + static_cast<std::ptrdiff_t>(first_new), out.end());
  }

 private:
  const Vocabulary& vocab_;
  PrefixIndex index_;
  std::vector<double> scores_;
  bool byte_fallback_;
  TokenId unk_;
  std::vector<TokenId> byte_pieces_;
  double unknown_score_ = 0;

  void search(std::string_view word, std::vector<BestNode>& best) const {
    best.assign(word.size() + 1, BestNode{});
    const auto offer = [&](size_t begin, size_t end, TokenId id, double score) {
      BestNode& node = best[end];
      if (node.from < 0 || score > node.score) node = {score, static_cast<int64_t>(begin), id};
    };
    for (size_t at = 0; at < word.size();) {
      const size_t length = decode_utf8(word.substr(at)).length;
      const double here = best[at].score;
      bool single = false;
      index_.for_each_prefix(word.substr(at), [&](TokenId id, size_t bytes) {
        offer(at, at + bytes, id, here + scores_[static_cast<size_t>(id)]);
        single = single || bytes == length;
      });
      if (!single) offer(at, at + length, unk_, here + unknown_score_);
      at += length;
    }
  }

  // Appends in reverse order, because the caller walks backwards.
  void append_unknown(std::string_view text, std::vector<TokenId>& out) const {
    const TokenId whole = vocab_.find(text);
    if (whole >= 0) return out.push_back(whole);
    const bool bytes = byte_fallback_ && std::all_of(text.begin(), text.end(), [&](char c) {
                         return byte_pieces_[static_cast<uint8_t>(c)] >= 0;
                       });
    if (!bytes) return out.push_back(unk_);
    for (auto c = text.rbegin(); c != text.rend(); ++c) out.push_back(byte_pieces_[static_cast<uint8_t>(*c)]);
  }
};

}  // namespace

std::unique_ptr<WordModel> make_unigram(const TokenizerSpec& spec, const Vocabulary& vocab) {
  return std::make_unique<Unigram>(spec, vocab);
}

}  // namespace mneme
