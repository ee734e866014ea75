#include "text/unicode.h"

#include <unicode/normalizer2.h>

#include "core/fail.h"
#include "text/utf8.h"

namespace mneme {

namespace {

// The last character of valid UTF-8.
Utf8Char last_char(std::string_view text) noexcept {
  size_t start = text.size() - 1;
  while (start > 0 && (static_cast<uint8_t>(text[start]) & 0xC0) == 0x80) --start;
  return decode_utf8(text.substr(start));
}

const icu::Normalizer2& normalizer_of(NormalForm form) {
  UErrorCode status = U_ZERO_ERROR;
  const icu::Normalizer2* normalizer = nullptr;
  switch (form) {
    case NormalForm::nfc:
      normalizer = icu::Normalizer2::getNFCInstance(status);
      break;
    case NormalForm::nfd:
      normalizer = icu::Normalizer2::getNFDInstance(status);
      break;
    case NormalForm::nfkc:
      normalizer = icu::Normalizer2::getNFKCInstance(status);
      break;
    case NormalForm::nfkd:
      normalizer = icu::Normalizer2::getNFKDInstance(status);
      break;
  }
  require(U_SUCCESS(status) && normalizer, ErrorCode::internal, "ICU has no normalization data: {}",
          u_errorName(status));
  return *normalizer;
}

}  // namespace

bool is_punctuation(char32_t code) noexcept {
  if (code < 0x80)
    return (code >= '!' && code <= '/') || (code >= ':' && code <= '@') || (code >= '[' && code <= '`') ||
           (code >= '{' && code <= '~');
  return (U_GET_GC_MASK(static_cast<UChar32>(code)) & U_GC_P_MASK) != 0;
}

bool is_word(char32_t code) noexcept {
  const auto c = static_cast<UChar32>(code);
  return (U_GET_GC_MASK(c) & (U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK)) != 0 ||
         u_hasBinaryProperty(c, UCHAR_ALPHABETIC) || code == 0x200C || code == 0x200D;
}

std::string normalize_utf8(std::string_view text, NormalForm form) {
  const icu::Normalizer2& normalizer = normalizer_of(form);
  std::string out;
  out.reserve(text.size());
  icu::StringByteSink<std::string> sink(&out);
  UErrorCode status = U_ZERO_ERROR;
  normalizer.normalizeUTF8(0, icu::StringPiece(text.data(), static_cast<int32_t>(text.size())), sink, nullptr,
                           status);
  require(U_SUCCESS(status), ErrorCode::internal, "ICU could not normalize a text: {}", u_errorName(status));
  return out;
}

std::string lowercase_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Utf8Char c = decode_utf8(text);
    text.remove_prefix(c.length);
    if (c.code == 0x130)
      out += "i\u0307";  // the one character whose lower case is two
    else
      append_utf8(out, static_cast<char32_t>(u_tolower(static_cast<UChar32>(c.code))));
  }
  return out;
}

bool starts_with_word(std::string_view text) noexcept {
  return !text.empty() && is_word(decode_utf8(text).code);
}

bool ends_with_word(std::string_view text) noexcept {
  return !text.empty() && is_word(last_char(text).code);
}

size_t leading_space(std::string_view text) noexcept {
  size_t used = 0;
  while (used < text.size()) {
    const Utf8Char c = decode_utf8(text.substr(used));
    if (!is_space(c.code)) break;
    used += c.length;
  }
  return used;
}

size_t trailing_space(std::string_view text) noexcept {
  size_t used = 0;
  while (used < text.size()) {
    const Utf8Char c = last_char(text.substr(0, text.size() - used));
    if (!is_space(c.code)) break;
    used += c.length;
  }
  return used;
}

}  // namespace mneme
