#include "memory/token_map.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

#include "core/json.h"
#include "core/random.h"
#include "core/sha256.h"
#include "mneme/error.h"
#include "text/tokenizer_golden.h"
#include "text/tokenizer_json.h"

namespace mneme::token_map_test {
namespace {

using testing::HasSubstr;

Json golden_file() {
  return parse_json(read_text_file(fs::path(MNEME_TEST_DATA) / "engram/token_map_golden.json"), "golden");
}

std::unique_ptr<Tokenizer> tokenizer_of(const fs::path& path) {
  return make_tokenizer(spec_from_tokenizer_json(read_text_file(path)));
}

std::unique_ptr<Tokenizer> small(const std::string& name = "small_bytes") {
  return tokenizer_of(fs::path(MNEME_TEST_DATA) / "tokenizer" / (name + ".json"));
}

void expect_equal_to_reference(const Tokenizer& tokenizer, const std::string& name) {
  const Json expected = golden_file().at("maps").at(name);
  const TokenMap map = TokenMap::build(tokenizer);
  EXPECT_EQ(map.tokens(), expected.at("tokens").get<uint32_t>());
  EXPECT_EQ(map.classes(), expected.at("classes").get<uint32_t>());
  std::vector<int32_t> classes;
  for (uint32_t id = 0; id < map.tokens(); ++id) classes.push_back(map[static_cast<TokenId>(id)]);
  EXPECT_EQ(golden::crc32(classes.data(), classes.size() * 4), expected.at("crc").get<uint32_t>());
  EXPECT_EQ(TokenMap::parse(map.serialize(), "map"), map);
}

TEST(TokenMap, TextsAreNormalizedAsByTheReference) {
  const Json file = golden_file();
  for (const Json& pair : file.at("texts"))
    EXPECT_EQ(normalize_token_text(pair[0].get<std::string>()), pair[1].get<std::string>()) << pair[0].dump();
}

class SmallTokenMap : public testing::TestWithParam<const char*> {};
TEST_P(SmallTokenMap, EqualsTheReference) {
  expect_equal_to_reference(*small(GetParam()), GetParam());
}
INSTANTIATE_TEST_SUITE_P(Trained, SmallTokenMap,
                         testing::Values("small_bytes", "small_chars", "small_unigram"),
                         [](const auto& test) { return std::string(test.param); });

class RealTokenMap : public testing::TestWithParam<const char*> {};
TEST_P(RealTokenMap, EqualsTheReference) {
  const char* folder = std::getenv("MNEME_TEST_TOKENIZERS");
  if (!folder) GTEST_SKIP() << "MNEME_TEST_TOKENIZERS is not set; see tools/fetch_test_tokenizers.sh";
  const fs::path path = fs::path(folder) / GetParam() / "tokenizer.json";
  if (!fs::exists(path)) GTEST_SKIP() << path << " is not there; see tools/fetch_test_tokenizers.sh";
  expect_equal_to_reference(*tokenizer_of(path), GetParam());
}
INSTANTIATE_TEST_SUITE_P(Npm, RealTokenMap,
                         testing::Values("llama2", "llama3", "qwen3", "gemma3", "deepseek_v3"),
                         [](const auto& test) { return std::string(test.param); });

// What DeepSeek-V4.1 publishes of its map (engram_compressed_vocab_size) and others counted.
TEST(TokenMap, DeepSeekV4HasThePublishedClasses) {
  const char* folder = std::getenv("MNEME_TEST_TOKENIZERS");
  const fs::path path = fs::path(folder ? folder : "") / "deepseek_v4" / "tokenizer.json";
  if (!folder || !fs::exists(path))
    GTEST_SKIP() << path << " is not there; see tools/fetch_test_tokenizers.sh";
  const TokenMap map = TokenMap::build(*tokenizer_of(path));
  EXPECT_EQ(map.tokens(), 129280u);
  EXPECT_EQ(map.classes(), 99092u);
  std::vector<uint32_t> members(map.classes());
  for (uint32_t id = 0; id < map.tokens(); ++id)
    ++members[static_cast<size_t>(map[static_cast<TokenId>(id)])];
  EXPECT_EQ(std::count_if(members.begin(), members.end(), [](uint32_t n) { return n > 1; }), 15502);
  EXPECT_EQ(*std::max_element(members.begin(), members.end()), 163u);
  for (const TokenId special : {0, 1, 2}) EXPECT_EQ(map[special], special);
}

TEST(TokenMap, IdsOutsideTheTokenizerHaveNoClass) {
  const TokenMap map = TokenMap::build(*small());
  EXPECT_EQ(map[-1], -1);
  EXPECT_EQ(map[static_cast<TokenId>(map.tokens())], -1);
  EXPECT_EQ(map[0], 0);
}

TEST(TokenMap, AnotherVocabularyIsRefused) {
  const auto bytes = small("small_bytes"), unigram = small("small_unigram");
  const TokenMap map = TokenMap::build(*bytes);
  EXPECT_NO_THROW(map.check_tokenizer(*bytes, "facts.engram"));
  try {
    map.check_tokenizer(*unigram, "facts.engram");
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::mismatch);
    EXPECT_THAT(error.what(), HasSubstr("facts.engram"));
  }
}

TEST(TokenMap, AVocabularyOfEqualSizeIsRefusedByItsSpellings) {
  Json json = Json::parse(read_text_file(fs::path(MNEME_TEST_DATA) / "tokenizer/small_chars.json"));
  const auto original = make_tokenizer(spec_from_tokenizer_json(json.dump()));
  Json& vocab = json["model"]["vocab"];
  const auto first = vocab.begin().key();
  const auto id = vocab[first];
  vocab.erase(first);
  vocab["mnemosyne"] = id;
  json["model"]["merges"] = Json::array();
  const auto renamed = make_tokenizer(spec_from_tokenizer_json(json.dump()));
  ASSERT_EQ(renamed->vocab_size(), original->vocab_size());
  EXPECT_THROW(TokenMap::build(*original).check_tokenizer(*renamed, "pack"), Error);
}

std::vector<std::byte> with_checksum(std::vector<std::byte> bytes) {
  bytes.erase(bytes.end() - 32, bytes.end());
  const std::string hex = sha256_hex(bytes);
  for (size_t i = 0; i < 32; ++i)
    bytes.push_back(static_cast<std::byte>(std::stoi(hex.substr(2 * i, 2), nullptr, 16)));
  return bytes;
}

TEST(TokenMap, DamageIsFoundWhereverItIs) {
  const std::vector<std::byte> good = TokenMap::build(*small()).serialize();
  for (const size_t keep : {size_t{0}, size_t{7}, size_t{40}, good.size() / 2, good.size() - 1})
    EXPECT_THROW(TokenMap::parse(std::span(good).first(keep), "map"), Error) << keep;
  auto longer = good;
  longer.push_back(std::byte{0});
  EXPECT_THROW(TokenMap::parse(longer, "map"), Error);
  Pcg64 random(7);
  for (int i = 0; i < 200; ++i) {
    auto bad = good;
    bad[random.below(bad.size())] ^= std::byte{1} << random.below(8);
    EXPECT_THROW(TokenMap::parse(bad, "map"), Error);
  }
}

// With a right checksum: the content itself is checked.
TEST(TokenMap, ContradictionsAreFoundBehindARightChecksum) {
  const TokenMap map = TokenMap::build(*small());
  const std::vector<std::byte> good = map.serialize();
  ASSERT_EQ(TokenMap::parse(with_checksum(good), "map"), map);
  ASSERT_LT(map.classes(), map.tokens());
  const size_t bits = 52, others = bits + (map.tokens() + 7) / 8;
  const auto refuses = [&](size_t at, std::byte value, const char* says) {
    auto bad = good;
    bad[at] = value;
    try {
      TokenMap::parse(with_checksum(bad), "map");
      ADD_FAILURE() << "accepted: " << says;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr(says));
    }
  };
  refuses(others + 2, std::byte{0xFF}, "which no earlier token began");   // a class far outside
  refuses(bits, good[bits] & std::byte{0xFE}, "no earlier token began");  // token 0 must begin class 0
  refuses(16, good[16] ^ std::byte{1}, "bytes, but");                     // one class more or less
  refuses(8, std::byte{2}, "version 2");
  refuses(15, std::byte{0x7F}, "classes of");  // two thousand million tokens
}

// Random bytes behind a right header and checksum never do more than throw.
TEST(TokenMap, RandomContentIsReadOrRefused) {
  const std::vector<std::byte> good = TokenMap::build(*small("small_unigram")).serialize();
  Pcg64 random(9);
  int accepted = 0;
  for (int i = 0; i < 300; ++i) {
    auto bad = good;
    for (int k = 0; k < 3; ++k)
      bad[52 + random.below(bad.size() - 52 - 32)] = static_cast<std::byte>(random.next());
    try {
      const TokenMap map = TokenMap::parse(with_checksum(bad), "map");
      for (uint32_t id = 0; id < map.tokens(); ++id) {
        const TokenClass cls = map[static_cast<TokenId>(id)];
        ASSERT_TRUE(cls >= 0 && static_cast<uint32_t>(cls) < map.classes());
      }
      ++accepted;
    } catch (const Error&) {
    }
  }
  EXPECT_LT(accepted, 300);
}

}  // namespace
}  // namespace mneme::token_map_test
