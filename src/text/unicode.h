// The few Unicode questions that tokenizers ask, answered from ICU's character database.
#pragma once
#include <unicode/uchar.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace mneme {

/// Classes of the pre-tokenizers: \p{L}, \p{N}, \s (White_Space) and everything else.
enum class CharClass : uint8_t { other, letter, number, space };

// The reference counts characters of Unicode 16 that ICU 72 (Unicode 15) does not know yet. These tables hold
// them; they are asked only for characters that ICU calls unassigned, so a newer ICU makes them idle.
CharClass newer_class(char32_t code) noexcept;
/// Newer members of the properties L, Lo, N, P and M as they stand inside a bracket expression, e.g.
/// "\x{1C89}-\x{1C8A}"; empty for other names.
std::string newer_members(std::string_view property);

/// White_Space is exactly the separators Z* plus six controls, so the general category decides.
inline CharClass char_class(char32_t code) noexcept {
  const uint32_t mask = U_GET_GC_MASK(static_cast<UChar32>(code));
  if (mask & U_GC_L_MASK) return CharClass::letter;
  if (mask & U_GC_N_MASK) return CharClass::number;
  if (mask & U_GC_CN_MASK) return newer_class(code);
  if ((mask & U_GC_Z_MASK) || (code >= 0x09 && code <= 0x0D) || code == 0x85) return CharClass::space;
  return CharClass::other;
}

inline bool is_space(char32_t code) noexcept {
  return char_class(code) == CharClass::space;
}
/// \p{N}, for the Digits pre-tokenizer (whose reference follows Unicode 17).
bool is_number(char32_t code) noexcept;
/// \p{M} as of Unicode 9, which the reference's StripAccents and normal forms follow.
bool is_mark(char32_t code) noexcept;
/// ASCII punctuation and symbols, and \p{P} as of Unicode 8, which the reference's Punctuation follows.
bool is_punctuation(char32_t code) noexcept;
/// \w: alphabetic, mark, decimal digit, connector punctuation, join control.
bool is_word(char32_t code) noexcept;

enum class NormalForm { nfc, nfd, nfkc, nfkd };
/// Normalizes valid UTF-8 by the rules of Unicode 9: later characters stay as they are, as in the reference.
/// Throws Error(internal) if ICU's data cannot be had.
std::string normalize_utf8(std::string_view text, NormalForm form);

/// Lower case character by character, without context (as Rust's char::to_lowercase).
std::string lowercase_utf8(std::string_view text);

/// True if the character at the start (end) of `text` is a word character; false for an empty text.
bool starts_with_word(std::string_view text) noexcept;
bool ends_with_word(std::string_view text) noexcept;
/// Bytes of white space at the start (end) of `text`.
size_t leading_space(std::string_view text) noexcept;
size_t trailing_space(std::string_view text) noexcept;

}  // namespace mneme
