// The pre-tokenizer stage: cuts a text into the words that the model sees one by one.
#pragma once
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/regex.h"
#include "text/tokenizer_spec.h"

namespace mneme {

/// The words of a text, as views into the text or into `storage` (where a step has changed the text).
struct Words {
  std::vector<std::string_view> words;
  std::deque<std::string> storage;
};

/// Where a text stands in the whole input: at its beginning, behind an added token, or in the middle of a
/// text whose beginning came before, so that nothing is put in front of it.
enum class TextPlace { start, later, middle };

class PreTokenizer {
 public:
  /// Throws Error(unsupported) for a bad regular expression or a byte_level that is not the last step.
  explicit PreTokenizer(std::vector<PreTokenizerStep> steps);

  /// Cuts valid UTF-8 into words. Replaces what `out` held. The views live as long as `text` and `out`.
  /// Thread-safe.
  void split(std::string_view text, TextPlace place, Words& out) const;
  /// True if words are to be read as bytes rather than characters.
  bool byte_level() const noexcept { return byte_level_; }

 private:
  enum class Scanner { none, gpt2, llama3, qwen2 };
  struct Step {
    PreTokenizerStep spec;
    Scanner scanner = Scanner::none;
    std::unique_ptr<Regex> regex;
  };
  std::vector<Step> steps_;
  bool byte_level_ = false;
  void run(const Step& step, std::string_view text, TextPlace place, Words& out) const;
};

/// Hand-written equivalents of the well-known patterns (tokenizer_spec.h); every byte lands in one word.
void split_gpt2(std::string_view text, std::vector<std::string_view>& words);
/// Llama 3 with max_digits = 3, Qwen 2 with max_digits = 1.
void split_llama3(std::string_view text, int max_digits, std::vector<std::string_view>& words);

}  // namespace mneme
