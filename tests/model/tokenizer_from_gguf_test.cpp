// Tokenizers described by GGUF metadata: a small SentencePiece model against sentencepiece itself, real
// models against Hugging Face's `tokenizers`, and what is refused.
#include "model/tokenizer_from_gguf.h"

#include <gmock/gmock.h>

#include <cstdlib>

#include "core/json.h"
#include "text/tokenizer_golden.h"

namespace mneme {
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

}  // namespace
}  // namespace mneme
