#include "text/unicode_newer.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "text/unicode.h"

namespace mneme {

namespace {

struct Range {
  char32_t first, last;
};

// Unicode 15.1 and 16, DerivedGeneralCategory: what is unassigned in Unicode 15.0.
constexpr Range kLetters[] = {{0x1C89, 0x1C8A},   {0xA7CB, 0xA7CD},   {0xA7DA, 0xA7DC},   {0x105C0, 0x105F3},
                              {0x10D4A, 0x10D65}, {0x10D6F, 0x10D85}, {0x10EC2, 0x10EC4}, {0x11380, 0x11389},
                              {0x1138B, 0x1138B}, {0x1138E, 0x1138E}, {0x11390, 0x113B5}, {0x113B7, 0x113B7},
                              {0x113D1, 0x113D1}, {0x113D3, 0x113D3}, {0x11BC0, 0x11BE0}, {0x13460, 0x143FA},
                              {0x16100, 0x1611D}, {0x16D40, 0x16D6C}, {0x18CFF, 0x18CFF}, {0x1E5D0, 0x1E5ED},
                              {0x1E5F0, 0x1E5F0}, {0x2EBF0, 0x2EE5D}};
constexpr Range kNumbers[] = {{0x10D40, 0x10D49}, {0x116D0, 0x116E3}, {0x11BF0, 0x11BF9}, {0x16130, 0x16139},
                              {0x16D70, 0x16D79}, {0x1CCF0, 0x1CCF9}, {0x1E5F1, 0x1E5FA}};
constexpr Range kPunctuation[] = {{0x1B4E, 0x1B4F},   {0x1B7F, 0x1B7F},   {0x10D6E, 0x10D6E},
                                  {0x113D4, 0x113D5}, {0x113D7, 0x113D8}, {0x11BE1, 0x11BE1},
                                  {0x16D6D, 0x16D6F}, {0x1E5FF, 0x1E5FF}};
constexpr Range kMarks[] = {{0x897, 0x897},     {0x10D69, 0x10D6D}, {0x10EFC, 0x10EFC}, {0x113B8, 0x113C0},
                            {0x113C2, 0x113C2}, {0x113C5, 0x113C5}, {0x113C7, 0x113CA}, {0x113CC, 0x113D0},
                            {0x113D2, 0x113D2}, {0x113E1, 0x113E2}, {0x11F5A, 0x11F5A}, {0x1611E, 0x1612F},
                            {0x1E5EE, 0x1E5EF}};
// The letters without case that are no modifiers, \p{Lo}.
constexpr Range kOtherLetters[] = {
    {0x105C0, 0x105F3}, {0x10D4A, 0x10D4D}, {0x10D4F, 0x10D4F}, {0x10EC2, 0x10EC4}, {0x11380, 0x11389},
    {0x1138B, 0x1138B}, {0x1138E, 0x1138E}, {0x11390, 0x113B5}, {0x113B7, 0x113B7}, {0x113D1, 0x113D1},
    {0x113D3, 0x113D3}, {0x11BC0, 0x11BE0}, {0x13460, 0x143FA}, {0x16100, 0x1611D}, {0x16D43, 0x16D6A},
    {0x18CFF, 0x18CFF}, {0x1E5D0, 0x1E5ED}, {0x1E5F0, 0x1E5F0}, {0x2EBF0, 0x2EE5D}};

bool contains(std::span<const Range> ranges, char32_t code) {
  const auto after = std::upper_bound(ranges.begin(), ranges.end(), code,
                                      [](char32_t c, const Range& range) { return c < range.first; });
  return after != ranges.begin() && code <= std::prev(after)->last;
}

}  // namespace

CharClass newer_class(char32_t code) noexcept {
  return contains(kLetters, code)   ? CharClass::letter
         : contains(kNumbers, code) ? CharClass::number
                                    : CharClass::other;
}

bool is_newer_word(char32_t code) noexcept {
  return contains(kLetters, code) || contains(kMarks, code) || contains(kNumbers, code);
}

char32_t newer_lower(char32_t code) noexcept {
  switch (code) {
    case 0x1C89:
    case 0xA7CC:
    case 0xA7CE:
    case 0xA7D2:
    case 0xA7D4:
    case 0xA7DA:
      return code + 1;
    case 0xA7CB:
      return 0x264;
    case 0xA7DC:
      return 0x19B;
    default:
      if (code >= 0x10D50 && code <= 0x10D65) return code + 0x20;
      if (code >= 0x16EA0 && code <= 0x16EB8) return code + 0x1B;
      return code;
  }
}

std::string newer_members(std::string_view property) {
  std::span<const Range> ranges;
  if (property == "L") ranges = kLetters;
  if (property == "Lo") ranges = kOtherLetters;
  if (property == "N") ranges = kNumbers;
  if (property == "P") ranges = kPunctuation;
  if (property == "M") ranges = kMarks;
  std::string out;
  for (const Range& range : ranges)
    out += fmt::format("\\x{{{:X}}}-\\x{{{:X}}}", uint32_t{range.first}, uint32_t{range.last});
  return out;
}

}  // namespace mneme
