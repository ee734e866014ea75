// Models with recurrences beside an independent implementation: the tiny checkpoints of tests/data/mixers
// with logits that tools/mixer_reference.py computed in float64, token by token from the definitions.
#include <gtest/gtest.h>

#include <cmath>

#include "core/huge_buffer.h"
#include "engine/session_impl.h"
#include "engine/tiny_models.h"
#include "mneme/session.h"

namespace mneme::recurrent_models_test {
namespace {

SessionOptions options() {
  SessionOptions o;
  o.kv = KvType::f32;
  return o;
}

class RecurrentModels : public testing::TestWithParam<const char*> {
 protected:
  static std::string name() { return std::string("mixers/") + GetParam(); }
};

TEST_P(RecurrentModels, EveryChunkSizeGivesTheLogitsOfTheReference) {
  const auto model = load_tiny(name());
  const Golden golden = load_golden(name());
  float largest = 0;
  for (const float x : golden.logits) largest = std::max(largest, std::abs(x));
  for (const size_t piece : {golden.ids.size(), size_t{1}, size_t{7}, size_t{16}}) {
    const auto got = logits_in_pieces(model, golden.ids, piece);
    ASSERT_EQ(got.size(), golden.logits.size());
    for (size_t i = 0; i < got.size(); ++i)
      ASSERT_NEAR(got[i], golden.logits[i], 1e-4f * largest) << "logit " << i << " in pieces of " << piece;
  }
}

TEST_P(RecurrentModels, SlicesOfOnePassDoNotSeeEachOther) {
  const auto model = load_tiny(name());
  const Golden golden = load_golden(name());
  const std::span ids(golden.ids);
  const size_t counts[] = {5, 1, 17}, vocab = model->config().vocab;
  std::vector<Session> sessions;
  std::vector<Slice> slices;
  std::vector<TokenId> all;
  std::vector<int64_t> rows;
  for (const size_t n : counts) {
    sessions.emplace_back(model, options());
    sessions.back().append(ids.first(n));  // each at a position of its own
  }
  for (size_t i = 0; i < 3; ++i) {
    SessionImpl& s = sessions[i].impl();
    const auto count = static_cast<int64_t>(counts[i]);
    s.state.reserve(count);
    slices.push_back({&s.state, std::ssize(all), count, s.state.position(), s.tokens});
    all.insert(all.end(), ids.begin() + 10, ids.begin() + 10 + count);
    rows.push_back(std::ssize(all) - 1);
  }
  std::vector<float> logits(3 * vocab);
  ASSERT_TRUE(sessions[0].impl().executor->run(slices, all, rows, logits.data(), nullptr));
  for (size_t i = 0; i < 3; ++i) {
    Session alone(model, options());
    alone.append(ids.first(counts[i]));
    const auto expected = alone.append(ids.subspan(10, counts[i]));
    for (size_t v = 0; v < vocab; ++v)
      ASSERT_NEAR(logits[i * vocab + v], expected[v], 2e-5f) << "slice " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, RecurrentModels,
                         testing::Values("gla_low_rank", "gla_matrix", "gla_tied", "delta", "hybrid"),
                         [](const auto& p) { return std::string(p.param); });

// The state of a model of windows and recurrences does not depend on the position.
TEST(RecurrentState, StaysAsLargeAsItIs) {
  for (const char* name : {"mixers/gla_low_rank", "mixers/delta"}) {
    const auto model = load_tiny(name);
    SessionOptions o = options();
    o.max_context = 1 << 20;
    Session session(model, o);
    const std::vector<TokenId> ids(1000, 1);
    const auto most_over = [&](int tokens) {
      uint64_t most = 0;
      for (int i = 0; i < tokens; ++i) {
        session.append(std::span(ids).first(1));
        most = std::max(most, session.state_bytes());
      }
      return most;
    };
    session.append(ids);
    const uint64_t early = most_over(100);
    for (int i = 0; i < 10; ++i) session.append(ids);
    EXPECT_EQ(most_over(100), early) << name;
  }
}

}  // namespace
}  // namespace mneme::recurrent_models_test
