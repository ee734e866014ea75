#include "text/pretokenizer.h"

#include <gmock/gmock.h>

#include "mneme/error.h"
#include "text/tokenizer_golden.h"

namespace mneme::pretokenizer_test {
namespace {

using testing::ElementsAre;

PreTokenizerStep step_of(PreTokenizerStep::Kind kind, std::string pattern = {},
                         SplitBehavior behavior = SplitBehavior::isolated) {
  PreTokenizerStep step;
  step.kind = kind;
  step.pattern = std::move(pattern);
  step.behavior = behavior;
  return step;
}

std::vector<std::string> split(std::vector<PreTokenizerStep> steps, std::string_view text) {
  const PreTokenizer pre_tokenizer(std::move(steps));
  Words words;
  pre_tokenizer.split(text, TextPlace::start, words);
  return {words.words.begin(), words.words.end()};
}

// The scanners against the patterns that they stand for, run by ICU's regex engine.
void expect_scanner_equals(std::string_view pattern) {
  const PreTokenizer scanner({step_of(PreTokenizerStep::Kind::split_regex, std::string(pattern))});
  // A group around the pattern changes nothing but keeps it from being recognised.
  const PreTokenizer engine(
      {step_of(PreTokenizerStep::Kind::split_regex, "(?:" + std::string(pattern) + ")")});
  Words a, b;
  size_t compared = 0;
  for (const std::string& raw : golden::corpus()) {
    if (raw.size() > 100000) continue;
    const std::string line = repair_utf8(raw);
    scanner.split(line, TextPlace::start, a);
    engine.split(line, TextPlace::start, b);
    ASSERT_EQ(a.words, b.words) << golden::excerpt(line);
    compared += a.words.size();
  }
  EXPECT_GT(compared, 100000u);
}

TEST(PreTokenizer, Gpt2ScannerEqualsItsPattern) {
  expect_scanner_equals(kGpt2Pattern);
}
TEST(PreTokenizer, Llama3ScannerEqualsItsPattern) {
  expect_scanner_equals(kLlama3Pattern);
}
TEST(PreTokenizer, Qwen2ScannerEqualsItsPattern) {
  expect_scanner_equals(kQwen2Pattern);
}

TEST(PreTokenizer, SplitsByBehavior) {
  using enum SplitBehavior;
  const auto literal = [](SplitBehavior behavior) {
    return split({step_of(PreTokenizerStep::Kind::split_literal, "-", behavior)}, "the-final--countdown");
  };
  EXPECT_THAT(literal(isolated), ElementsAre("the", "-", "final", "-", "-", "countdown"));
  EXPECT_THAT(literal(removed), ElementsAre("the", "final", "countdown"));
  EXPECT_THAT(literal(merged_with_previous), ElementsAre("the-", "final-", "-", "countdown"));
  EXPECT_THAT(literal(merged_with_next), ElementsAre("the", "-final", "-", "-countdown"));
  EXPECT_THAT(literal(contiguous), ElementsAre("the", "-", "final", "--", "countdown"));
}

TEST(PreTokenizer, ARegexThatExplodesIsAnErrorNotAHang) {
  const PreTokenizer pre_tokenizer({step_of(PreTokenizerStep::Kind::split_regex, "(a|a|aa)+$b")});
  Words words;
  try {
    pre_tokenizer.split(std::string(4000, 'a'), TextPlace::start, words);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::limit);
    EXPECT_THAT(error.what(), testing::HasSubstr("gave up"));
  }
}

TEST(PreTokenizer, RefusesWhatItCannotDo) {
  EXPECT_THROW(PreTokenizer({step_of(PreTokenizerStep::Kind::split_regex, "(unclosed")}), Error);
  EXPECT_THROW(
      PreTokenizer({step_of(PreTokenizerStep::Kind::byte_level), step_of(PreTokenizerStep::Kind::digits)}),
      Error);
  EXPECT_THROW(PreTokenizer({step_of(PreTokenizerStep::Kind::metaspace)}), Error);
}

}  // namespace
}  // namespace mneme::pretokenizer_test
