// Characters that joined Unicode after version 15 (see unicode.h), beyond the classes.
#pragma once
namespace mneme {

/// \w of Unicode 16.
bool is_newer_word(char32_t code) noexcept;
/// Lower case of the capital letters of Unicode 16 and 17; any other character unchanged.
char32_t newer_lower(char32_t code) noexcept;

}  // namespace mneme
