// The normalizer stage: a list of text -> text steps (Unicode forms, replacements, prefixes).
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/regex.h"
#include "text/tokenizer_spec.h"

namespace mneme {

class Normalizer {
 public:
  /// Throws Error(unsupported | corrupt) for a bad regular expression or character map.
  explicit Normalizer(std::vector<NormalizerStep> steps);
  /// Normalizes valid UTF-8; `begins` is false for a text that goes on from another, which gets no prefix.
  /// Thread-safe.
  std::string operator()(std::string_view text, bool begins = true) const;
  bool empty() const noexcept { return steps_.empty(); }

 private:
  std::vector<NormalizerStep> steps_;
  std::vector<std::unique_ptr<Regex>> regexes_;  // one per step, null where there is none
};

/// Replaces every occurrence of a literal, left to right, not overlapping.
std::string replace_all(std::string_view text, std::string_view from, std::string_view to);

/// SentencePiece's compiled character map: u32 bytes of trie | double array of u32 units | NUL-ended strings.
/// Throws Error(corrupt) if the trie does not fit the blob.
void check_character_map(std::string_view blob);
/// Maps grapheme by grapheme, each by the shortest key of the map that it begins with.
std::string apply_character_map(std::string_view blob, std::string_view text);

}  // namespace mneme
