#include "engine/stop_matcher.h"

#include <gtest/gtest.h>

#include "core/random.h"
#include "mneme/error.h"

namespace mneme::stop_matcher_test {
namespace {

struct Outcome {
  std::string text;
  bool matched = false;
  bool operator==(const Outcome&) const = default;
};

// The definition, by brute force: the match that ends first, of those the longest.
Outcome reference(const std::string& text, const std::vector<std::string>& patterns) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t match = 0;
    for (const auto& pattern : patterns)
      if (pattern.size() <= end && text.compare(end - pattern.size(), pattern.size(), pattern) == 0)
        match = std::max(match, pattern.size());
    if (match > 0) return {text.substr(0, end - match), true};
  }
  return {text, false};
}

Outcome stream(const std::string& text, const std::vector<std::string>& patterns,
               const std::vector<size_t>& cuts) {
  StopMatcher matcher(patterns);
  std::string out;
  size_t at = 0;
  for (const size_t cut : cuts) {
    out += matcher.push(text.substr(at, cut - at));
    at = cut;
  }
  out += matcher.push(text.substr(at));
  out += matcher.finish();
  return {out, matcher.matched()};
}

TEST(StopMatcher, HoldsBackOnlyWhatMayStillBecomeAStop) {
  StopMatcher matcher({"STOP", "\n\n"});
  EXPECT_EQ(matcher.push("abc"), "abc");
  EXPECT_EQ(matcher.push("xS"), "x");
  EXPECT_EQ(matcher.push("T"), "");
  EXPECT_EQ(matcher.push("ART"), "START");
  EXPECT_EQ(matcher.push("\n"), "");
  EXPECT_EQ(matcher.push("S"), "\n");
  EXPECT_EQ(matcher.push("TO"), "");
  EXPECT_EQ(matcher.push("P and more"), "");
  EXPECT_TRUE(matcher.matched());
  EXPECT_EQ(matcher.push("ignored"), "");
  EXPECT_EQ(matcher.finish(), "");
}

TEST(StopMatcher, HeldTextComesOutAtTheEnd) {
  StopMatcher matcher({"abcd"});
  EXPECT_EQ(matcher.push("xxabc"), "xx");
  EXPECT_EQ(matcher.finish(), "abc");
  EXPECT_FALSE(matcher.matched());
}

TEST(StopMatcher, SelfOverlappingPatternsAreFound) {
  EXPECT_EQ(stream("aaab", {"aab"}, {1, 2, 3}), (Outcome{"a", true}));
  EXPECT_EQ(stream("ababac", {"abac"}, {3, 5}), (Outcome{"ab", true}));
}

TEST(StopMatcher, TheMatchThatEndsFirstWinsThenTheLongest) {
  EXPECT_EQ(stream("xabcdy", {"abcde", "bc"}, {}), (Outcome{"xa", true}));
  EXPECT_EQ(stream("xabcdy", {"d", "abcd", "cd"}, {}), (Outcome{"x", true}));
}

TEST(StopMatcher, WithoutPatternsTextPassesAtOnce) {
  StopMatcher matcher({});
  EXPECT_EQ(matcher.push("anything"), "anything");
}

TEST(StopMatcher, EveryCutOfRandomTextsEqualsBruteForce) {
  Pcg64 random(11);
  size_t matches = 0;
  for (int round = 0; round < 3000; ++round) {
    const auto word = [&](size_t longest) {
      std::string out(1 + random.below(longest), ' ');
      for (char& c : out) c = "ab\n"[random.below(3)];
      return out;
    };
    std::vector<std::string> patterns(1 + random.below(3));
    for (auto& pattern : patterns) pattern = word(5);
    const std::string text = word(40);
    std::vector<size_t> cuts;
    for (size_t at = random.below(4); at < text.size(); at += 1 + random.below(4)) cuts.push_back(at);
    const Outcome expected = reference(text, patterns);
    ASSERT_EQ(stream(text, patterns, cuts), expected);
    matches += expected.matched ? 1 : 0;
  }
  EXPECT_GT(matches, 1000u);
  EXPECT_LT(matches, 2999u);
}

TEST(StopMatcher, EmptyAndMalformedPatternsAreRefused) {
  for (const char* bad : {"", "\xA9", "a\xC3"}) {
    try {
      StopMatcher matcher({"fine", bad});
      FAIL() << bad;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    }
  }
}

}  // namespace
}  // namespace mneme::stop_matcher_test
