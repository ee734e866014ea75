#include "engine/synthetic.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "engine/tiny_models.h"
#include "mneme/error.h"

namespace mneme {
namespace {

TEST(SyntheticSession, DecodesAfterItsDepthAndRollsBack) {
  const auto model = load_tiny("llama");
  SessionOptions options;
  options.max_context = 2000;
  Session a(model, options), b(model, options), other(model, options);
  fill_synthetic(a, 700, 1);
  fill_synthetic(b, 700, 1);
  fill_synthetic(other, 700, 2);
  EXPECT_EQ(a.position(), 700u);
  EXPECT_EQ(a.tokens().size(), 700u);
  const TokenId id = 5;
  const auto first = a.append({&id, 1}), same = b.append({&id, 1}), different = other.append({&id, 1});
  EXPECT_TRUE(std::equal(first.begin(), first.end(), same.begin()));
  EXPECT_FALSE(std::equal(first.begin(), first.end(), different.begin()));
  EXPECT_TRUE(std::all_of(first.begin(), first.end(), [](float x) { return std::isfinite(x); }));
  a.rollback(1);
  EXPECT_EQ(a.position(), 700u);
}

TEST(SyntheticSession, HoldsAsMuchMemoryAsOneThatRead) {
  const auto model = load_tiny("gemma3");
  SessionOptions options;
  options.max_context = 3000;
  Session read(model, options), filled(model, options);
  const std::vector<TokenId> ids(2100, 3);
  read.append(ids);
  fill_synthetic(filled, ids.size(), 1);
  EXPECT_EQ(filled.state_bytes(), read.state_bytes());
}

TEST(SyntheticSession, OnlyAnEmptySessionWithinItsContextCanBeFilled) {
  const auto model = load_tiny("llama");
  SessionOptions options;
  options.max_context = 64;
  Session session(model, options);
  EXPECT_THROW(fill_synthetic(session, 65, 1), Error);
  fill_synthetic(session, 3, 1);
  EXPECT_THROW(fill_synthetic(session, 3, 1), Error);
}

}  // namespace
}  // namespace mneme
