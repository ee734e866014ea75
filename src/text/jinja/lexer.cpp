// The lexer: a scanner over text that switches to tag mode at {{, {%, and skips {# #}.
#include "text/jinja/lexer.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/fail.h"
#include "text/jinja/unicode.h"

namespace mneme::jinja {

namespace {

bool is_name_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}
bool is_digit_char(char c) {
  return c >= '0' && c <= '9';
}

/// \r\n and \r become \n; one trailing newline goes away.
std::string normalize_newlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : text_(normalize_newlines(source)), source_(text_) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) scan_text();
    add(TokenKind::end, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void bad(std::string_view what) const {
    fail(ErrorCode::corrupt, "chat template line {}: {}", line_, what);
  }

  void add(TokenKind kind, std::string_view text) {
    Token token;
    token.kind = kind;
    token.line = line_;
    token.text = text;
    tokens_.push_back(std::move(token));
  }

  bool looking_at(std::string_view what) const { return source_.substr(at_).starts_with(what); }

  void advance(size_t bytes) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(at_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(at_ + bytes), '\n'));
    at_ += bytes;
  }

  void skip_spaces() {
    while (at_ < source_.size() && is_space(code_point(source_, at_)))
      advance(code_point_bytes(source_, at_));
  }

  /// Position of the next {{, {% or {#, or the end.
  size_t find_tag() const {
    for (size_t at = source_.find('{', at_); at != std::string_view::npos; at = source_.find('{', at + 1))
      if (at + 1 < source_.size() &&
          (source_[at + 1] == '{' || source_[at + 1] == '%' || source_[at + 1] == '#'))
        return at;
    return source_.size();
  }

  /// Literal text up to `tag`, trimmed at its end as the tag's sign ('-', '+' or 0) says.
  void add_text_before(size_t tag, char sign, bool is_print) {
    std::string_view text = source_.substr(at_, tag - at_);
    if (sign == '-') {
      text = strip(text, nullptr, false, true);
    } else if (sign != '+' && !is_print) {
      const size_t newline = text.rfind('\n');
      const size_t start = newline == std::string_view::npos ? 0 : newline + 1;
      const bool at_line_start = start > 0 || at_ == 0 || source_[at_ - 1] == '\n';
      const std::string_view tail = text.substr(start);
      if (at_line_start && strip(tail, nullptr, true, false).empty()) text = text.substr(0, start);
    }
    if (!text.empty()) add(TokenKind::data, text);
    advance(tag - at_);
  }

  char sign_at(size_t at) const {
    return at < source_.size() && (source_[at] == '-' || source_[at] == '+') ? source_[at] : '\0';
  }

  void scan_text() {
    const size_t tag = find_tag();
    if (tag == source_.size()) {
      add(TokenKind::data, source_.substr(at_));
      advance(tag - at_);
      return;
    }
    const char kind = source_[tag + 1];
    const char sign = sign_at(tag + 2);
    add_text_before(tag, sign, kind == '{');
    advance(sign ? 3 : 2);
    if (kind == '#') return scan_comment();
    if (kind == '%' && starts_raw()) return scan_raw();
    add(kind == '{' ? TokenKind::print_begin : TokenKind::block_begin, "");
    scan_tag(kind == '{');
  }

  /// After the closing bracket of a block or comment: `sign` is what stood before it.
  void after_block(char sign) {
    if (sign == '-')
      skip_spaces();
    else if (sign != '+' && looking_at("\n"))
      advance(1);
  }

  void scan_comment() {
    const size_t end = source_.find("#}", at_);
    if (end == std::string_view::npos) bad("a comment {# is not closed by #}");
    const char sign = end > at_ ? sign_at(end - 1) : '\0';
    advance(end + 2 - at_);
    after_block(sign);
  }

  /// Whether a raw tag starts here; if so, moves behind it.
  bool starts_raw() {
    size_t at = at_;
    const auto spaces = [&] {
      while (at < source_.size() && is_space(code_point(source_, at))) at += code_point_bytes(source_, at);
    };
    spaces();
    if (!source_.substr(at).starts_with("raw")) return false;
    at += 3;
    spaces();
    const bool minus = at < source_.size() && source_[at] == '-';
    if (!source_.substr(at + minus).starts_with("%}")) return false;
    advance(at + minus + 2 - at_);
    if (minus) skip_spaces();  // trim_blocks does not reach the start of a raw block
    return true;
  }

  void scan_raw() {
    for (size_t tag = source_.find("{%", at_); tag != std::string_view::npos;
         tag = source_.find("{%", tag + 1)) {
      const char open_sign = sign_at(tag + 2);
      size_t at = tag + 2 + (open_sign != 0);
      const auto spaces = [&] {
        while (at < source_.size() && is_space(code_point(source_, at))) at += code_point_bytes(source_, at);
      };
      spaces();
      if (!source_.substr(at).starts_with("endraw")) continue;
      at += 6;
      spaces();
      const char close_sign = sign_at(at);
      at += close_sign != 0;
      if (!source_.substr(at).starts_with("%}")) continue;
      add_text_before(tag, open_sign, false);
      advance(at + 2 - at_);
      after_block(close_sign);
      return;
    }
    bad("{% raw %} is not closed by {% endraw %}");
  }

  /// Tokens up to and including the closing bracket.
  void scan_tag(bool is_print) {
    const std::string_view closer = is_print ? "}}" : "%}";
    std::string open;  // brackets inside the tag
    for (;;) {
      skip_spaces();
      if (at_ >= source_.size()) bad(is_print ? "{{ is not closed by }}" : "{% is not closed by %}");
      const char sign = sign_at(at_);
      const bool signed_end =
          sign != 0 && (sign == '-' || !is_print) && source_.substr(at_ + 1).starts_with(closer);
      if (open.empty() && (signed_end || looking_at(closer))) {
        add(is_print ? TokenKind::print_end : TokenKind::block_end, "");
        advance(signed_end ? 3 : 2);
        if (!is_print)
          after_block(signed_end ? sign : '\0');
        else if (signed_end)
          skip_spaces();
        return;
      }
      scan_token(open);
    }
  }

  void scan_token(std::string& open) {
    const char c = source_[at_];
    if (is_name_start(c)) {
      size_t end = at_;
      while (end < source_.size() && (is_name_start(source_[end]) || is_digit_char(source_[end]))) ++end;
      add(TokenKind::name, source_.substr(at_, end - at_));
      advance(end - at_);
    } else if (is_digit_char(c)) {
      scan_number();
    } else if (c == '\'' || c == '"') {
      scan_string(c);
    } else {
      scan_operator(open);
    }
  }

  void scan_operator(std::string& open) {
    static constexpr std::string_view kOperators[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                                      "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                                      ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};
    for (const std::string_view op : kOperators) {
      if (!looking_at(op)) continue;
      if (op == "[" || op == "(" || op == "{") open += op;
      if (op == "]" || op == ")" || op == "}") {
        const char expected = op == "]" ? '[' : op == ")" ? '(' : '{';
        if (open.empty() || open.back() != expected) bad(fmt::format("unexpected '{}'", op));
        open.pop_back();
      }
      add(TokenKind::op, op);
      advance(op.size());
      return;
    }
    bad(fmt::format("unexpected character '{}' in a tag",
                    source_.substr(at_, code_point_bytes(source_, at_))));
  }

  /// Decimal integers and floats; `_` may separate digits. Other bases are outside the subset.
  void scan_number() {
    const auto digits = [&](size_t at) {
      while (at < source_.size() &&
             (is_digit_char(source_[at]) ||
              (source_[at] == '_' && at + 1 < source_.size() && is_digit_char(source_[at + 1]))))
        ++at;
      return at;
    };
    size_t end = digits(at_);
    bool real = false;
    if (end + 1 < source_.size() && source_[end] == '.' && is_digit_char(source_[end + 1])) {
      end = digits(end + 1);
      real = true;
    }
    if (end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
      const size_t sign =
          end + 1 < source_.size() && (source_[end + 1] == '+' || source_[end + 1] == '-') ? 1 : 0;
      if (end + 1 + sign < source_.size() && is_digit_char(source_[end + 1 + sign])) {
        end = digits(end + 1 + sign);
        real = true;
      }
    }
    // A number directly after `.` is an index (x.0.1), never a fraction.
    if (real && at_ > 0 && source_[at_ - 1] == '.') {
      end = digits(at_);
      real = false;
    }
    std::string text;
    std::copy_if(source_.begin() + static_cast<std::ptrdiff_t>(at_),
                 source_.begin() + static_cast<std::ptrdiff_t>(end), std::back_inserter(text),
                 [](char c) { return c != '_'; });
    if (!real && text.size() > 1 && text[0] == '0')
      fail(ErrorCode::unsupported, "chat template line {}: the number {} starts with 0", line_, text);
    if (end < source_.size() && is_name_start(source_[end]))
      fail(ErrorCode::unsupported, "chat template line {}: the number {}{}... is not decimal", line_, text,
           source_[end]);
    add(real ? TokenKind::real : TokenKind::integer, text);
    Token& token = tokens_.back();
    const char* last = text.data() + text.size();
    const auto result = real ? std::from_chars(text.data(), last, token.real)
                             : std::from_chars(text.data(), last, token.integer);
    if (result.ec == std::errc::result_out_of_range)
      fail(ErrorCode::unsupported, "chat template line {}: the number {} does not fit 64 bits", line_, text);
    advance(end - at_);
  }

  void scan_string(char quote) {
    size_t end = at_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) bad("a string is not closed");
    const std::string text = unescape(source_.substr(at_ + 1, end - at_ - 1));
    add(TokenKind::string, text);
    advance(end + 1 - at_);
  }

  /// Python's escapes. A backslash before anything else stays.
  std::string unescape(std::string_view text) const {
    std::string out;
    for (size_t i = 0; i < text.size(); ++i) {
      if (text[i] != '\\' || i + 1 >= text.size()) {
        out += text[i];
        continue;
      }
      static constexpr std::string_view kFrom = "\\'\"abfnrtv";
      static constexpr std::string_view kTo = "\\'\"\a\b\f\n\r\t\v";
      const char c = text[++i];
      if (const size_t known = kFrom.find(c); known != std::string_view::npos)
        out += kTo[known];
      else if (c >= '0' && c <= '7')
        i = octal(out, text, i);
      else if (c == 'x' || c == 'u' || c == 'U')
        i = hexadecimal(out, text, i, c == 'x' ? 2 : c == 'u' ? 4 : 8);
      else if (c == 'N')
        fail(ErrorCode::unsupported, "chat template line {}: the escape \\N{{...}} in a string", line_);
      else if (c != '\n')
        out += {'\\', c};
    }
    return out;
  }

  static size_t octal(std::string& out, std::string_view text, size_t at) {
    char32_t code = 0;
    size_t end = at;
    while (end < text.size() && end < at + 3 && text[end] >= '0' && text[end] <= '7')
      code = code * 8 + static_cast<char32_t>(text[end++] - '0');
    append_utf8(out, code);
    return end - 1;
  }

  size_t hexadecimal(std::string& out, std::string_view text, size_t at, size_t digits) const {
    uint32_t code = 0;
    const char* first = text.data() + at + 1;
    if (at + 1 + digits > text.size()) bad("a string has a truncated \\ escape");
    if (std::from_chars(first, first + digits, code, 16).ptr != first + digits || code > 0x10FFFF)
      bad("a string has a malformed \\ escape");
    if (code >= 0xD800 && code < 0xE000)
      fail(ErrorCode::unsupported, "chat template line {}: a surrogate escape in a string", line_);
    append_utf8(out, code);
    return at + digits;
  }

  std::string text_;
  std::string_view source_;
  size_t at_ = 0;
  int line_ = 1;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) {
  return Lexer(source).run();
}

}  // namespace mneme::jinja
