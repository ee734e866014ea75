#include "text/regex.h"

#include <unicode/regex.h>
#include <unicode/utext.h>

#include "core/fail.h"
#include "text/unicode.h"

namespace mneme {

namespace {

constexpr size_t kMaxPatternBytes = 32 << 10;
constexpr int32_t kStackBytes = 16 << 20;
constexpr int32_t kTimeUnits = 2000;  // of about a millisecond, per match

// Adds the characters that are newer than ICU to the properties of a pattern: \p{L} -> [\p{L}\x{1C89}-...].
std::string with_newer_characters(std::string_view pattern) {
  std::string out;
  for (size_t at = 0; at < pattern.size();) {
    const size_t close = pattern.find('}', at);
    if (pattern.substr(at).starts_with("\\p{") && close != std::string_view::npos) {
      const std::string_view property = pattern.substr(at, close + 1 - at);
      const std::string newer = newer_members(property.substr(3, property.size() - 4));
      out += newer.empty() ? std::string(property) : fmt::format("[{}{}]", property, newer);
      at = close + 1;
      continue;
    }
    const size_t length = pattern[at] == '\\' && at + 1 < pattern.size() ? 2 : 1;
    out.append(pattern.substr(at, length));
    at += length;
  }
  return out;
}

}  // namespace

struct Regex::Impl {
  std::string source;
  std::unique_ptr<icu::RegexPattern> pattern;
};

Regex::Regex(std::string_view pattern) : impl_(std::make_unique<Impl>()) {
  require(pattern.size() <= kMaxPatternBytes, ErrorCode::limit,
          "a regular expression of {} bytes is longer than the limit of {}", pattern.size(),
          kMaxPatternBytes);
  impl_->source = pattern;
  UParseError place{};
  UErrorCode status = U_ZERO_ERROR;
  const auto text = icu::UnicodeString::fromUTF8(with_newer_characters(pattern));
  // Oniguruma, the engine of the reference, takes only \n for a line end and lets ^ and $ match at lines.
  impl_->pattern.reset(icu::RegexPattern::compile(text, UREGEX_UNIX_LINES | UREGEX_MULTILINE, place, status));
  require(U_SUCCESS(status) && impl_->pattern, ErrorCode::unsupported,
          "the regular expression \"{}\" is not supported: {} at character {}", pattern, u_errorName(status),
          place.offset);
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;

void Regex::for_each_match(std::string_view text, const std::function<void(size_t, size_t)>& on_match) const {
  UErrorCode status = U_ZERO_ERROR;
  UText input = UTEXT_INITIALIZER;
  utext_openUTF8(&input, text.data(), static_cast<int64_t>(text.size()), &status);
  const std::unique_ptr<icu::RegexMatcher> matcher(impl_->pattern->matcher(status));
  if (U_SUCCESS(status)) {
    matcher->setStackLimit(kStackBytes, status);
    matcher->setTimeLimit(kTimeUnits, status);
    matcher->reset(&input);
    while (matcher->find(status) && U_SUCCESS(status))
      on_match(static_cast<size_t>(matcher->start64(status)), static_cast<size_t>(matcher->end64(status)));
  }
  utext_close(&input);
  require(U_SUCCESS(status), ErrorCode::limit,
          "the regular expression \"{}\" gave up on a text of {} bytes: {}", impl_->source, text.size(),
          status == U_REGEX_TIME_OUT         ? "it takes too long"
          : status == U_REGEX_STACK_OVERFLOW ? "it needs too much stack"
                                             : u_errorName(status));
}

}  // namespace mneme
