// Text as Python's str sees it: code points, Unicode white space and case. Input is UTF-8; a byte that is no
// valid UTF-8 counts as one code point of its own and is passed through unchanged.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mneme::jinja {

/// Length in bytes of the code point at `at`, which must be inside the text.
size_t code_point_bytes(std::string_view text, size_t at);
/// The code point at `at`; an invalid byte yields U+FFFD.
char32_t code_point(std::string_view text, size_t at);
size_t code_point_count(std::string_view text);
/// One view per code point.
std::vector<std::string_view> code_points(std::string_view text);
void append_utf8(std::string& out, char32_t code);

bool is_space(char32_t code);      // str.isspace of one character
bool is_printable(char32_t code);  // str.isprintable of one character
bool is_alpha(char32_t code);
bool is_digit(char32_t code);
bool is_cased(char32_t code);

std::string upper(std::string_view text);
std::string lower(std::string_view text);
std::string capitalize(std::string_view text);   // str.capitalize
std::string title_words(std::string_view text);  // str.title

/// Removes characters from the left and/or right: white space, or those in `chars` if it is not null.
std::string_view strip(std::string_view text, const std::string_view* chars, bool left, bool right);
/// str.splitlines(keepends).
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends);

}  // namespace mneme::jinja
