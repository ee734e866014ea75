#include "simd/engram.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "every_isa.h"

namespace mneme::engram_test {
namespace {

using SignOfZero = EngramModuleConfig::SignOfZero;

constexpr size_t kSizes[] = {1, 2, 3, 7, 8, 9, 15, 17, 31, 33, 64, 576, 1000, 5120};
constexpr EngramGate kGates[] = {{false, SignOfZero::zero, 1e-6},
                                 {false, SignOfZero::copysign, 1e-6},
                                 {true, SignOfZero::zero, 1e-5},
                                 {true, SignOfZero::copysign, 1e-6}};

std::vector<float> random(size_t n, uint32_t seed, float scale = 1) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> x(n);
  for (auto& v : x) v = normal(rng);
  return x;
}

class EngramOnEveryIsa : public OnEveryIsa {};

TEST_P(EngramOnEveryIsa, GateEqualsPlainLoops) {
  for (const size_t n : kSizes)
    for (const EngramGate& gate : kGates)
      for (const float scale : {1e-4f, 1.0f, 50.0f}) {
        const auto k = random(n, 1, scale), weight = random(n, 3);
        auto h = random(n, 2, 3);
        for (size_t i = 0; i < n; ++i) h[i] += k[i] * weight[i];  // gates on both sides of a half
        const auto d = static_cast<int64_t>(n);
        const double expected = engram_gate_plain(gate, k.data(), h.data(), weight.data(), d);
        ASSERT_NEAR(engram_gate(gate, k.data(), h.data(), weight.data(), d), expected, 1e-7 * expected) << n;
      }
}

// Numbers worked out by hand: k = h = 1 and weight 1 give rms 1 and g = sqrt(d).
TEST_P(EngramOnEveryIsa, GateOfOnes) {
  const std::vector<float> one(16, 1.0f), minus(16, -1.0f);
  const auto gate = [](bool root) { return EngramGate{root, SignOfZero::copysign, 0}; };
  const auto sigmoid = [](double x) { return 1 / (1 + std::exp(-x)); };
  EXPECT_NEAR(engram_gate(gate(false), one.data(), one.data(), one.data(), 16), sigmoid(4), 1e-7);
  EXPECT_NEAR(engram_gate(gate(true), one.data(), one.data(), one.data(), 16), sigmoid(2), 1e-7);  // 0.881
  EXPECT_NEAR(engram_gate(gate(false), one.data(), minus.data(), one.data(), 16), sigmoid(-4), 1e-7);
  EXPECT_NEAR(engram_gate(gate(true), minus.data(), one.data(), one.data(), 16), sigmoid(-2), 1e-7);
}

TEST_P(EngramOnEveryIsa, SignOfZero) {
  const auto k = random(33, 1), weight = random(33, 2);
  const std::vector<float> zero(33, 0.0f);
  const auto alpha = [&](bool root, SignOfZero sign) {
    return engram_gate({root, sign, 1e-6}, k.data(), zero.data(), weight.data(), 33);
  };
  EXPECT_EQ(alpha(true, SignOfZero::zero), 0.5f);
  EXPECT_NEAR(alpha(true, SignOfZero::copysign), 1 / (1 + std::exp(-1e-3)), 1e-7);
  EXPECT_EQ(alpha(false, SignOfZero::zero), 0.5f);
  EXPECT_EQ(alpha(false, SignOfZero::copysign), 0.5f);
  // Not zero but below the clamp: both rules give the same.
  std::vector<float> tiny(33, 0.0f);
  tiny[4] = std::copysign(1e-12f, -k[4] * weight[4]);
  for (const SignOfZero sign : {SignOfZero::zero, SignOfZero::copysign})
    EXPECT_NEAR(engram_gate({true, sign, 1.0}, k.data(), tiny.data(), weight.data(), 33),
                1 / (1 + std::exp(1e-3)), 1e-7);
}

TEST_P(EngramOnEveryIsa, GateOfNotANumberIsNotANumber) {
  auto k = random(40, 1);
  const auto h = random(40, 2);
  k[39] = std::numeric_limits<float>::quiet_NaN();
  for (const EngramGate& gate : kGates)
    EXPECT_TRUE(std::isnan(engram_gate(gate, k.data(), h.data(), h.data(), 40)));
}

TEST_P(EngramOnEveryIsa, ValueIsScaled) {
  for (const size_t n : kSizes) {
    const auto v = random(n, 7);
    std::vector<float> y(n + 1, 5.0f);
    engram_value(0.3f, v.data(), static_cast<int64_t>(n), y.data());
    for (size_t i = 0; i < n; ++i) ASSERT_EQ(y[i], 0.3f * v[i]);
    ASSERT_EQ(y[n], 5.0f);
  }
}

TEST_P(EngramOnEveryIsa, ConvolutionEqualsPlainLoops) {
  for (const size_t n : kSizes)
    for (const size_t w : {size_t{1}, size_t{3}, size_t{4}})
      for (size_t missing = 0; missing < w; ++missing) {  // the oldest taps lie before the start
        const auto rows = random(n * w, 11, 2), weight = random(n * w, 12), u = random(n, 13);
        std::vector<const float*> taps(w);
        for (size_t j = missing; j < w; ++j) taps[j] = rows.data() + j * n;
        std::vector<double> expected(n);
        engram_conv_plain(taps, weight.data(), u.data(), static_cast<int64_t>(n), expected.data());
        std::vector<float> y(n + 1, -3.0f), in_place = u;
        engram_conv(taps, weight.data(), u.data(), static_cast<int64_t>(n), y.data());
        for (size_t i = 0; i < n; ++i)
          ASSERT_NEAR(y[i], expected[i], 3e-6 * (1 + std::abs(expected[i]))) << n;
        ASSERT_EQ(y[n], -3.0f);
        engram_conv(taps, weight.data(), in_place.data(), static_cast<int64_t>(n), in_place.data());
        y.pop_back();
        ASSERT_EQ(in_place, y);
      }
}

TEST_P(EngramOnEveryIsa, MissingTapsAreRowsOfZeros) {
  const auto row = random(100, 1), weight = random(400, 2), u = random(100, 3);
  const std::vector<float> zero(100, 0.0f);
  const std::vector<const float*> missing = {nullptr, nullptr, nullptr, row.data()};
  const std::vector<const float*> zeros = {zero.data(), zero.data(), zero.data(), row.data()};
  std::vector<float> a(100), b(100);
  engram_conv(missing, weight.data(), u.data(), 100, a.data());
  engram_conv(zeros, weight.data(), u.data(), 100, b.data());
  EXPECT_EQ(a, b);
}

INSTANTIATE_TEST_SUITE_P(Isas, EngramOnEveryIsa,
                         testing::ValuesIn(supported_isas().begin(), supported_isas().end()), isa_name);

}  // namespace
}  // namespace mneme::engram_test
