// UTF-8 as tokenizers need it: decoding that never fails, repair that equals Python's errors="replace", and
// encoding of single code points. An invalid sequence is replaced per "maximal subpart" (Unicode 15, §3.9,
// table 3-8): E1 80 followed by a space is one U+FFFD, a surrogate ED A0 80 is three.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace mneme {

inline constexpr char32_t kReplacement = 0xFFFD;

struct Utf8Char {
  char32_t code;    // U+FFFD when the bytes are not UTF-8
  uint32_t length;  // bytes used, at least 1
  bool valid;
};

/// The character that begins at text[0]. text must not be empty.
Utf8Char decode_utf8(std::string_view text) noexcept;

/// How many bytes at the end of `text` are the beginning of a character that more bytes could complete (0-3).
size_t unfinished_utf8(std::string_view text) noexcept;

bool is_valid_utf8(std::string_view text) noexcept;

/// Copy of `text` in which each invalid sequence has become U+FFFD.
std::string repair_utf8(std::string_view text);

void append_utf8(std::string& out, char32_t code);

}  // namespace mneme
