#include "engine/synthetic.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "engine/session_impl.h"
#include "engine/tiny_models.h"
#include "mneme/error.h"

namespace mneme::synthetic_test {
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

TEST(SyntheticSession, FillsRecurrences) {
  for (const char* name : {"mixers/delta", "mixers/hybrid"}) {
    const auto model = load_tiny(name);
    Session filled(model);
    fill_synthetic(filled, 700, 1);
    const auto* state =
        reinterpret_cast<const float*>(filled.impl().state.recurrent().contents().current->data());
    EXPECT_NE(state[0], 0) << name;
    const TokenId id = 5;
    const auto logits = filled.append({&id, 1});
    EXPECT_TRUE(std::all_of(logits.begin(), logits.end(), [](float x) { return std::isfinite(x); })) << name;
    filled.rollback(1);
    EXPECT_EQ(filled.position(), 700u) << name;
  }
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
}  // namespace mneme::synthetic_test
