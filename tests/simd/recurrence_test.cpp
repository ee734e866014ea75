// Recurrences against their specification in double precision, on every instruction set.
#include "simd/recurrence.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "every_isa.h"
#include "simd/elementwise.h"
#include "simd/recurrence_chunk.h"
#include "simd/recurrence_inputs.h"

namespace mneme::recurrence_test {
namespace {

using Rule = RecurrenceShape::Rule;

/// Random inputs of one head.
struct Inputs {
  RecurrenceShape shape;
  int64_t count;
  std::vector<float> update, q, y;

  /// gates: where the logits of the decays lie (-22: closed, 5: open).
  Inputs(const RecurrenceShape& s, int64_t tokens, uint32_t seed, float gates)
      : shape(s),
        count(tokens),
        update(static_cast<size_t>(tokens * s.update_values())),
        q(static_cast<size_t>(tokens * s.group * s.dim)),
        y(q.size(), 7.0f) {
    std::mt19937 rng(seed);
    std::normal_distribution<float> normal;
    for (auto& x : q) x = std::max(0.0f, normal(rng)) / std::sqrt(static_cast<float>(s.dim));
    for (int64_t t = 0; t < tokens; ++t) {
      float* row = update.data() + t * s.update_values();
      for (int64_t i = 0; i < s.dim; ++i) row[i] = normal(rng);
      float* k = row + s.k_offset();
      for (int64_t i = 0; i < s.dim; ++i) k[i] = std::max(0.0f, normal(rng));
      float* decay = row + s.decay_offset();
      if (s.rule == Rule::gla) {
        for (int64_t i = 0; i < s.dim; ++i) decay[i] = gates + 2 * normal(rng);
        gla_decays(decay, 16, s.dim, decay);
      } else {
        l2_normalise(1e-6f, 1, s.dim, k);
        *decay = delta_decay(normal(rng) - gates, 0, 0);
        row[s.beta_offset()] = delta_beta(normal(rng));
      }
    }
  }
  RecurrenceTokens tokens(int64_t first, int64_t n) {
    const int64_t width = shape.group * shape.dim;
    return {update.data() + first * shape.update_values(),
            shape.update_values(),
            q.data() + first * width,
            width,
            y.data() + first * width,
            width,
            n};
  }
};

struct Result {
  std::vector<float> y, state;
};

// In chunks of n tokens, the state moving between two buffers, in column tiles of `tile`.
Result run(Inputs inputs, int64_t n, int64_t tile) {
  const RecurrenceShape& s = inputs.shape;
  std::vector<float> state(static_cast<size_t>(s.head_values())), next(state.size(), -1.0f);
  for (int64_t at = 0; at < inputs.count; at += n) {
    for (int64_t c = 0; c < s.columns(); c += tile)
      run_recurrence(s, inputs.tokens(at, std::min(n, inputs.count - at)), c, std::min(c + tile, s.columns()),
                     state.data(), next.data());
    state.swap(next);
  }
  return {inputs.y, state};
}

void expect_near(const std::vector<float>& got, const std::vector<double>& expected, double tolerance) {
  double size = 0;
  for (const double x : expected) size = std::max(size, std::abs(x));
  for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], tolerance * size + 1e-30) << i;
}

std::vector<RecurrenceShape> shapes() {
  std::vector<RecurrenceShape> list;
  for (const Rule rule : {Rule::gla, Rule::delta}) {
    for (const int64_t dim : {1, 2, 3, 7, 16, 17, 33, 64, 80, 128}) list.push_back({rule, 1, 3, dim});
    for (int64_t group = 1; group <= 10; ++group) list.push_back({rule, 1, group, 48});
  }
  return list;
}

class RecurrenceOnEveryIsa : public OnEveryIsa {};

TEST_P(RecurrenceOnEveryIsa, EqualsDoublePrecision) {
  for (const RecurrenceShape& s : shapes())
    for (const float gates : {3.0f, -22.0f, -400.0f}) {  // open, closed as in the literature, underflowing
      Inputs inputs(s, 150, 1, gates);
      std::vector<double> state(static_cast<size_t>(s.head_values())), y(inputs.y.size());
      run_recurrence_plain(s, inputs.tokens(0, inputs.count), state.data(), y.data());
      const Result got = run(inputs, inputs.count, s.columns());
      SCOPED_TRACE(testing::Message() << "dim " << s.dim << " group " << s.group << " gates " << gates);
      expect_near(got.y, y, 2e-6);
      expect_near(got.state, state, 2e-6);
    }
}

TEST_P(RecurrenceOnEveryIsa, ChunksAndTilesChangeNoBit) {
  for (const RecurrenceShape& s : shapes()) {
    const Inputs inputs(s, 67, 2, 2.0f);
    const Result whole = run(inputs, inputs.count, s.columns());
    for (const int64_t chunk : {1, 7, 64}) {
      const Result got = run(inputs, chunk, kStateColumns);
      ASSERT_EQ(got.y, whole.y) << "dim " << s.dim << " group " << s.group << " chunk " << chunk;
      ASSERT_EQ(got.state, whole.state) << "dim " << s.dim << " group " << s.group << " chunk " << chunk;
    }
  }
}

TEST_P(RecurrenceOnEveryIsa, StateWithoutReadOutHasTheSameBits) {
  for (const RecurrenceShape& s : shapes()) {
    Inputs inputs(s, 20, 3, 2.0f);
    const Result expected = run(inputs, inputs.count, s.columns());
    std::vector<float> state(static_cast<size_t>(s.head_values()));
    RecurrenceTokens tokens = inputs.tokens(0, inputs.count);
    tokens.q = nullptr;
    tokens.y = nullptr;
    run_recurrence(s, tokens, 0, s.columns(), state.data(), state.data());
    ASSERT_EQ(state, expected.state) << "dim " << s.dim;
  }
}

TEST_P(RecurrenceOnEveryIsa, ChunkFormEqualsDoublePrecisionAtAnySplit) {
  for (const RecurrenceShape& s : shapes()) {
    if (s.rule != Rule::gla) continue;
    for (const float gates : {8.0f, 3.0f, -22.0f, -400.0f}) {
      Inputs inputs(s, 200, 4, gates);
      std::vector<double> expected_state(static_cast<size_t>(s.head_values())), expected(inputs.y.size());
      run_recurrence_plain(s, inputs.tokens(0, inputs.count), expected_state.data(), expected.data());
      ChunkScratch scratch;
      std::mt19937 rng(static_cast<uint32_t>(s.dim));
      for (const int64_t most : {200, 90, 20}) {
        std::vector<float> state(expected_state.size());
        for (int64_t at = 0, n = 0; at < inputs.count; at += n) {
          n = std::min(inputs.count - at, most == 200 ? most : 1 + static_cast<int64_t>(rng()) % most);
          run_recurrence_chunked(s, inputs.tokens(at, n), scratch, state.data());
        }
        SCOPED_TRACE(testing::Message() << "dim " << s.dim << " group " << s.group << " gates " << gates);
        expect_near(inputs.y, expected, 1e-5);
        expect_near(state, expected_state, 1e-5);
      }
    }
  }
}

// By hand: decay 1/2 and q = k = v = 1 give 1, 1.5, 1.75.
TEST_P(RecurrenceOnEveryIsa, HalfDecayOfOnes) {
  const RecurrenceShape s{Rule::gla, 1, 1, 1};
  Inputs inputs(s, 3, 1, 0);
  for (int64_t t = 0; t < 3; ++t) {
    float* row = inputs.update.data() + t * s.update_values();
    row[0] = row[s.k_offset()] = 1;
    row[s.decay_offset()] = 0.5f;
    inputs.q[static_cast<size_t>(t)] = 1;
  }
  EXPECT_EQ(run(inputs, 1, s.columns()).y, (std::vector<float>{1, 1.5f, 1.75f}));
}

// By hand: with beta 1, decay 1 and a unit key, the delta rule replaces what the key holds.
TEST_P(RecurrenceOnEveryIsa, DeltaRuleReplacesTheValueOfAKey) {
  const RecurrenceShape s{Rule::delta, 1, 1, 2};
  Inputs inputs(s, 2, 1, 0);
  const float values[2][2] = {{3, 4}, {-1, 6}};
  for (int64_t t = 0; t < 2; ++t) {
    float* row = inputs.update.data() + t * s.update_values();
    row[0] = values[t][0];
    row[1] = values[t][1];
    row[s.k_offset()] = 0;
    row[s.k_offset() + 1] = 1;
    row[s.decay_offset()] = row[s.beta_offset()] = 1;
    inputs.q[static_cast<size_t>(2 * t)] = 0;
    inputs.q[static_cast<size_t>(2 * t + 1)] = 1;
  }
  EXPECT_EQ(run(inputs, 2, s.columns()).y, (std::vector<float>{3, 4, -1, 6}));
}

TEST_P(RecurrenceOnEveryIsa, DeadHeadsGiveZerosAndLeaveTheStateToDecay) {
  const RecurrenceShape s{Rule::gla, 1, 2, 24};
  Inputs inputs(s, 4, 5, 1.0f);
  for (int64_t i = 0; i < s.dim; ++i) {
    inputs.q[static_cast<size_t>(2 * s.group * s.dim + i)] = 0;                        // head 0 of token 2
    inputs.update[static_cast<size_t>(3 * s.update_values() + s.k_offset() + i)] = 0;  // key of token 3
  }
  const Result before = run(Inputs(inputs), 2, s.columns()), after = run(inputs, 4, s.columns());
  for (int64_t i = 0; i < s.dim; ++i) EXPECT_EQ(after.y[static_cast<size_t>(2 * s.group * s.dim + i)], 0);
  Inputs three = inputs;
  three.count = 3;
  const Result held = run(three, 3, s.columns());
  for (int64_t r = 0; r < s.dim; ++r)
    for (int64_t c = 0; c < s.dim; ++c) {
      const auto at = static_cast<size_t>(r * s.columns() + c);
      const float decay = inputs.update[static_cast<size_t>(3 * s.update_values() + s.decay_offset() + r)];
      ASSERT_FLOAT_EQ(after.state[at], decay * held.state[at]);
    }
}

// The norm over a head that is all zeros gives zeros, not 0 / 0.
TEST_P(RecurrenceOnEveryIsa, NormOfADeadHeadIsZero) {
  for (const int64_t dim : {1, 7, 16, 33, 128}) {
    const std::vector<float> zero(static_cast<size_t>(dim)), weight(zero.size(), 3);
    std::vector<float> out(zero.size(), 9);
    rms_norm(zero.data(), weight.data(), 1e-6f, dim, out.data());
    ASSERT_EQ(out, zero);
  }
}

constexpr int64_t kSizes[] = {1, 2, 7, 8, 15, 16, 17, 33, 64, 100};

std::vector<float> values(int64_t n, float scale) {
  std::mt19937 rng(static_cast<uint32_t>(n));
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> x(static_cast<size_t>(n));
  for (auto& v : x) v = normal(rng);
  return x;
}

TEST_P(RecurrenceOnEveryIsa, ElementMapsEqualPlainOnes) {
  for (const auto map : {ElementMap::identity, ElementMap::relu, ElementMap::sigmoid, ElementMap::silu})
    for (const int64_t n : kSizes)
      for (const float scale : {1.0f, 40.0f}) {
        const auto x = values(n, scale);
        auto y = x;
        y.push_back(5);
        map_elements(map, 0.25f, n, y.data());
        for (size_t i = 0; i < x.size(); ++i) {
          const double expected = 0.25 * map_element_plain(map, x[i]);
          ASSERT_NEAR(y[i], expected, 1e-6 * std::abs(expected) + 1e-35) << x[i];
        }
        ASSERT_EQ(y.back(), 5);
      }
}

TEST_P(RecurrenceOnEveryIsa, DecaysEqualPlainOnesFromOpenToClosed) {
  for (const float z :
       {-5000.0f, -400.0f, -100.0f, -50.0f, -22.0f, -3.0f, -1e-3f, 0.0f, 1e-3f, 3.0f, 15.0f, 90.0f, 5000.0f})
    for (const float normaliser : {1.0f, 16.0f}) {
      std::vector<float> decay(19, z);
      gla_decays(decay.data(), normaliser, 19, decay.data());
      const double expected = gla_decay_plain(z, normaliser);
      for (const float got : decay) {
        // A power with a large exponent loses relative digits: half an ulp of the logarithm.
        ASSERT_NEAR(got, expected, (3e-7 + 1e-7 * std::abs(std::log(expected + 1e-300))) * expected + 2e-38)
            << z;
        ASSERT_LE(got, 1);
        ASSERT_GE(got, 0);
      }
    }
  EXPECT_EQ(gla_decay_plain(0, 1), 0.5);
}

TEST_P(RecurrenceOnEveryIsa, TiedDecaysAreOneMinusTheKey) {
  for (const int64_t n : kSizes) {
    const auto k = values(n, 0.1f);
    std::vector<float> decay(k.size() + 1, 9);
    tied_decays(k.data(), n, decay.data());
    for (size_t i = 0; i < k.size(); ++i) ASSERT_EQ(decay[i], 1 - k[i]);
    ASSERT_EQ(decay.back(), 9);
  }
}

TEST(RecurrenceInputs, DeltaDecayAndBeta) {
  // exp(-exp(0) * softplus(0)) = exp(-ln 2); a closed and an open end; exp(-e^2 * softplus(1.5))
  EXPECT_FLOAT_EQ(delta_decay(0, 0, 0), 0.5f);
  EXPECT_EQ(delta_decay(1000, 3, 0), 0);
  EXPECT_EQ(delta_decay(-1000, 3, 0), 1);
  EXPECT_NEAR(delta_decay(1, 2, 0.5f), std::exp(-std::exp(2.0) * std::log(1 + std::exp(1.5))), 1e-12);
  EXPECT_EQ(delta_beta(0), 0.5f);
  EXPECT_EQ(delta_beta(1000), 1);
  EXPECT_EQ(delta_beta(-1000), 0);
}

TEST_P(RecurrenceOnEveryIsa, NormOfZerosIsZeroAndOfOthersOne) {
  for (const int64_t n : kSizes) {
    std::vector<float> zero(static_cast<size_t>(n), 0.0f);
    l2_normalise(1e-6f, 3, n, zero.data());
    for (const float x : zero) ASSERT_EQ(x, 0);
    const auto x = values(n, 2);
    auto y = x;
    l2_normalise(1e-6f, 0.5f, n, y.data());
    double sum = 1e-6;
    for (const float v : x) sum += double{v} * v;
    for (size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(y[i], 0.5 * x[i] / std::sqrt(sum), 1e-6);
  }
}

TEST_P(RecurrenceOnEveryIsa, LowRankGateIsTheProduct) {
  for (const int64_t n : kSizes)
    for (const int64_t rank : {1, 5, 16}) {
      const int64_t stride = n + 3;
      const auto y = values(rank, 1), up = values(rank * stride, 1), bias = values(n, 1);
      std::vector<float> z(static_cast<size_t>(n) + 1, 4);
      low_rank_gate(y.data(), up.data(), stride, bias.data(), rank, n, z.data());
      for (int64_t i = 0; i < n; ++i) {
        double expected = bias[static_cast<size_t>(i)];
        for (int64_t r = 0; r < rank; ++r)
          expected += double{y[static_cast<size_t>(r)]} * up[static_cast<size_t>(r * stride + i)];
        ASSERT_NEAR(z[static_cast<size_t>(i)], expected, 1e-5);
      }
      ASSERT_EQ(z.back(), 4);
    }
}

INSTANTIATE_TEST_SUITE_P(Isas, RecurrenceOnEveryIsa,
                         testing::ValuesIn(supported_isas().begin(), supported_isas().end()), isa_name);

}  // namespace
}  // namespace mneme::recurrence_test
