#include "memory/token_map.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>

#include "core/fail.h"
#include "core/half.h"
#include "core/sha256.h"
#include "memory/engram_config.h"
#include "text/normalizer.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace mneme {
namespace {

constexpr std::string_view kMagic = "MNEMETKM";
constexpr uint32_t kVersion = 1;
constexpr size_t kDigest = 32, kHeader = 8 + 3 * 4 + kDigest;
constexpr std::string_view kReplacementUtf8 = "\xEF\xBF\xBD";  // U+FFFD
constexpr std::string_view kSentinel = "\xEE\x80\x80";         // U+E000, a private character

std::string without_marks(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const Utf8Char c = decode_utf8(text.substr(at));
    if (!is_mark(c.code)) out.append(text.substr(at, c.length));
    at += c.length;
  }
  return out;
}

std::string collapse_spaces(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool space = c == ' ' || c == '\t' || c == '\r' || c == '\n';
    if (!space)
      out += c;
    else if (out.empty() || out.back() != ' ')
      out += ' ';
  }
  return out;
}

std::string_view stripped(std::string_view text) {
  text.remove_prefix(leading_space(text));
  text.remove_suffix(trailing_space(text));
  return text;
}

std::string key_of(const Tokenizer& tokenizer, TokenId id) {
  const std::string text = repair_utf8(tokenizer.decode({&id, 1}));
  if (text.find(kReplacementUtf8) != std::string::npos) return tokenizer.token(id);
  std::string key = normalize_token_text(text);
  return key.empty() ? text : key;
}

std::vector<std::byte> from_hex(std::string_view hex) {
  const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
  std::vector<std::byte> out;
  for (size_t i = 0; i + 1 < hex.size(); i += 2)
    out.push_back(static_cast<std::byte>(digit(hex[i]) * 16 + digit(hex[i + 1])));
  return out;
}

std::string to_hex(std::span<const std::byte> bytes) {
  std::string out;
  for (const std::byte b : bytes) out += fmt::format("{:02x}", std::to_integer<unsigned>(b));
  return out;
}

void append_u32(std::vector<std::byte>& out, uint32_t value, int bytes = 4) {
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<std::byte>(value >> (8 * i)));
}

void append(std::vector<std::byte>& out, std::span<const std::byte> bytes) {
  for (const std::byte b : bytes) out.push_back(b);  // GCC 12 sees an overflow in insert() that is none
}

}  // namespace

std::string normalize_token_text(std::string_view text) {
  std::string key = normalize_utf8(normalize_utf8(text, NormalForm::nfkc), NormalForm::nfd);
  key = collapse_spaces(lowercase_utf8(without_marks(key)));
  if (key == " ") key = kSentinel;
  return replace_all(stripped(key), kSentinel, " ");
}

std::string vocabulary_fingerprint(const Tokenizer& tokenizer) {
  Sha256 hash;
  hash.update(fmt::format("{}\n", tokenizer.vocab_size()));
  for (uint32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const std::string token = tokenizer.token(static_cast<TokenId>(id));
    hash.update(fmt::format("{} ", token.size())).update(token);
  }
  return hash.hex();
}

TokenMap TokenMap::build(const Tokenizer& tokenizer) {
  TokenMap out;
  out.fingerprint_ = vocabulary_fingerprint(tokenizer);
  std::unordered_map<std::string, TokenClass> known;
  for (uint32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const auto next = static_cast<TokenClass>(known.size());
    out.classes_.push_back(
        known.try_emplace(key_of(tokenizer, static_cast<TokenId>(id)), next).first->second);
  }
  out.class_count_ = static_cast<uint32_t>(known.size());
  return out;
}

std::vector<std::byte> TokenMap::serialize() const {
  std::vector<std::byte> out;
  append(out, std::as_bytes(std::span(kMagic)));
  append_u32(out, kVersion);
  append_u32(out, tokens());
  append_u32(out, class_count_);
  append(out, from_hex(fingerprint_));
  const size_t bits = out.size();
  out.resize(bits + (classes_.size() + 7) / 8);
  TokenClass next = 0;
  for (size_t i = 0; i < classes_.size(); ++i) {
    if (classes_[i] == next) {
      out[bits + i / 8] |= std::byte{1} << (i % 8);
      ++next;
    } else {
      append_u32(out, static_cast<uint32_t>(classes_[i]), 3);
    }
  }
  append(out, from_hex(sha256_hex(out)));
  return out;
}

TokenMap TokenMap::parse(std::span<const std::byte> bytes, std::string_view name) {
  require(bytes.size() >= kHeader + kDigest && std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) == 0,
          ErrorCode::corrupt, "{} is not a token map", name);
  const auto version = load_le<uint32_t>(bytes.data() + 8);
  require(version == kVersion, ErrorCode::unsupported,
          "the token map of {} has version {}; this program reads version {}", name, version, kVersion);
  const uint64_t tokens = load_le<uint32_t>(bytes.data() + 12),
                 classes = load_le<uint32_t>(bytes.data() + 16);
  require(tokens >= 1 && tokens <= engram_limits::kMaxVocab && classes >= 1 && classes <= tokens,
          ErrorCode::corrupt, "the token map of {} is damaged: {} classes of {} tokens", name, classes,
          tokens);
  const size_t bits = kHeader, others = bits + (tokens + 7) / 8, end = others + 3 * (tokens - classes);
  require(bytes.size() == end + kDigest, ErrorCode::corrupt,
          "the token map of {} has {} bytes, but {} classes of {} tokens need {}", name, bytes.size(),
          classes, tokens, end + kDigest);
  require(sha256_hex(bytes.first(end)) == to_hex(bytes.last(kDigest)), ErrorCode::corrupt,
          "the token map of {} is damaged: its checksum does not match", name);

  TokenMap out;
  out.fingerprint_ = to_hex(bytes.subspan(20, kDigest));
  out.class_count_ = static_cast<uint32_t>(classes);
  out.classes_.reserve(tokens);
  uint64_t next = 0;
  size_t at = others;
  for (uint64_t i = 0; i < tokens; ++i) {
    if ((bytes[bits + i / 8] >> (i % 8) & std::byte{1}) != std::byte{0}) {
      out.classes_.push_back(static_cast<TokenClass>(next++));
      continue;
    }
    require(at + 3 <= end, ErrorCode::corrupt, "the token map of {} begins fewer than {} classes", name,
            classes);
    uint32_t id = 0;
    for (size_t b = 0; b < 3; ++b) id |= std::to_integer<uint32_t>(bytes[at++]) << (8 * b);
    require(id < next, ErrorCode::corrupt,
            "the token map of {} puts token {} in class {}, which no earlier token began", name, i, id);
    out.classes_.push_back(static_cast<TokenClass>(id));
  }
  const bool padded = tokens % 8 == 0 || std::to_integer<unsigned>(bytes[others - 1]) >> (tokens % 8) == 0;
  require(next == classes && padded, ErrorCode::corrupt,
          "the token map of {} begins {} classes, but its header says {}", name, next, classes);
  return out;
}

void TokenMap::check_tokenizer(const Tokenizer& tokenizer, std::string_view name) const {
  require(tokenizer.vocab_size() == tokens(), ErrorCode::mismatch,
          "{} was made for a tokenizer of {} tokens, but this model's has {}; use a pack made for this model",
          name, tokens(), tokenizer.vocab_size());
  require(vocabulary_fingerprint(tokenizer) == fingerprint_, ErrorCode::mismatch,
          "{} was made for another vocabulary of {} tokens; use a pack made for this model", name, tokens());
}

}  // namespace mneme
