// Scanners that do what the pre-tokenizer patterns of GPT-2, Llama 3 and Qwen 2 say, in one pass and without
// backtracking. At each position the alternatives are tried in the pattern's order; the first that matches
// wins, as in any leftmost-first regex engine. tests/text/pretokenizer_test.cpp holds them equal to the
// patterns run by a regex engine.
#include "text/pretokenizer.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace mneme {

namespace {

struct Char {
  CharClass type;
  uint32_t length;
  char32_t code;
};

constexpr CharClass ascii_class(int c) {
  if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) return CharClass::letter;
  if (c >= '0' && c <= '9') return CharClass::number;
  if (c == ' ' || (c >= 9 && c <= 13)) return CharClass::space;
  return CharClass::other;
}

struct AsciiTable {
  CharClass type[128];
  constexpr AsciiTable() : type() {
    for (int c = 0; c < 128; ++c) type[c] = ascii_class(c);
  }
};
constexpr AsciiTable kAscii;

class Cursor {
 public:
  explicit Cursor(std::string_view text) : text_(text) {}

  bool at_end(size_t at) const { return at >= text_.size(); }
  // The character at a position that is not the end.
  Char at(size_t position) const {
    const auto byte = static_cast<uint8_t>(text_[position]);
    if (byte < 0x80) return {kAscii.type[byte], 1, byte};
    const Utf8Char c = decode_utf8(text_.substr(position));
    return {char_class(c.code), c.length, c.code};
  }
  bool is(size_t position, CharClass type) const { return !at_end(position) && at(position).type == type; }
  // The end of the run of characters of one class.
  size_t run(size_t position, CharClass type) const {
    while (!at_end(position)) {
      const Char c = at(position);
      if (c.type != type) break;
      position += c.length;
    }
    return position;
  }
  char byte(size_t position) const { return at_end(position) ? '\0' : text_[position]; }
  std::string_view slice(size_t begin, size_t end) const { return text_.substr(begin, end - begin); }

  // \s+(?!\S)|\s+ : white space up to `end`, but without its last character if a word follows.
  size_t space(size_t begin, size_t end) const {
    if (at_end(end)) return end;
    size_t last = end - 1;
    while ((static_cast<uint8_t>(text_[last]) & 0xC0) == 0x80) --last;
    return last > begin ? last : end;
  }

 private:
  std::string_view text_;
};

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
}

// 's|'t|'re|'ve|'m|'ll|'d at a position that holds an apostrophe: the end of the match, or `at` for none.
size_t contraction(const Cursor& text, size_t at, bool any_case) {
  char a = text.byte(at + 1), b = text.byte(at + 2);
  if (any_case) {
    // U+017F, the long s, is an s when case is ignored.
    if (a == '\xC5' && b == '\xBF') return at + 3;
    a = lower(a);
    b = lower(b);
  }
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return at + 2;
  if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return at + 3;
  return at;
}

}  // namespace

void split_gpt2(std::string_view whole, std::vector<std::string_view>& words) {
  const Cursor text(whole);
  for (size_t at = 0, end; !text.at_end(at); at = end) {
    end = at;
    if (text.byte(at) == '\'') end = contraction(text, at, false);
    if (end == at) {
      // A single space belongs to the letters, digits or symbols after it.
      const Char first = text.at(at);
      const size_t body = first.code == ' ' ? at + 1 : at;
      const CharClass type = text.at_end(body) ? CharClass::space : text.at(body).type;
      if (type != CharClass::space)
        end = text.run(body, type);
      else
        end = text.space(at, text.run(at, CharClass::space));
    }
    words.push_back(text.slice(at, end));
  }
}

namespace {

// \s*[\r\n]+|\s+(?!\S)|\s+ at white space.
size_t llama3_space(const Cursor& text, size_t at) {
  const size_t end = text.run(at, CharClass::space);
  for (size_t i = end; i > at; --i)
    if (text.byte(i - 1) == '\n' || text.byte(i - 1) == '\r') return i;
  return text.space(at, end);
}

size_t llama3_digits(const Cursor& text, size_t at, int max_digits) {
  for (int n = 0; n < max_digits && text.is(at, CharClass::number); ++n) at += text.at(at).length;
  return at;
}

}  // namespace

void split_llama3(std::string_view whole, int max_digits, std::vector<std::string_view>& words) {
  const Cursor text(whole);
  for (size_t at = 0, end; !text.at_end(at); at = end) {
    end = at;
    if (text.byte(at) == '\'') end = contraction(text, at, true);
    if (end == at) {
      const Char first = text.at(at);
      const size_t next = at + first.length;
      const bool line_end = first.code == '\r' || first.code == '\n';
      if (first.type == CharClass::letter) {
        end = text.run(at, CharClass::letter);
      } else if (first.type == CharClass::number) {
        end = llama3_digits(text, at, max_digits);
      } else if (!line_end && text.is(next, CharClass::letter)) {
        end = text.run(next, CharClass::letter);
      } else if (first.type == CharClass::other || (first.code == ' ' && text.is(next, CharClass::other))) {
        end = text.run(next, CharClass::other);
        while (text.byte(end) == '\r' || text.byte(end) == '\n') ++end;
      } else {
        end = llama3_space(text, at);
      }
    }
    words.push_back(text.slice(at, end));
  }
}

}  // namespace mneme
