// What a tokenizer promises beyond equal ids (tokenizer_golden_test.cpp), and what is refused.
#include <gmock/gmock.h>

#include <chrono>

#include "core/json.h"
#include "mneme/error.h"
#include "text/tokenizer_golden.h"
#include "text/tokenizer_json.h"

namespace mneme::tokenizer_test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// Pieces: 0-4 letters, 5 "ab", 6 "abc", 7 <s>, 8 <|im_end|>, 9 "<tool>".
Json tiny() {
  return Json::parse(R"({
    "normalizer": null, "pre_tokenizer": null, "decoder": {"type": "Fuse"},
    "post_processor": {"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
      "special_tokens": {"<s>": {"id": "<s>", "ids": [7], "tokens": ["<s>"]}}},
    "added_tokens": [{"id": 7, "content": "<s>", "special": true, "normalized": false},
                     {"id": 8, "content": "<|im_end|>", "special": true, "normalized": false},
                     {"id": 9, "content": "<tool>", "special": false, "normalized": false}],
    "model": {"type": "BPE", "unk_token": "?", "fuse_unk": false,
      "vocab": {"?": 0, "a": 1, "b": 2, "c": 3, "<": 4, "ab": 5, "abc": 6}, "merges": ["a b", ["ab", "c"]]}})");
}

std::unique_ptr<Tokenizer> load(const Json& json, std::string_view config = {},
                                std::string_view generation = {}) {
  return make_tokenizer(spec_from_tokenizer_json(json.dump(), config, generation));
}

std::string error_of(const std::string& text, ErrorCode code, std::string_view config = {},
                     std::string_view generation = {}) {
  try {
    make_tokenizer(spec_from_tokenizer_json(text, config, generation));
  } catch (const Error& error) {
    EXPECT_EQ(to_string(error.code()), to_string(code)) << error.what();
    EXPECT_EQ(std::string_view(error.what()).find('\n'), std::string_view::npos);
    return error.what();
  }
  return "no error";
}

TEST(Tokenizer, OptionsDecideAboutSpecialTokens) {
  const auto tokenizer = load(tiny());
  EXPECT_THAT(tokenizer->encode("abcab"), ElementsAre(7, 6, 5));
  EXPECT_THAT(tokenizer->encode("ab", {.add_special = false}), ElementsAre(5));
  EXPECT_THAT(tokenizer->encode("c<|im_end|><tool>", {.add_special = false}), ElementsAre(3, 8, 9));
  EXPECT_THAT(tokenizer->encode("<s><tool>", {.add_special = false, .parse_special = false}),
              ElementsAre(4, 0, 0, 9));
  EXPECT_THAT(tokenizer->encode(""), ElementsAre(7));
}

TEST(Tokenizer, DecodesAndDescribesItsPieces) {
  const auto tokenizer = load(tiny());
  const std::vector<TokenId> ids = {7, 6, 9, 8};
  EXPECT_EQ(tokenizer->decode(ids), "<s>abc<tool><|im_end|>");
  EXPECT_EQ(tokenizer->decode(ids, {.skip_special = true}), "abc<tool>");
  EXPECT_EQ(tokenizer->piece(8), "");
  EXPECT_EQ(tokenizer->piece(9), "<tool>");
  EXPECT_EQ(tokenizer->token(8), "<|im_end|>");
  EXPECT_EQ(tokenizer->find("abc"), 6);
  EXPECT_EQ(tokenizer->find("nope"), -1);
  EXPECT_TRUE(tokenizer->is_control(7));
  EXPECT_FALSE(tokenizer->is_control(9));
  EXPECT_FALSE(tokenizer->is_control(-1));
  EXPECT_EQ(tokenizer->vocab_size(), 10u);
  EXPECT_THROW(tokenizer->decode(std::vector<TokenId>{10}), Error);
  EXPECT_THROW(tokenizer->piece(-1), Error);
}

TEST(Tokenizer, ReadsTheFilesAroundIt) {
  const auto tokenizer = load(tiny(), R"({"bos_token": {"content": "<s>"}, "eos_token": "<tool>",
                       "chat_template": [{"name": "rag", "template": "no"}, {"name": "default", "template": "{{ x }}"}]})",
                              R"({"eos_token_id": [9, 6]})");
  EXPECT_EQ(tokenizer->bos(), 7);
  EXPECT_EQ(tokenizer->eos(), 9);
  EXPECT_THAT(std::vector<TokenId>(tokenizer->stop_tokens().begin(), tokenizer->stop_tokens().end()),
              ElementsAre(6, 8, 9));  // 8 is <|im_end|>, a known end of a turn
  EXPECT_EQ(tokenizer->chat_template(), "{{ x }}");
}

TEST(Tokenizer, MergesMayStandBeforeTheVocabulary) {
  Json json = tiny();
  std::string model = json["model"].dump();  // nlohmann sorts keys: merges come before vocab
  ASSERT_LT(model.find("merges"), model.find("vocab"));
  EXPECT_THAT(load(json)->encode("abc"), ElementsAre(7, 6));
  model = R"({"vocab":)" + json["model"]["vocab"].dump() +
          R"(,"merges":["a b","ab c"],"type":"BPE","unk_token":"?"})";
  json["model"] = nullptr;
  std::string text = json.dump();
  const size_t at = text.find(R"("model":null)");
  text.replace(at + 8, 4, model);
  EXPECT_THAT(make_tokenizer(spec_from_tokenizer_json(text))->encode("abc"), ElementsAre(7, 6));
}

TEST(Tokenizer, EscapedPiecesAreRead) {
  const std::string text =
      R"({"model": {"type": "BPE", "vocab": {"\u00e9": 0, "\ud83d\ude00": 1, "\"\\\n": 2}, "merges": []}})";
  const auto tokenizer = make_tokenizer(spec_from_tokenizer_json(text));
  EXPECT_THAT(tokenizer->encode("é😀"), ElementsAre(0, 1));
  EXPECT_EQ(tokenizer->token(2), "\"\\\n");
}

TEST(Tokenizer, AMegabyteWithoutSpacesIsFast) {
  const Json document = Json::parse(read_text_file(golden::folder() / "small_chars.json"));
  const auto tokenizer = load(document);
  std::string text;
  for (uint32_t i = 0; text.size() < (1u << 20); ++i) text += static_cast<char>('a' + (i * i + i / 7) % 26);
  const auto begin = std::chrono::steady_clock::now();
  const auto ids = tokenizer->encode(text);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  EXPECT_EQ(tokenizer->decode(ids), text);
  // A quadratic merge would take minutes; this leaves room for sanitizers and busy machines.
  EXPECT_LT(took.count(), 20.0);
}

struct BadFile {
  const char* name;
  const char* patch;  // JSON merge patch of tiny()
  ErrorCode code;
  const char* message;
};

class RefusedTokenizer : public testing::TestWithParam<BadFile> {};

TEST_P(RefusedTokenizer, NamesWhatIsWrong) {
  Json json = tiny();
  json.merge_patch(Json::parse(GetParam().patch));
  EXPECT_THAT(error_of(json.dump(), GetParam().code), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    Json, RefusedTokenizer,
    testing::Values(
        BadFile{"UnknownMerge", R"({"model": {"merges": ["a z"]}})", ErrorCode::corrupt,
                "merge 0, \"a\" and \"z\""},
        BadFile{"MergeOfOne", R"({"model": {"merges": ["ab"]}})", ErrorCode::corrupt, "is not two pieces"},
        BadFile{"MergeOfNumbers", R"({"model": {"merges": [1]}})", ErrorCode::corrupt, "byte"},
        BadFile{"IdTwice", R"({"model": {"vocab": {"x": 1}}})", ErrorCode::corrupt, "have the same id 1"},
        BadFile{"NegativeId", R"({"model": {"vocab": {"x": -1}}})", ErrorCode::corrupt, "out of range"},
        BadFile{"HugeId", R"({"model": {"vocab": {"x": 99999999999}}})", ErrorCode::corrupt, "out of range"},
        BadFile{"ManyHoles", R"({"model": {"vocab": {"x": 9999999}}})", ErrorCode::corrupt,
                "ids are missing"},
        BadFile{"FractionalId", R"({"model": {"vocab": {"x": 11.5}}})", ErrorCode::corrupt, "byte"},
        BadFile{"NoVocab", R"({"model": {"vocab": null}})", ErrorCode::corrupt, "vocab"},
        BadFile{"UnknownToken", R"({"model": {"unk_token": "nope"}})", ErrorCode::corrupt,
                "unk_token \"nope\""},
        BadFile{"WordPiece", R"({"model": {"type": "WordPiece"}})", ErrorCode::unsupported, "WordPiece"},
        BadFile{"Dropout", R"({"model": {"dropout": 0.1}})", ErrorCode::unsupported, "dropout"},
        BadFile{"Suffix", R"({"model": {"end_of_word_suffix": "</w>"}})", ErrorCode::unsupported,
                "end_of_word_suffix"},
        BadFile{"AddedElsewhere",
                R"({"post_processor": null, "added_tokens": [{"id": 3, "content": "<x>"}]})",
                ErrorCode::corrupt, "the vocabulary spells it \"c\""},
        BadFile{"AddedFarAway", R"({"added_tokens": [{"id": 900000, "content": "<x>"}]})", ErrorCode::corrupt,
                "the vocabulary ends at"},
        BadFile{"AddedKnown", R"({"added_tokens": [{"id": 7, "content": "abc"}]})", ErrorCode::corrupt,
                "the vocabulary has it at 6"},
        BadFile{"Normalizer", R"({"normalizer": {"type": "Nmt"}})", ErrorCode::unsupported, "\"Nmt\""},
        BadFile{"PreTokenizer", R"({"pre_tokenizer": {"type": "UnicodeScripts"}})", ErrorCode::unsupported,
                "\"UnicodeScripts\""},
        BadFile{"Decoder", R"({"decoder": {"type": "CTC"}})", ErrorCode::unsupported, "\"CTC\""},
        BadFile{"PostProcessor", R"({"post_processor": {"type": "Other"}})", ErrorCode::unsupported,
                "\"Other\""},
        BadFile{"TemplateId", R"({"post_processor": {"special_tokens": {"<s>": {"ids": [70]}}}})",
                ErrorCode::corrupt, "id 70 is outside"},
        BadFile{"Regex",
                R"({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated"}})",
                ErrorCode::unsupported, "regular expression \"(\""},
        BadFile{"Behavior",
                R"({"pre_tokenizer": {"type": "Split", "pattern": {"String": "x"}, "behavior": "Odd"}})",
                ErrorCode::unsupported, "\"Odd\""},
        BadFile{"Charsmap", R"({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "////AAAA"}})",
                ErrorCode::corrupt, "character map"}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(Tokenizer, RefusesTruncationAtEveryByte) {
  const std::string text = tiny().dump();
  for (size_t size = 0; size < text.size(); ++size)
    EXPECT_NE(error_of(text.substr(0, size), ErrorCode::corrupt), "no error") << size;
}

TEST(Tokenizer, RefusesDuplicateKeysNestingAndWrongKinds) {
  EXPECT_THAT(error_of(R"({"model": {"vocab": {"a": 0, "a": 1}, "merges": []}})", ErrorCode::corrupt),
              HasSubstr("twice"));
  EXPECT_THAT(
      error_of(R"({"model": {"vocab": {"a": 0}, "vocab": {"b": 0}, "merges": []}})", ErrorCode::corrupt),
      HasSubstr("\"vocab\" twice"));
  EXPECT_THAT(error_of(R"({"model": {"vocab": {"a": 0}, "merges": []}, "x": )" + std::string(9999, '[') +
                           std::string(9999, ']') + "}",
                       ErrorCode::corrupt),
              HasSubstr("nested"));
  EXPECT_THAT(error_of("[]", ErrorCode::corrupt), HasSubstr("byte 0"));
  EXPECT_THAT(error_of(R"({"model": {"vocab": [["a", 0]], "type": "Unigram"}})", ErrorCode::corrupt),
              HasSubstr("unknown token"));
  EXPECT_THAT(error_of(tiny().dump(), ErrorCode::corrupt, {}, R"({"eos_token_id": 10})"),
              HasSubstr("eos_token_id"));
  EXPECT_THAT(error_of(tiny().dump(), ErrorCode::corrupt, "[]"), HasSubstr("tokenizer_config.json"));
}

TEST(Tokenizer, RefusesANormalizerThatExplodes) {
  Json json = tiny();
  json["normalizer"] = {{"type", "Sequence"}, {"normalizers", Json::array()}};
  for (int i = 0; i < 60; ++i)
    json["normalizer"]["normalizers"].push_back(
        {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", std::string(200, 'a')}});
  const auto tokenizer = load(json);
  EXPECT_THROW(tokenizer->encode("aaaa"), Error);
}

}  // namespace
}  // namespace mneme::tokenizer_test
