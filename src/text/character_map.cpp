// SentencePiece's compiled character map (nmt_nfkc and friends): a Darts double array whose values are
// offsets into a block of NUL-ended replacement strings. Unit layout, from the Darts-clone format: bits 0-7
// label, bit 8 "has a leaf", bit 9 scale of the offset, bits 10-30 offset; bit 31 marks a leaf's value.
#include <unicode/brkiter.h>
#include <unicode/utext.h>

#include <cstring>
#include <memory>
#include <optional>

#include "core/fail.h"
#include "text/normalizer.h"
#include "text/utf8.h"

namespace mneme {

namespace {

struct CharacterMap {
  std::string_view trie, strings;

  explicit CharacterMap(std::string_view blob) {
    uint32_t bytes = 0;
    if (blob.size() >= 4) std::memcpy(&bytes, blob.data(), 4);
    require(blob.size() >= 4 && bytes >= 4 && bytes % 4 == 0 && bytes <= blob.size() - 4, ErrorCode::corrupt,
            "the tokenizer's precompiled character map of {} bytes claims a trie of {} bytes", blob.size(),
            bytes);
    trie = blob.substr(4, bytes);
    strings = blob.substr(4 + size_t{bytes});
  }

  // A unit of the double array; units outside it have no label, so a walk ends there.
  uint32_t unit(size_t index) const {
    uint32_t value = 0x80000000u;
    if (index < trie.size() / 4) std::memcpy(&value, trie.data() + index * 4, 4);
    return value;
  }
  static size_t offset(uint32_t unit) { return size_t{unit >> 10} << ((unit & 512u) >> 6); }

  // The replacement of the shortest key that `text` begins with.
  std::optional<std::string_view> find(std::string_view text) const {
    size_t node = offset(unit(0));
    for (const char raw : text) {
      const auto c = static_cast<uint8_t>(raw);
      if (c == 0) return {};
      node ^= c;
      const uint32_t here = unit(node);
      if ((here & 0x800000FFu) != c) return {};
      node ^= offset(here);
      if (here & 256u) {
        const size_t start = unit(node) & 0x7FFFFFFFu;
        if (start >= strings.size()) return {};
        const size_t end = strings.find('\0', start);
        return strings.substr(start, end == std::string_view::npos ? end : end - start);
      }
    }
    return {};
  }
};

}  // namespace

void check_character_map(std::string_view blob) {
  CharacterMap{blob};
}

std::string apply_character_map(std::string_view blob, std::string_view text) {
  const CharacterMap map(blob);
  UErrorCode status = U_ZERO_ERROR;
  const std::unique_ptr<icu::BreakIterator> breaks(
      icu::BreakIterator::createCharacterInstance(icu::Locale::getRoot(), status));
  UText input = UTEXT_INITIALIZER;
  utext_openUTF8(&input, text.data(), static_cast<int64_t>(text.size()), &status);
  std::string out;
  out.reserve(text.size());
  if (U_SUCCESS(status)) {
    breaks->setText(&input, status);
    int32_t begin = breaks->first();
    for (int32_t end = breaks->next(); end != icu::BreakIterator::DONE; begin = end, end = breaks->next()) {
      std::string_view grapheme = text.substr(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
      if (grapheme.size() < 6) {
        if (const auto mapped = map.find(grapheme)) {
          out.append(*mapped);
          continue;
        }
      }
      while (!grapheme.empty()) {
        const std::string_view c = grapheme.substr(0, decode_utf8(grapheme).length);
        out.append(map.find(c).value_or(c));
        grapheme.remove_prefix(c.size());
      }
    }
  }
  utext_close(&input);
  require(U_SUCCESS(status), ErrorCode::internal, "ICU could not find the graphemes of a text: {}",
          u_errorName(status));
  return out;
}

}  // namespace mneme
