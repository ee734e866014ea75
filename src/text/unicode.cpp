#include "text/unicode.h"

#include <unicode/normalizer2.h>
#include <unicode/uniset.h>

#include <memory>

#include "core/fail.h"
#include "text/unicode_newer.h"
#include "text/utf8.h"

namespace mneme {

namespace {

// The last character of valid UTF-8.
Utf8Char last_char(std::string_view text) noexcept {
  size_t start = text.size() - 1;
  while (start > 0 && (static_cast<uint8_t>(text[start]) & 0xC0) == 0x80) --start;
  return decode_utf8(text.substr(start));
}

bool is_of_age(char32_t code, uint8_t major) noexcept {
  UVersionInfo age;
  u_charAge(static_cast<UChar32>(code), age);
  return age[0] != 0 && (age[0] < major || (age[0] == major && age[1] == 0));
}

// ICU's normalizers, kept away from characters younger than Unicode 9.
class Unicode9Normalizers {
 public:
  Unicode9Normalizers() {
    UErrorCode status = U_ZERO_ERROR;
    old_.applyPattern(icu::UnicodeString(u"[:age=9.0:]"), status);
    old_.freeze();
    const icu::Normalizer2* all[4] = {
        icu::Normalizer2::getNFCInstance(status), icu::Normalizer2::getNFDInstance(status),
        icu::Normalizer2::getNFKCInstance(status), icu::Normalizer2::getNFKDInstance(status)};
    require(U_SUCCESS(status), ErrorCode::internal, "ICU has no normalization data: {}", u_errorName(status));
    for (size_t i = 0; i < 4; ++i) forms_[i] = std::make_unique<icu::FilteredNormalizer2>(*all[i], old_);
  }
  const icu::Normalizer2& operator[](NormalForm form) const { return *forms_[static_cast<size_t>(form)]; }

 private:
  icu::UnicodeSet old_;
  std::unique_ptr<icu::FilteredNormalizer2> forms_[4];
};

const icu::Normalizer2& normalizer_of(NormalForm form) {
  static const Unicode9Normalizers normalizers;
  return normalizers[form];
}

}  // namespace

bool is_number(char32_t code) noexcept {
  return char_class(code) == CharClass::number || (code >= 0x11DE0 && code <= 0x11DE9) ||
         (code >= 0x16FF4 && code <= 0x16FF6);
}

bool is_mark(char32_t code) noexcept {
  if (code == 0x1CF2 || code == 0x1CF3) return true;  // marks until Unicode 12
  if (code == 0x111C9) return false;                  // a mark since Unicode 11
  return (U_GET_GC_MASK(static_cast<UChar32>(code)) & U_GC_M_MASK) != 0 && is_of_age(code, 9);
}

bool is_punctuation(char32_t code) noexcept {
  if (code < 0x80)
    return (code >= '!' && code <= '/') || (code >= ':' && code <= '@') || (code >= '[' && code <= '`') ||
           (code >= '{' && code <= '~');
  if (code == 0x166D || code == 0x111C9) return true;  // punctuation then, something else now
  return (U_GET_GC_MASK(static_cast<UChar32>(code)) & U_GC_P_MASK) != 0 && is_of_age(code, 8);
}

bool is_word(char32_t code) noexcept {
  const auto c = static_cast<UChar32>(code);
  const uint32_t mask = U_GET_GC_MASK(c);
  return (mask & (U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK)) != 0 ||
         ((mask & U_GC_CN_MASK) != 0 && is_newer_word(code)) || u_hasBinaryProperty(c, UCHAR_ALPHABETIC) ||
         code == 0x200C || code == 0x200D;
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
      append_utf8(out, newer_lower(static_cast<char32_t>(u_tolower(static_cast<UChar32>(c.code)))));
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
