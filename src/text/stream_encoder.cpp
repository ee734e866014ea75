#include "text/stream_encoder.h"

#include <algorithm>

namespace mneme {
namespace {

constexpr size_t kWindow = 256;  // bytes on either side of a cut that are tried
constexpr int kTries = 32;       // places of each kind

bool is_space(char c) noexcept {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

bool continues_character(char c) noexcept {
  return (static_cast<unsigned char>(c) & 0xC0u) == 0x80u;
}

// The border of a character at or before `at`; bytes that are no UTF-8 have none, and `at` is as good.
size_t character_border(std::string_view text, size_t at) noexcept {
  for (size_t back = 0; back < 4 && back <= at; ++back)
    if (!continues_character(text[at - back])) return at - back;
  return at;
}

bool between_lines(std::string_view text, size_t at) noexcept {
  return text[at - 1] == '\n' && !is_space(text[at]) && !is_space(text[at - 2]);
}

bool before_a_word(std::string_view text, size_t at) noexcept {
  return text[at] == ' ' && !is_space(text[at - 1]) && !is_space(text[at + 1]);
}

// Where to cut a text that offers no place: behind its last white space, else between two characters.
size_t forced_cut(std::string_view text) noexcept {
  for (size_t at = text.size() - 1; at > text.size() / 2; --at)
    if (is_space(text[at - 1])) return at;
  return character_border(text, text.size() - 1);
}

}  // namespace

StreamEncoder::StreamEncoder(const Tokenizer& tokenizer, const EncodeOptions& options, size_t piece,
                             size_t longest)
    : tokenizer_(tokenizer),
      pieces_(dynamic_cast<const PieceEncoding*>(&tokenizer)),
      options_(options),
      piece_(std::max(piece, size_t{16})),
      longest_(std::max(longest, piece_)),
      search_at_(piece_) {}

void StreamEncoder::push(std::string_view bytes, std::vector<TokenId>& ids) {
  if (pieces_ == nullptr) {
    held_.append(bytes);
    return;
  }
  while (!bytes.empty()) {
    const size_t take = std::min(bytes.size(), search_at_ - held_.size());
    held_.append(bytes.substr(0, take));
    bytes.remove_prefix(take);
    if (held_.size() < search_at_) return;
    size_t cut = place_to_cut();
    if (cut == 0 && held_.size() >= longest_) cut = forced_cut(held_);
    if (cut == 0) {
      searched_ = held_.size() - std::min(held_.size(), kWindow);
      search_at_ = std::min(longest_, held_.size() + piece_);
      continue;
    }
    encode_held(cut, false, ids);
    held_.erase(0, cut);
    searched_ = 0;
    search_at_ = std::max(piece_, held_.size() + 1);
  }
}

void StreamEncoder::finish(std::vector<TokenId>& ids) {
  if (!held_.empty() || !begun_) encode_held(held_.size(), true, ids);
  held_.clear();
}

std::vector<TokenId> StreamEncoder::encode(std::string_view text, bool begins, bool ends) const {
  return pieces_ ? pieces_->encode_piece(text, options_, begins, ends) : tokenizer_.encode(text, options_);
}

void StreamEncoder::encode_held(size_t bytes, bool last, std::vector<TokenId>& ids) {
  const auto more = encode(std::string_view(held_).substr(0, bytes), !begun_, last);
  ids.insert(ids.end(), more.begin(), more.end());
  begun_ = true;
}

size_t StreamEncoder::place_to_cut() const {
  // What comes after the cut must be known as far as it is tried, or the cut would depend on the pieces.
  const size_t first = std::max<size_t>(searched_, 2);
  const size_t last = held_.size() - std::min(held_.size(), std::min(kWindow, piece_ / 2));
  for (const auto possible : {between_lines, before_a_word}) {
    int tries = kTries;
    for (size_t at = last; at > first && tries > 0; --at) {
      if (!possible(held_, at)) continue;
      if (may_cut(at)) return at;
      --tries;
    }
  }
  return 0;
}

bool StreamEncoder::may_cut(size_t at) const {
  const std::string_view text = held_;
  const size_t begin = character_border(text, at - std::min(at, kWindow));
  size_t end = std::min(text.size(), at + kWindow);
  if (end < text.size()) end = std::max(at + 1, character_border(text, end));
  const auto whole = encode(text.substr(begin, end - begin), false, false);
  auto parts = encode(text.substr(begin, at - begin), false, false);
  const auto second = encode(text.substr(at, end - at), false, false);
  // (Bytes without tokens, such as accents that a normalizer strips, tell nothing about what follows them.)
  if (parts.empty() || second.empty()) return false;
  parts.insert(parts.end(), second.begin(), second.end());
  return parts == whole;
}

}  // namespace mneme
