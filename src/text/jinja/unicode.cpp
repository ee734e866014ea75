// Code points by hand, case and categories by ICU.
#include "text/jinja/unicode.h"

#include <unicode/locid.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>
#include <unicode/utf8.h>

#include <algorithm>

namespace mneme::jinja {

namespace {

/// Decodes one code point; returns its bytes (1 for an invalid byte, with code = U+FFFD).
size_t decode(std::string_view text, size_t at, char32_t& code) {
  const auto lead = static_cast<unsigned char>(text[at]);
  if (lead < 0x80) return code = lead, 1;
  int32_t offset = 0;
  const auto length = static_cast<int32_t>(std::min<size_t>(text.size() - at, 4));
  UChar32 decoded = 0;
  U8_NEXT(reinterpret_cast<const uint8_t*>(text.data() + at), offset, length, decoded);
  if (decoded < 0) return code = 0xFFFD, 1;
  return code = static_cast<char32_t>(decoded), static_cast<size_t>(offset);
}

std::string from_icu(const icu::UnicodeString& text) {
  std::string out;
  return text.toUTF8String(out);
}

icu::UnicodeString to_icu(std::string_view text) {
  return icu::UnicodeString::fromUTF8(icu::StringPiece(text.data(), static_cast<int32_t>(text.size())));
}

std::string title_one(char32_t code) {
  std::string one;
  append_utf8(one, code);
  icu::UnicodeString text = to_icu(one);
  return from_icu(text.toTitle(nullptr, icu::Locale::getRoot(), U_TITLECASE_NO_BREAK_ADJUSTMENT));
}

bool is_line_end(char32_t code) {
  return (code >= '\n' && code <= '\r') || (code >= 0x1C && code <= 0x1E) || code == 0x85 || code == 0x2028 ||
         code == 0x2029;
}

}  // namespace

size_t code_point_bytes(std::string_view text, size_t at) {
  char32_t code = 0;
  return decode(text, at, code);
}

char32_t code_point(std::string_view text, size_t at) {
  char32_t code = 0;
  decode(text, at, code);
  return code;
}

size_t code_point_count(std::string_view text) {
  size_t count = 0;
  for (size_t at = 0; at < text.size(); at += code_point_bytes(text, at)) ++count;
  return count;
}

std::vector<std::string_view> code_points(std::string_view text) {
  std::vector<std::string_view> out;
  for (size_t at = 0; at < text.size(); at += out.back().size())
    out.push_back(text.substr(at, code_point_bytes(text, at)));
  return out;
}

void append_utf8(std::string& out, char32_t code) {
  uint8_t bytes[U8_MAX_LENGTH];
  int32_t length = 0;
  UBool error = false;
  U8_APPEND(bytes, length, U8_MAX_LENGTH, static_cast<UChar32>(code), error);
  if (error)
    out += "\xEF\xBF\xBD";
  else
    out.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(length));
}

bool is_space(char32_t code) {
  return (code >= '\t' && code <= '\r') || (code >= 0x1C && code <= 0x20) || code == 0x85 || code == 0xA0 ||
         code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 ||
         code == 0x202F || code == 0x205F || code == 0x3000;
}

bool is_printable(char32_t code) {
  if (code == ' ') return true;
  return (U_GET_GC_MASK(static_cast<UChar32>(code)) & (U_GC_C_MASK | U_GC_Z_MASK)) == 0;
}

bool is_alpha(char32_t code) {
  return (U_GET_GC_MASK(static_cast<UChar32>(code)) & U_GC_L_MASK) != 0;
}
bool is_digit(char32_t code) {
  const int32_t type = u_getIntPropertyValue(static_cast<UChar32>(code), UCHAR_NUMERIC_TYPE);
  return type == U_NT_DECIMAL || type == U_NT_DIGIT;
}
bool is_cased(char32_t code) {
  return u_hasBinaryProperty(static_cast<UChar32>(code), UCHAR_CASED);
}

std::string upper(std::string_view text) {
  return from_icu(to_icu(text).toUpper(icu::Locale::getRoot()));
}
std::string lower(std::string_view text) {
  return from_icu(to_icu(text).toLower(icu::Locale::getRoot()));
}

std::string capitalize(std::string_view text) {
  if (text.empty()) return {};
  const size_t first = code_point_bytes(text, 0);
  // The whole text is lowered, so that a final sigma sees the letter before it.
  const std::string lowered = lower(text);
  const std::string lowered_first = lower(text.substr(0, first));
  return title_one(code_point(text, 0)) + lowered.substr(std::min(lowered_first.size(), lowered.size()));
}

std::string title_words(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    char32_t code = 0;
    const size_t bytes = decode(text, at, code);
    if (!is_cased(code)) {
      out.append(text.substr(at, bytes));
      at += bytes;
      continue;
    }
    size_t end = at;  // of the run of cased characters
    while (end < text.size() && is_cased(code_point(text, end))) end += code_point_bytes(text, end);
    out += title_one(code);
    const std::string lowered = lower(text.substr(at, end - at));
    out += lowered.substr(std::min(lower(text.substr(at, bytes)).size(), lowered.size()));
    at = end;
  }
  return out;
}

std::string_view strip(std::string_view text, const std::string_view* chars, bool left, bool right) {
  const auto drop = [&](std::string_view one) {
    if (!chars) return is_space(code_point(one, 0));
    for (size_t at = 0; at < chars->size(); at += code_point_bytes(*chars, at))
      if (chars->substr(at, code_point_bytes(*chars, at)) == one) return true;
    return false;
  };
  while (left && !text.empty()) {
    const size_t bytes = code_point_bytes(text, 0);
    if (!drop(text.substr(0, bytes))) break;
    text.remove_prefix(bytes);
  }
  while (right && !text.empty()) {
    size_t start = text.size() - 1;  // of the last code point: back over at most three continuation bytes
    for (int back = 0; back < 3 && start > 0 && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80;
         ++back)
      --start;
    if (start + code_point_bytes(text, start) != text.size()) start = text.size() - 1;
    if (!drop(text.substr(start))) break;
    text.remove_suffix(text.size() - start);
  }
  return text;
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> out;
  size_t start = 0;
  for (size_t at = 0; at < text.size();) {
    char32_t code = 0;
    size_t bytes = decode(text, at, code);
    if (is_line_end(code)) {
      if (code == '\r' && at + 1 < text.size() && text[at + 1] == '\n') bytes = 2;
      out.push_back(text.substr(start, (keep_ends ? at + bytes : at) - start));
      start = at + bytes;
    }
    at += bytes;
  }
  if (start < text.size()) out.push_back(text.substr(start));
  return out;
}

}  // namespace mneme::jinja
