#include "text/normalizer.h"

#include <algorithm>

#include "core/fail.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace mneme {

namespace {

using Kind = NormalizerStep::Kind;

constexpr size_t kMaxGrowth = 64;  // no real normalizer grows a text more than 18 times (U+FDFA under NFKC)

std::string strip(std::string_view text, bool left, bool right) {
  if (left) text.remove_prefix(leading_space(text));
  if (right) text.remove_suffix(trailing_space(text));
  return std::string(text);
}

std::string strip_accents(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Utf8Char c = decode_utf8(text);
    if (!is_mark(c.code)) out.append(text.substr(0, c.length));
    text.remove_prefix(c.length);
  }
  return out;
}

std::string replace_matches(std::string_view text, const Regex& regex, std::string_view content) {
  std::string out;
  size_t done = 0;
  regex.for_each_match(text, [&](size_t begin, size_t end) {
    out.append(text.substr(done, begin - done)).append(content);
    done = end;
  });
  return out.append(text.substr(done));
}

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<uint8_t>(c) < 0x80; });
}

}  // namespace

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  if (from.empty()) return std::string(text);
  out.reserve(text.size() + text.size() / 4);
  size_t done = 0;
  for (size_t at; (at = text.find(from, done)) != std::string_view::npos; done = at + from.size())
    out.append(text.substr(done, at - done)).append(to);
  return out.append(text.substr(done));
}

Normalizer::Normalizer(std::vector<NormalizerStep> steps) : steps_(std::move(steps)) {
  for (const NormalizerStep& step : steps_) {
    regexes_.push_back(step.kind == Kind::replace_regex ? std::make_unique<Regex>(step.pattern) : nullptr);
    if (step.kind == Kind::precompiled) check_character_map(step.pattern);
  }
}

std::string Normalizer::operator()(std::string_view text, bool begins) const {
  std::string out(text);
  for (size_t i = 0; i < steps_.size(); ++i) {
    const NormalizerStep& step = steps_[i];
    switch (step.kind) {
      case Kind::nfc:
        if (!is_ascii(out)) out = normalize_utf8(out, NormalForm::nfc);
        break;
      case Kind::nfd:
        if (!is_ascii(out)) out = normalize_utf8(out, NormalForm::nfd);
        break;
      case Kind::nfkc:
        if (!is_ascii(out)) out = normalize_utf8(out, NormalForm::nfkc);
        break;
      case Kind::nfkd:
        if (!is_ascii(out)) out = normalize_utf8(out, NormalForm::nfkd);
        break;
      case Kind::lowercase:
        out = lowercase_utf8(out);
        break;
      case Kind::strip:
        out = strip(out, step.left, step.right);
        break;
      case Kind::strip_accents:
        out = strip_accents(out);
        break;
      case Kind::prepend:
        if (begins && !out.empty()) out.insert(0, step.content);
        break;
      case Kind::replace:
        out = replace_all(out, step.pattern, step.content);
        break;
      case Kind::replace_regex:
        out = replace_matches(out, *regexes_[i], step.content);
        break;
      case Kind::precompiled:
        out = apply_character_map(step.pattern, out);
        break;
    }
    require(out.size() <= text.size() * kMaxGrowth + 4096, ErrorCode::limit,
            "the tokenizer's normalizer makes {} bytes of a text of {}", out.size(), text.size());
  }
  return out;
}

}  // namespace mneme
