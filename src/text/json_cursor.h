// A forward reader for the two huge members of tokenizer.json (a vocabulary and its merges, 33 MB for Gemma),
// which a document tree would blow up tenfold. Strict: what it does not understand is Error(corrupt) with the
// byte where it stands.
#pragma once
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>

namespace mneme {

class JsonCursor {
 public:
  /// `text` must outlive the cursor and the strings it returns; `what` names it in messages.
  JsonCursor(std::string_view text, std::string_view what) : text_(text), what_(what) {}

  size_t position() const noexcept { return at_; }
  void seek(size_t position) noexcept { at_ = position; }

  /// The next character that is not white space, not consumed; '\0' at the end.
  char peek() noexcept;
  /// Consumes `c` or throws.
  void expect(char c);
  /// Consumes `c` if it is next.
  bool accept(char c) noexcept;
  /// A string. Views into the text, or into memory that the cursor keeps if it has escapes.
  std::string_view string();
  int64_t integer();
  double number();
  /// Skips one value of any kind without looking into it further than brackets and strings.
  void skip();

  [[noreturn]] void error(std::string_view expected) const;

 private:
  std::string_view text_, what_;
  size_t at_ = 0;
  std::deque<std::string> unescaped_;
  void append_escape(std::string& out);
  uint32_t hex4();
};

}  // namespace mneme
