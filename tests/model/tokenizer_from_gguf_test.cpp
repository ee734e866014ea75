// Tokenizers described by GGUF metadata: a small SentencePiece model against sentencepiece itself, real
// models against Hugging Face's `tokenizers`, and what is refused.
#include "model/tokenizer_from_gguf.h"

#include <gmock/gmock.h>

#include <cmath>
#include <cstdlib>

#include "core/json.h"
#include "core/paths.h"
#include "mneme/error.h"
#include "text/tokenizer_golden.h"

namespace mneme::tokenizer_from_gguf_test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

GgufMetadata small_spm() {
  const Json json = Json::parse(read_text_file(golden::folder() / "small_spm.json"));
  GgufMetadata metadata;
  metadata.set("tokenizer.ggml.model", std::string("llama"));
  metadata.set("tokenizer.ggml.tokens", json.at("tokens").get<std::vector<std::string>>());
  metadata.set("tokenizer.ggml.scores", json.at("scores").get<std::vector<double>>());
  metadata.set("tokenizer.ggml.token_type", json.at("token_type").get<std::vector<int64_t>>());
  metadata.set("tokenizer.ggml.bos_token_id", uint64_t{1});
  metadata.set("tokenizer.ggml.eos_token_id", uint64_t{2});
  return metadata;
}

TEST(TokenizerFromGguf, SentencePieceBpeEqualsSentencePiece) {
  const auto tokenizer = make_tokenizer(tokenizer_spec_from_gguf(small_spm()));
  golden::expect_golden(*tokenizer, "small_spm", golden::read_words(golden::folder() / "small_spm.lines"));
}

// A model file named by an environment variable, or else in the model store; empty if there is none.
fs::path find_model(const char* variable, const char* file) {
  if (const char* path = std::getenv(variable); path && *path) return path;
  const fs::path stored = models_folder() / file;
  return fs::exists(stored) ? stored : fs::path();
}

TEST(TokenizerFromGguf, SmolLm2EqualsTheReferenceOnTwentyThousandLines) {
  const fs::path path = find_model("MNEME_TEST_MODEL", "SmolLM2-135M-Instruct.Q4_1.gguf");
  if (path.empty()) GTEST_SKIP() << "MNEME_TEST_MODEL is not set and the default model is not in the store";
  const auto tokenizer = make_tokenizer(tokenizer_spec_from_gguf(GgufFile::open(path)->metadata()));
  golden::expect_golden(*tokenizer, "real_smollm2", golden::every(1));
  EXPECT_EQ(tokenizer->eos(), 2);
  EXPECT_THAT(std::vector<TokenId>(tokenizer->stop_tokens().begin(), tokenizer->stop_tokens().end()),
              ElementsAre(0, 2));  // <|endoftext|>, <|im_end|>
  EXPECT_THAT(tokenizer->chat_template(), HasSubstr("<|im_start|>"));
}

// The same vocabulary reaches Hugging Face as a list of merges and GGUF as scores; the ids are the same. But
// GGUF spells the added tokens for runs of "▁" by spaces, so that a literal "▁" beside spaces is cut in
// another way, and it lacks the 262,145th token.
TEST(TokenizerFromGguf, Gemma3EqualsTheReferenceOnTwentyThousandLines) {
  const fs::path path = find_model("MNEME_TEST_GEMMA", "gemma-3-270m-q4_k_m.gguf");
  if (path.empty()) GTEST_SKIP() << "MNEME_TEST_GEMMA is not set and Gemma 3 270M is not in the store";
  const auto tokenizer = make_tokenizer(tokenizer_spec_from_gguf(GgufFile::open(path)->metadata()));
  golden::expect_golden(*tokenizer, "real_gemma3", golden::every(1), {"▁", "<image_soft_token>"});
}

// Three byte-level pieces that the byte alphabet spells, and a merge.
GgufMetadata small_bytes(const std::string& pre) {
  GgufMetadata metadata;
  metadata.set("tokenizer.ggml.model", std::string("gpt2"));
  metadata.set("tokenizer.ggml.pre", pre);
  metadata.set("tokenizer.ggml.tokens",
               std::vector<std::string>{"a", "1", "Ġ", "11", "<s>", "<|eot_id|>", "Ġa", "a\u0301"});
  metadata.set("tokenizer.ggml.token_type", std::vector<int64_t>{1, 1, 1, 1, 3, 3, 1, 1});
  metadata.set("tokenizer.ggml.merges", std::vector<std::string>{"1 1", "Ġ a"});
  metadata.set("tokenizer.ggml.bos_token_id", uint64_t{4});
  return metadata;
}

TEST(TokenizerFromGguf, ThePreTokenizerDecidesAboutDigitsAndBos) {
  const auto encode = [](const std::string& pre) {
    return make_tokenizer(tokenizer_spec_from_gguf(small_bytes(pre)))->encode("1111 a");
  };
  EXPECT_THAT(encode("gpt-2"), ElementsAre(3, 3, 6));
  EXPECT_THAT(encode("smollm"), ElementsAre(1, 1, 1, 1, 6));
  EXPECT_THAT(encode("qwen2"), ElementsAre(1, 1, 1, 1, 6));
  EXPECT_THAT(encode("llama-bpe"), ElementsAre(4, 3, 1, 1, 6));
  EXPECT_THAT(encode("default"), ElementsAre(3, 1, 1, 6));
}

TEST(TokenizerFromGguf, EndsOfTurnsComeFromKeysAndNames) {
  GgufMetadata metadata = small_bytes("gpt-2");
  metadata.set("tokenizer.ggml.eot_token_id", uint64_t{0});
  metadata.set("tokenizer.ggml.eos_token_id", uint64_t{4});
  const auto tokenizer = make_tokenizer(tokenizer_spec_from_gguf(metadata));
  EXPECT_THAT(std::vector<TokenId>(tokenizer->stop_tokens().begin(), tokenizer->stop_tokens().end()),
              ElementsAre(0, 4, 5));
}

void expect_refused(const GgufMetadata& metadata, ErrorCode code, const char* message) {
  try {
    make_tokenizer(tokenizer_spec_from_gguf(metadata));
    ADD_FAILURE() << "no error, wanted: " << message;
  } catch (const Error& error) {
    EXPECT_EQ(to_string(error.code()), to_string(code));
    EXPECT_THAT(error.what(), HasSubstr(message));
  }
}

TEST(TokenizerFromGguf, RefusesWhatContradictsItself) {
  const auto with = [](const char* key, GgufValue value, bool spm = false) {
    GgufMetadata metadata = spm ? small_spm() : small_bytes("gpt-2");
    metadata.set(key, std::move(value));
    return metadata;
  };
  using Strings = std::vector<std::string>;
  expect_refused(with("tokenizer.ggml.model", std::string("bert")), ErrorCode::unsupported, "\"bert\"");
  expect_refused(with("tokenizer.ggml.pre", std::string("viking")), ErrorCode::unsupported, "\"viking\"");
  expect_refused(with("tokenizer.ggml.tokens", Strings{}), ErrorCode::corrupt, "tokenizer.ggml.tokens");
  expect_refused(with("tokenizer.ggml.tokens", uint64_t{3}), ErrorCode::corrupt, "not an array of strings");
  expect_refused(with("tokenizer.ggml.tokens", Strings{"a", "a", "c", "d", "e", "f", "g", "h"}),
                 ErrorCode::corrupt, "twice");
  expect_refused(with("tokenizer.ggml.token_type", std::vector<int64_t>{1}), ErrorCode::corrupt,
                 "1 entries for 8");
  expect_refused(with("tokenizer.ggml.token_type", std::vector<int64_t>(8, 77)), ErrorCode::corrupt, "77");
  expect_refused(with("tokenizer.ggml.merges", Strings{"a b"}), ErrorCode::corrupt, "\"a b\"");
  expect_refused(with("tokenizer.ggml.merges", Strings{"ab"}), ErrorCode::corrupt, "not two pieces");
  expect_refused(with("tokenizer.ggml.merges", Strings{}), ErrorCode::corrupt, "needs tokenizer.ggml.merges");
  expect_refused(with("tokenizer.ggml.eos_token_id", uint64_t{8}), ErrorCode::corrupt, "there are 8 tokens");
  expect_refused(with("tokenizer.ggml.scores", std::vector<double>{0.0}, true), ErrorCode::corrupt,
                 "1 entries");
  expect_refused(
      with("tokenizer.ggml.scores",
           std::vector<double>(small_spm().get_strings("tokenizer.ggml.tokens").size(), NAN), true),
      ErrorCode::corrupt, "not a finite number");
}

}  // namespace
}  // namespace mneme::tokenizer_from_gguf_test
