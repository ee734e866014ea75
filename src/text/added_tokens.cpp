#include "text/added_tokens.h"

#include <algorithm>

#include "text/unicode.h"

namespace mneme {

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens, std::vector<std::string> spellings) {
  for (size_t i = 0; i < tokens.size(); ++i)
    if (!spellings[i].empty()) patterns_.push_back({std::move(spellings[i]), std::move(tokens[i])});
  std::stable_sort(patterns_.begin(), patterns_.end(),
                   [](const Pattern& a, const Pattern& b) { return a.spelling < b.spelling; });
  size_t next = 0;
  for (size_t byte = 0; byte <= 256; ++byte) {
    while (next < patterns_.size() && static_cast<uint8_t>(patterns_[next].spelling[0]) < byte) ++next;
    first_byte_[byte] = static_cast<uint32_t>(next);
  }
}

const AddedTokenMatcher::Pattern* AddedTokenMatcher::longest_at(std::string_view text) const noexcept {
  const auto first = static_cast<uint8_t>(text[0]);
  auto low = patterns_.begin() + first_byte_[first], high = patterns_.begin() + first_byte_[first + 1];
  const Pattern* longest = nullptr;
  for (size_t length = 1; low != high; ++length) {
    if (low->spelling.size() == length) longest = &*low;
    if (length == text.size()) break;
    const auto byte = static_cast<uint8_t>(text[length]);
    const auto at = [&](const Pattern& p) {
      return p.spelling.size() <= length ? -1 : static_cast<int>(static_cast<uint8_t>(p.spelling[length]));
    };
    low = std::lower_bound(low, high, int{byte}, [&](const Pattern& p, int b) { return at(p) < b; });
    high = std::upper_bound(low, high, int{byte}, [&](int b, const Pattern& p) { return b < at(p); });
  }
  return longest;
}

void AddedTokenMatcher::split(std::string_view text, bool parse_special, std::vector<Segment>& out) const {
  out.clear();
  size_t done = 0;
  for (size_t at = 0; at < text.size() && !patterns_.empty();) {
    const auto byte = static_cast<uint8_t>(text[at]);
    const Pattern* found = first_byte_[byte] == first_byte_[byte + 1] ? nullptr : longest_at(text.substr(at));
    if (!found) {
      ++at;
      continue;
    }
    size_t begin = at, end = at + found->spelling.size();
    at = end;
    const AddedToken& token = found->token;
    if (token.special && !parse_special) continue;
    if (token.single_word && (ends_with_word(text.substr(0, begin)) || starts_with_word(text.substr(end))))
      continue;
    if (begin < done) continue;  // white space that the token before has swallowed
    if (token.lstrip) begin = std::max(done, begin - trailing_space(text.substr(0, begin)));
    if (token.rstrip) end += leading_space(text.substr(end));
    if (begin > done) out.push_back({done, begin, -1});
    out.push_back({begin, end, token.id});
    done = end;
  }
  if (done < text.size()) out.push_back({done, text.size(), -1});
}

}  // namespace mneme
