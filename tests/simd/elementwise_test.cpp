#include "simd/elementwise.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "simd/isa.h"

namespace mneme::elementwise_test {
namespace {

class ElementwiseOnEveryIsa : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    before_ = active_isa();
    set_active_isa(GetParam());
  }
  void TearDown() override { set_active_isa(before_); }
  static std::vector<float> random(size_t n, uint32_t seed, float scale = 1) {
    std::mt19937 rng(seed);
    std::normal_distribution<float> normal(0, scale);
    std::vector<float> x(n);
    for (auto& v : x) v = normal(rng);
    return x;
  }
  Isa before_ = Isa::portable;
};

constexpr size_t kSizes[] = {1, 3, 15, 16, 17, 31, 33, 64, 576, 1000};

TEST_P(ElementwiseOnEveryIsa, RmsNormEqualsDoublePrecision) {
  for (const size_t n : kSizes) {
    auto x = random(n, 1, 3);
    const auto weight = random(n, 2);
    double sum = 0;
    for (const float v : x) sum += double{v} * v;
    const double factor = 1 / std::sqrt(sum / static_cast<double>(n) + 1e-5);
    std::vector<float> out(n);
    rms_norm(x.data(), weight.data(), 1e-5f, static_cast<int64_t>(n), out.data());
    for (size_t i = 0; i < n; ++i)
      ASSERT_NEAR(out[i], x[i] * factor * weight[i], 2e-6 * (1 + std::abs(out[i]))) << n;
    const float got = rms_factor(x.data(), 1e-5f, static_cast<int64_t>(n));
    ASSERT_NEAR(got, factor, 2e-6 * factor) << n;
    for (size_t i = 0; i < n; ++i) ASSERT_EQ(out[i], x[i] * got * weight[i]) << n;
    rms_norm(x.data(), weight.data(), 1e-5f, static_cast<int64_t>(n), x.data());
    ASSERT_EQ(x, out) << "in place, " << n;
  }
}

TEST_P(ElementwiseOnEveryIsa, GatedActivationsEqualDoublePrecision) {
  for (const size_t n : kSizes) {
    auto gate = random(n, 3, 6);
    gate[0] = n % 2 ? 120.0f : -120.0f;  // far into saturation
    const auto up = random(n, 4);
    for (const GateAct act : {GateAct::silu, GateAct::gelu_tanh, GateAct::gelu}) {
      std::vector<float> out(n);
      gated_act(act, gate.data(), up.data(), static_cast<int64_t>(n), out.data());
      for (size_t i = 0; i < n; ++i) {
        const double x = gate[i];
        double value = 0;
        if (act == GateAct::silu) value = x / (1 + std::exp(-x));
        if (act == GateAct::gelu) value = 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
        if (act == GateAct::gelu_tanh)
          value = 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
        ASSERT_NEAR(out[i], value * up[i], 4e-6 * (1 + std::abs(value * up[i]))) << x;
      }
    }
  }
}

TEST_P(ElementwiseOnEveryIsa, AddAndSoftcap) {
  for (const size_t n : kSizes) {
    auto x = random(n, 5, 40);
    const auto y = random(n, 6), before = x;
    add_to(x.data(), y.data(), static_cast<int64_t>(n));
    for (size_t i = 0; i < n; ++i) ASSERT_EQ(x[i], before[i] + y[i]);
    softcap(x.data(), 30, static_cast<int64_t>(n));
    for (size_t i = 0; i < n; ++i) ASSERT_NEAR(x[i], 30 * std::tanh(double{before[i] + y[i]} / 30), 1e-5);
  }
}

// A value gets the same bits wherever it stands: decoding adds up tiles of a row, a prefill whole rows.
TEST_P(ElementwiseOnEveryIsa, AddScaledIsTheSameInEveryPlace) {
  for (const size_t n : kSizes) {
    auto x = random(n, 7, 3);
    const auto y = random(n, 8), before = x;
    const float factor = 0.37f;
    add_scaled(x.data(), factor, y.data(), static_cast<int64_t>(n));
    for (size_t i = 0; i < n; ++i) {
      ASSERT_NEAR(x[i], before[i] + double{factor} * y[i], 1e-6 * (1 + std::abs(before[i]))) << n;
      float alone = before[i];
      add_scaled(&alone, factor, &y[i], 1);
      ASSERT_EQ(x[i], alone) << n << ", " << i;
    }
  }
}

TEST(Rope, RotatesPairsOfBothStylesAndKeepsLength) {
  const float angle = 0.7f, c = std::cos(angle), s = std::sin(angle);
  const float cos[] = {c, 1, c}, sin[] = {s, 0, s};
  float half[] = {1, 2, 3, 4, 5, 6, 9}, mixed[] = {1, 4, 2, 5, 3, 6, 9};
  rope(half, cos, sin, 6, true);
  rope(mixed, cos, sin, 6, false);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(half[i], mixed[2 * i]);
    EXPECT_EQ(half[i + 3], mixed[2 * i + 1]);
  }
  EXPECT_FLOAT_EQ(half[0], c - 4 * s);
  EXPECT_FLOAT_EQ(half[3], s + 4 * c);
  EXPECT_EQ(half[1], 2);
  EXPECT_EQ(half[6], 9) << "beyond dims";
}

INSTANTIATE_TEST_SUITE_P(Isa, ElementwiseOnEveryIsa,
                         testing::ValuesIn(supported_isas().begin(), supported_isas().end()),
                         [](const auto& isa) {
                           std::string name(to_string(isa.param));
                           for (auto& ch : name) ch = ch == '-' ? '_' : ch;
                           return name;
                         });

}  // namespace
}  // namespace mneme::elementwise_test
