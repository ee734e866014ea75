// Cuts added tokens ("<|im_end|>", "<image>") out of a text: leftmost first, the longest at each place.
#pragma once
#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer_spec.h"

namespace mneme {

/// A stretch of text: an added token (id >= 0), or text that goes on to the next stage (id = -1).
struct Segment {
  size_t begin, end;
  TokenId id;
};

class AddedTokenMatcher {
 public:
  AddedTokenMatcher() = default;
  /// `spellings[i]` is how tokens[i] looks in the text that will be searched. Empty spellings never match.
  AddedTokenMatcher(std::vector<AddedToken> tokens, std::vector<std::string> spellings);

  /// Covers `text` with segments, in order and none empty. Special tokens count only if `parse_special`.
  void split(std::string_view text, bool parse_special, std::vector<Segment>& out) const;
  bool empty() const noexcept { return patterns_.empty(); }

 private:
  struct Pattern {
    std::string spelling;
    AddedToken token;
  };
  std::vector<Pattern> patterns_;           // sorted by spelling
  std::array<uint32_t, 257> first_byte_{};  // where the patterns of each first byte begin
  const Pattern* longest_at(std::string_view text) const noexcept;
};

}  // namespace mneme
