// Template source to tokens, with the white-space rules that transformers sets (trim_blocks and
// lstrip_blocks):
//  - the first newline after a block tag or a comment is dropped, unless the tag ends in `+%}`;
//  - spaces and tabs between the start of a line and a block tag or comment are dropped, unless it starts
//  `{%+`;
//  - `-` next to a tag's brackets drops all white space on that side, of {{ }} too;
//  - line ends become \n, and one newline at the end of the source is dropped.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mneme::jinja {

enum class TokenKind : uint8_t {
  data,         // literal text outside tags
  block_begin,  // {%
  block_end,    // %}
  print_begin,  // {{
  print_end,    // }}
  name,
  string,  // text holds the unescaped content
  integer,
  real,
  op,  // text holds the operator
  end
};

struct Token {
  TokenKind kind = TokenKind::end;
  int line = 1;
  std::string text;
  int64_t integer = 0;
  double real = 0;
};

/// Throws Error(corrupt) for malformed source and Error(unsupported) for what lies outside the subset, naming
/// the line.
std::vector<Token> tokenize(std::string_view source);

}  // namespace mneme::jinja
