// Finds stop strings in a text that arrives in pieces, and lets through at once whatever can no longer belong
// to one. Every pattern runs its own Knuth-Morris-Pratt automaton over the bytes: its state is the length of
// the longest suffix of the text that is a prefix of the pattern, so the longest state over all patterns is
// exactly what has to be held back. The match that ends first wins, and of those that end together the
// longest; the result does therefore not depend on how the text was cut.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mneme {

class StopMatcher {
 public:
  /// Throws Error(invalid_argument) for a pattern that is empty or not UTF-8 (it could cut a character).
  explicit StopMatcher(const std::vector<std::string>& patterns);

  /// Adds text and returns what is final: the text before the match once there is one, otherwise everything
  /// that no pattern may still reach back to. Whole characters in, whole characters out. Nothing after a
  /// match.
  std::string push(std::string_view text);
  /// The text ends here: returns what was held back.
  std::string finish();
  bool matched() const noexcept { return matched_; }

 private:
  struct Pattern {
    std::string text;
    std::vector<uint32_t> border;  // border[i]: longest proper prefix that is a suffix of text[0, i)
    uint32_t state = 0;            // bytes matched at the end of the text so far
    void advance(char byte) noexcept;
  };
  std::vector<Pattern> patterns_;
  std::string held_;
  bool matched_ = false;
};

}  // namespace mneme
