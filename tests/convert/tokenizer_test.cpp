// Tokenizers of both formats: a SentencePiece model becomes merges in tokenizer.json and scores again in
// GGUF, and a tokenizer that GGUF cannot name is refused. Byte-level ones are tested in quantize_test.cpp.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "convert/tokenizer_to_gguf.h"
#include "convert/tokenizer_to_json.h"
#include "mneme/error.h"
#include "model/tokenizer_from_gguf.h"
#include "text/tokenizer_json.h"

namespace mneme::tokenizer_test {
namespace {

/// A Llama-2-like model: control tokens, 256 byte pieces, some letters, and words with scores.
GgufMetadata sentencepiece_metadata() {
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  std::vector<int64_t> types = {2, 3, 3};
  std::vector<double> scores = {0, 0, 0};
  const auto add = [&](std::string text, int64_t type, double score) {
    tokens.push_back(std::move(text));
    types.push_back(type);
    scores.push_back(score);
  };
  for (int byte = 0; byte < 256; ++byte) add(fmt::format("<0x{:02X}>", byte), 6, 0);
  double score = 0;
  for (const char* word :
       {"he", "ll", "▁w", "or", "▁he", "llo", "▁hello", "ld", "▁wor", "▁world", "hello", "é▁"})
    add(word, 1, score -= 1);
  for (const char* letter : {"▁", "h", "e", "l", "o", "w", "r", "d", "é"}) add(letter, 1, score -= 1);
  add("<tool>", 4, 0);
  GgufMetadata out;
  out.set("tokenizer.ggml.model", std::string("llama"));
  out.set("tokenizer.ggml.tokens", tokens);
  out.set("tokenizer.ggml.token_type", types);
  out.set("tokenizer.ggml.scores", scores);
  out.set("tokenizer.ggml.bos_token_id", uint64_t{1});
  out.set("tokenizer.ggml.eos_token_id", uint64_t{2});
  return out;
}

const char* const kTexts[] = {
    "", "hello world", "  hello  wörld", "hellohello", "é h日", "<tool>hello</s>", "x\ny"};

TEST(ConvertTokenizer, SentencePieceScoresBecomeMergesWithTheSameIds) {
  const GgufMetadata metadata = sentencepiece_metadata();
  const auto want = make_tokenizer(tokenizer_spec_from_gguf(metadata));
  const std::string json = tokenizer_json(tokenizer_spec_from_gguf(metadata));
  const auto got = make_tokenizer(spec_from_tokenizer_json(json));
  ASSERT_EQ(want->encode("hello world").size(), 3u);  // BOS and two words: the merges matter
  for (const char* text : kTexts) {
    EXPECT_EQ(got->encode(text), want->encode(text)) << text;
    EXPECT_EQ(got->decode(want->encode(text)), want->decode(want->encode(text))) << text;
  }
}

TEST(ConvertTokenizer, MergesBecomeScoresWithTheSameIds) {
  const GgufMetadata metadata = sentencepiece_metadata();
  const auto want = make_tokenizer(tokenizer_spec_from_gguf(metadata));
  const std::string json = tokenizer_json(tokenizer_spec_from_gguf(metadata));
  GgufMetadata back;
  put_tokenizer(spec_from_tokenizer_json(json, R"({"bos_token":"<s>","eos_token":"</s>"})"), 300, back);
  EXPECT_EQ(back.get_strings("tokenizer.ggml.tokens").size(), 300u);  // padded to the embedding
  EXPECT_EQ(back.get_ints("tokenizer.ggml.token_type")[299], 5);
  const auto got = make_tokenizer(tokenizer_spec_from_gguf(back));
  for (const char* text : kTexts) EXPECT_EQ(got->encode(text), want->encode(text)) << text;
  EXPECT_EQ(got->bos(), 1);
  EXPECT_EQ(got->eos(), 2);
}

TEST(ConvertTokenizer, APatternWithoutAGgufNameIsRefused) {
  const char* json =
      R"({"added_tokens":[],"normalizer":null,"post_processor":null,"decoder":{"type":"ByteLevel"},
    "pre_tokenizer":{"type":"Sequence","pretokenizers":[
      {"type":"Split","pattern":{"Regex":"[a-z]+"},"behavior":"Isolated","invert":false},
      {"type":"ByteLevel","add_prefix_space":false,"use_regex":false}]},
    "model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}})";
  GgufMetadata out;
  try {
    put_tokenizer(spec_from_tokenizer_json(json), 3, out);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::unsupported);
    EXPECT_NE(std::string(error.what()).find("[a-z]+"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace mneme::tokenizer_test
