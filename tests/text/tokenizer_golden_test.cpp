// Ids and decoded texts equal those of Hugging Face's `tokenizers` 0.23 on the whole corpus.
#include <cstdlib>

#include "core/json.h"
#include "stride.h"
#include "text/stream_encoder.h"
#include "text/tokenizer_golden.h"
#include "text/tokenizer_json.h"

namespace mneme::tokenizer_golden_test {
namespace {

// A small trained vocabulary with another normalizer, pre-tokenizer, ... of the same format.
std::string compose(const Json& variant) {
  Json document = Json::parse(read_text_file(golden::folder() / variant.at("base").get<std::string>()));
  for (const auto& [key, value] : variant.at("patch").items()) document[key] = value;
  for (const auto& [key, value] : variant.at("model").items()) document["model"][key] = value;
  return document.dump();
}

class SmallVocabulary : public testing::TestWithParam<const char*> {};

TEST_P(SmallVocabulary, EqualsTheReference) {
  const Json variants = Json::parse(read_text_file(golden::folder() / "variants.json"));
  const auto tokenizer = make_tokenizer(spec_from_tokenizer_json(compose(variants.at(GetParam()))));
  golden::expect_golden(*tokenizer, GetParam(), golden::every(5));
}

// A text that comes in pieces has the ids of the whole, whatever the normalizer and the pre-tokenizer do.
TEST_P(SmallVocabulary, AStreamEqualsTheWhole) {
  const Json variants = Json::parse(read_text_file(golden::folder() / "variants.json"));
  const auto tokenizer = make_tokenizer(spec_from_tokenizer_json(compose(variants.at(GetParam()))));
  std::string text;
  for (size_t i = 0; i < golden::corpus().size(); i += size_t{9} * kStride)
    if (golden::corpus()[i].size() < 3000) text += golden::corpus()[i] + "\n";
  ASSERT_GT(text.size(), 100000u / kStride);
  for (const bool special : {true, false}) {
    const EncodeOptions options{.add_special = special, .parse_special = special};
    StreamEncoder encoder(*tokenizer, options, 3000, text.size() + 1);  // no cut by force
    std::vector<TokenId> ids;
    for (size_t at = 0; at < text.size(); at += 777)
      encoder.push(std::string_view(text).substr(at, 777), ids);
    encoder.finish(ids);
    EXPECT_TRUE(ids == tokenizer->encode(text, options)) << ids.size();
  }
}

INSTANTIATE_TEST_SUITE_P(Variants, SmallVocabulary,
                         testing::Values("gpt2", "gpt2_prefix", "smollm", "llama3", "qwen2", "o200k",
                                         "deepseek", "words", "accents", "added", "llama2", "gemma",
                                         "metaspace_first", "metaspace_never", "unknown_alone", "unigram",
                                         "unigram_t5", "unigram_bytes"),
                         [](const auto& test) { return std::string(test.param); });

class RealTokenizer : public testing::TestWithParam<const char*> {};

// The packages are fetched by tools/fetch_test_tokenizers.sh.
TEST_P(RealTokenizer, EqualsTheReferenceOnTwentyThousandLines) {
  const char* folder = std::getenv("MNEME_TEST_TOKENIZERS");
  if (!folder) GTEST_SKIP() << "MNEME_TEST_TOKENIZERS is not set; see tools/fetch_test_tokenizers.sh";
  const fs::path path = fs::path(folder) / GetParam() / "tokenizer.json";
  if (!fs::exists(path)) GTEST_SKIP() << path << " is not there; see tools/fetch_test_tokenizers.sh";
  const auto tokenizer = make_tokenizer(spec_from_tokenizer_json(read_text_file(path)));
  golden::expect_golden(*tokenizer, std::string("real_") + GetParam(), golden::every(1));
}

INSTANTIATE_TEST_SUITE_P(Npm, RealTokenizer, testing::Values("llama2", "llama3", "qwen3", "gemma3"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace mneme::tokenizer_golden_test
