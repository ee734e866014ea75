// Prompts with common beginnings: every token read once, and every answer as if its prompt had been read
// alone.
#include "eval/prompt_tree.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "engine/fake_sequence.h"

namespace mneme::prompt_tree_test {
namespace {

using namespace testing_fakes;
using Ids = std::vector<TokenId>;

// Tokens that a trie of the prompts has, none of them sharing its last one: the definition.
uint64_t unique_tokens(const std::vector<Ids>& prompts) {
  std::set<Ids> prefixes;
  uint64_t last = 0;
  for (const Ids& ids : prompts) {
    for (size_t n = 1; n < ids.size(); ++n)
      prefixes.insert(Ids(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(n)));
    ++last;
  }
  return prefixes.size() + last;
}

// In parts of different lengths, empty ones among them.
Prompt in_parts(const Ids& ids, Pcg64& random) {
  Prompt prompt;
  for (size_t at = 0; at < ids.size();) {
    const size_t n = std::min<size_t>(ids.size() - at, random.below(5));
    prompt.parts.push_back(std::span(ids).subspan(at, n));
    at += n;
  }
  return prompt;
}

std::vector<Ids> random_prompts(uint64_t seed) {
  Pcg64 random(seed);
  std::vector<Ids> prompts{{5}, {5, 5}};
  for (int i = 0; i < 12; ++i) {
    // Beginnings of earlier prompts, so that branches lie in branches.
    const Ids& other = prompts[random.below(prompts.size())];
    Ids ids(other.begin(), other.begin() + static_cast<std::ptrdiff_t>(random.below(other.size() + 1)));
    for (uint64_t n = 1 + random.below(20); n > 0; --n)
      ids.push_back(static_cast<TokenId>(5 + random.below(2)));
    prompts.push_back(ids);
    if (random.below(4) == 0) prompts.push_back(ids);  // the same once more
  }
  return prompts;
}

TEST(PromptTree, EveryAnswerIsThatOfItsPromptReadAlone) {
  for (uint64_t seed = 0; seed < 40; ++seed) {
    const auto ids = random_prompts(seed);
    Pcg64 random(seed);
    std::vector<Prompt> prompts;
    for (const Ids& one : ids) prompts.push_back(in_parts(one, random));
    FakeModel model;
    uint64_t read = 0;
    model.on_append = [&](size_t) { ++read; };
    FakeRunner runner(model);
    const PromptTree tree = plan_prompts(prompts);
    std::map<size_t, Ids> seen;
    uint64_t told = 0;
    PromptVisitor visitor;
    visitor.progress = [&](uint64_t tokens) { told += tokens; };
    visitor.answer = [&](size_t which, Sequence& sequence, TokenId last) {
      sequence.append(std::span(&last, 1), {});
      EXPECT_TRUE(seen.emplace(which, sequence.tokens()).second);
    };
    read_prompts(runner, prompts, tree, visitor);
    ASSERT_EQ(seen.size(), ids.size());
    uint64_t total = 0;
    for (const auto& [which, tokens] : seen) {
      EXPECT_EQ(tokens, ids[which]) << "seed " << seed << ", prompt " << which;
      total += tokens.size();
    }
    EXPECT_EQ(tree.total, total);
    EXPECT_EQ(tree.unique, unique_tokens(ids));
    EXPECT_EQ(read, tree.unique);
    EXPECT_EQ(told, tree.unique);
  }
}

TEST(PromptTree, PartsAndRanges) {
  const Ids a{1, 2, 3, 4, 5}, b{1, 2, 3, 9};
  const Prompt whole{{a}}, parts{{std::span(a).first(2), {}, std::span(a).subspan(2)}}, other{{b}};
  EXPECT_EQ(common_prefix(whole, parts), 5u);
  EXPECT_EQ(common_prefix(parts, other), 3u);
  EXPECT_EQ(common_prefix(parts, Prompt{}), 0u);
  EXPECT_EQ(parts.ids(1, 4), (Ids{2, 3, 4}));
  EXPECT_THROW(plan_prompts(std::vector<Prompt>{whole, Prompt{}}), Error);
}

}  // namespace
}  // namespace mneme::prompt_tree_test
