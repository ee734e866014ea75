#include "files/token_shard.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/checked.h"
#include "core/checksum.h"

namespace mneme {
namespace {

static_assert(std::endian::native == std::endian::little, "shards are read and written in place");

constexpr char kMagic[8] = {'M', 'N', 'E', 'M', 'E', 'T', 'O', 'K'};
constexpr uint32_t kVersion = 1;
constexpr uint64_t kHeaderBytes = 128, kSumAt = 120, kReservedAt = 96;
constexpr uint64_t kMaxTokens = uint64_t{1} << 40;  // of one shard

struct Fields {
  uint32_t version = kVersion, token_bytes = 0;
  TokenShardInfo info;
};

// One walk for reading and writing, so that they cannot disagree.
template <class Visit>
void walk(Fields& fields, Visit visit) {
  uint64_t at = sizeof(kMagic);
  const auto next = [&](auto& value) {
    visit(at, &value, sizeof(value));
    at += sizeof(value);
  };
  next(fields.version);          // 8
  next(fields.token_bytes);      // 12
  next(fields.info.tokens);      // 16
  next(fields.info.documents);   // 24
  next(fields.info.text_bytes);  // 32
  next(fields.info.vocab);       // 40
  next(fields.info.end_token);   // 44
  next(fields.info.tokenizer);   // 48
  next(fields.info.sources);     // 80
  next(fields.info.payload);     // 88
}

uint64_t tokens_section(const TokenShardInfo& info) {
  return checked_align(checked_mul(info.tokens, info.token_bytes(), "tokens of a shard"), 8,
                       "tokens of a shard");
}

uint64_t file_bytes(const TokenShardInfo& info) {
  const uint64_t documents = checked_mul(info.documents, sizeof(uint64_t), "documents of a shard");
  return checked_add(kHeaderBytes, checked_add(tokens_section(info), documents, "a shard"), "a shard");
}

template <class Token>
uint32_t largest(Bytes tokens) noexcept {
  const std::span<const Token> ids(reinterpret_cast<const Token*>(tokens.data()),
                                   tokens.size() / sizeof(Token));
  Token most = 0;
  for (const Token id : ids) most = std::max(most, id);
  return most;
}

std::string header_of(const TokenShardInfo& info) {
  std::string header(kHeaderBytes, '\0');
  std::memcpy(header.data(), kMagic, sizeof(kMagic));
  Fields fields{kVersion, info.token_bytes(), info};
  walk(fields,
       [&](uint64_t at, const void* value, size_t bytes) { std::memcpy(header.data() + at, value, bytes); });
  const uint64_t sum = xxh3(std::as_bytes(std::span(header)).first(kSumAt));
  std::memcpy(header.data() + kSumAt, &sum, sizeof(sum));
  return header;
}

template <class Token>
std::vector<Token> narrowed(std::span<const uint32_t> tokens) {
  std::vector<Token> out(tokens.size() + 7);  // zeros up to a multiple of 8 bytes
  std::transform(tokens.begin(), tokens.end(), out.begin(),
                 [](uint32_t id) { return static_cast<Token>(id); });
  const size_t per_word = sizeof(uint64_t) / sizeof(Token);
  out.resize((tokens.size() + per_word - 1) / per_word * per_word);
  return out;
}

}  // namespace

TokenShardInfo read_token_shard_header(Bytes file, const std::string& what) {
  require(file.size() >= kHeaderBytes, ErrorCode::corrupt, "{}: a file of {} bytes is no token shard", what,
          file.size());
  require(std::memcmp(file.data(), kMagic, sizeof(kMagic)) == 0, ErrorCode::corrupt,
          "{}: not a token shard (it does not begin with MNEMETOK)", what);
  Fields fields;
  walk(fields, [&](uint64_t at, void* value, size_t bytes) { std::memcpy(value, file.data() + at, bytes); });
  require(fields.version == kVersion, ErrorCode::unsupported,
          "{}: token shard of format version {}, this program reads version {}", what, fields.version,
          kVersion);
  uint64_t sum = 0;
  std::memcpy(&sum, file.data() + kSumAt, sizeof(sum));
  require(sum == xxh3(file.first(kSumAt)), ErrorCode::corrupt,
          "{}: the header does not match its checksum; build the shards again", what);
  for (uint64_t at = kReservedAt; at < kSumAt; ++at)
    require(file[at] == std::byte{0}, ErrorCode::corrupt, "{}: byte {} of the header is not zero", what, at);
  const TokenShardInfo& info = fields.info;
  require(info.vocab > 0 && info.vocab <= 1u << 24 && fields.token_bytes == info.token_bytes(),
          ErrorCode::corrupt, "{}: {} bytes a token do not go with a vocabulary of {}", what,
          fields.token_bytes, info.vocab);
  require(info.end_token == kNoEndToken || info.end_token < info.vocab, ErrorCode::corrupt,
          "{}: the end token {} is outside the vocabulary of {}", what, info.end_token, info.vocab);
  require(info.tokens > 0 && info.tokens <= kMaxTokens && info.documents > 0 && info.documents <= info.tokens,
          ErrorCode::corrupt, "{}: {} tokens of {} documents are no shard", what, info.tokens,
          info.documents);
  const uint64_t expected = file_bytes(info);
  require(file.size() == expected, ErrorCode::corrupt,
          "{}: {} bytes, but {} tokens of {} documents make {}; the file was cut or added to", what,
          file.size(), info.tokens, info.documents, expected);
  return info;
}

Bytes token_shard_tokens(Bytes file, const TokenShardInfo& info) noexcept {
  return file.subspan(kHeaderBytes, info.tokens * info.token_bytes());
}

std::span<const uint64_t> token_shard_documents(Bytes file, const TokenShardInfo& info) noexcept {
  const Bytes part = file.last(info.documents * sizeof(uint64_t));
  return {reinterpret_cast<const uint64_t*>(part.data()), info.documents};
}

void verify_token_shard(Bytes file, const TokenShardInfo& info, const std::string& what) {
  require(xxh3(file.subspan(kHeaderBytes)) == info.payload, ErrorCode::corrupt,
          "{}: the tokens do not match their checksum; build the shards again", what);
  const Bytes tokens = token_shard_tokens(file, info);
  const uint32_t most = info.token_bytes() == 2 ? largest<uint16_t>(tokens) : largest<uint32_t>(tokens);
  require(most < info.vocab, ErrorCode::corrupt, "{}: token {} is outside the vocabulary of {}", what, most,
          info.vocab);
  const auto documents = token_shard_documents(file, info);
  uint64_t before = 0;
  for (size_t i = 0; i < documents.size(); ++i) {
    const bool fits = i == 0 ? documents[i] == 0 : documents[i] > before && documents[i] < info.tokens;
    require(fits, ErrorCode::corrupt, "{}: document {} begins at token {} of {}, the one before it at {}",
            what, i, documents[i], info.tokens, before);
    before = documents[i];
  }
}

TokenShardInfo write_token_shard(const fs::path& path, std::span<const uint32_t> tokens,
                                 std::span<const uint64_t> documents, TokenShardInfo info) {
  info.tokens = tokens.size();
  info.documents = documents.size();
  std::vector<uint16_t> narrow;
  std::vector<uint32_t> wide;
  Bytes body;
  if (info.token_bytes() == 2) {
    narrow = narrowed<uint16_t>(tokens);
    body = std::as_bytes(std::span(narrow));
  } else {
    wide = narrowed<uint32_t>(tokens);
    body = std::as_bytes(std::span(wide));
  }
  const Bytes borders = std::as_bytes(documents);
  info.payload = Xxh3().update(body).update(borders).value();
  AtomicFile file(path);
  file.write(header_of(info));
  file.write(body);
  file.write(borders);
  file.commit();
  return info;
}

}  // namespace mneme
