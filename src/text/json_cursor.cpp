#include "text/json_cursor.h"

#include <charconv>
#include <cmath>

#include "core/fail.h"
#include "text/utf8.h"

namespace mneme {

void JsonCursor::error(std::string_view expected) const {
  fail(ErrorCode::corrupt, "{} is not as it should be at byte {}: expected {}", what_, at_, expected);
}

char JsonCursor::peek() noexcept {
  while (at_ < text_.size()) {
    const char c = text_[at_];
    if (c != ' ' && c != '\n' && c != '\t' && c != '\r') return c;
    ++at_;
  }
  return '\0';
}

bool JsonCursor::accept(char c) noexcept {
  if (peek() != c || at_ >= text_.size()) return false;
  ++at_;
  return true;
}

void JsonCursor::expect(char c) {
  if (!accept(c)) error(fmt::format("'{}'", c));
}

std::string_view JsonCursor::string() {
  expect('"');
  const size_t begin = at_;
  while (at_ < text_.size() && text_[at_] != '"' && text_[at_] != '\\') ++at_;
  if (at_ < text_.size() && text_[at_] == '"') return text_.substr(begin, at_++ - begin);
  std::string& out = unescaped_.emplace_back(text_.substr(begin, at_ - begin));
  while (at_ < text_.size() && text_[at_] != '"') {
    if (text_[at_] == '\\')
      append_escape(out);
    else
      out.push_back(text_[at_++]);
  }
  if (at_ >= text_.size()) error("the end of a string");
  ++at_;
  return out;
}

uint32_t JsonCursor::hex4() {
  if (at_ + 4 > text_.size()) error("four hexadecimal digits");
  uint32_t value = 0;
  const char* end = text_.data() + at_ + 4;
  const auto [parsed, status] = std::from_chars(text_.data() + at_, end, value, 16);
  if (status != std::errc{} || parsed != end) error("four hexadecimal digits");
  at_ += 4;
  return value;
}

void JsonCursor::append_escape(std::string& out) {
  ++at_;
  if (at_ >= text_.size()) error("an escape sequence");
  constexpr std::string_view kNames = "\"\\/bfnrt", kValues = "\"\\/\b\f\n\r\t";
  const char c = text_[at_++];
  if (const size_t index = kNames.find(c); index != std::string_view::npos) {
    out.push_back(kValues[index]);
    return;
  }
  if (c != 'u') error("an escape sequence");
  char32_t code = hex4();
  if (code >= 0xD800 && code < 0xDC00) {
    if (at_ + 2 > text_.size() || text_[at_] != '\\' || text_[at_ + 1] != 'u') error("a low surrogate");
    at_ += 2;
    const uint32_t low = hex4();
    if (low < 0xDC00 || low >= 0xE000) error("a low surrogate");
    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
  } else if (code >= 0xDC00 && code < 0xE000) {
    error("no low surrogate on its own");
  }
  append_utf8(out, code);
}

int64_t JsonCursor::integer() {
  peek();
  int64_t value = 0;
  const auto [end, status] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), value);
  if (status != std::errc{}) error("an integer");
  at_ = static_cast<size_t>(end - text_.data());
  return value;
}

double JsonCursor::number() {
  peek();
  double value = 0;
  const auto [end, status] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), value);
  if (status != std::errc{} || !std::isfinite(value)) error("a number");
  at_ = static_cast<size_t>(end - text_.data());
  return value;
}

void JsonCursor::skip() {
  int64_t open = 0;
  do {
    switch (const char c = peek()) {
      case '"':
        ++at_;
        while (at_ < text_.size() && text_[at_] != '"') at_ += text_[at_] == '\\' ? 2 : 1;
        if (at_ >= text_.size()) error("the end of a string");
        ++at_;
        break;
      case '\0':
        error("a value");
      default:
        open += (c == '{' || c == '[') - (c == '}' || c == ']');
        if (open < 0) error("a value");
        ++at_;
        if (open > 0 || c == '}' || c == ']') break;
        while (at_ < text_.size() &&
               std::string_view(",]} \n\r\t").find(text_[at_]) == std::string_view::npos)
          ++at_;
    }
  } while (open > 0);
}

}  // namespace mneme
