// W8: int8 codes in groups of 128 with f32 scales, and what codes have beyond int8. The reference is the
// rounded matrix in double precision.
#include "simd/code_residuals.h"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <random>

#include "core/huge_buffer.h"
#include "mneme/error.h"
#include "simd/every_isa.h"
#include "simd/spike_outputs.h"

namespace mneme::code_residuals_test {
namespace {

using W8OnEveryIsa = OnEveryIsa;

struct W8Matrix {
  std::vector<float> weights, scales;
  HugeBuffer buffer;
  std::unique_ptr<CodeResiduals> residuals;
  PackedMatrix matrix;

  int64_t groups() const { return matrix.cols / kScaleGroup; }
  // The code of a weight, as the published code rounds it.
  float code(int64_t r, int64_t c) const {
    return std::nearbyint(weights[static_cast<size_t>(r * matrix.cols + c)] / scale(r, c));
  }
  float scale(int64_t r, int64_t c) const {
    return scales[static_cast<size_t>(r * groups() + c / kScaleGroup)];
  }
};

// Normal weights, of which about one in a hundred is beyond int8.
W8Matrix w8_matrix(int64_t rows, int64_t cols, uint8_t lines, uint32_t seed) {
  W8Matrix w;
  w.matrix = {PackedType::w8, rows, cols, nullptr, lines};
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::uniform_real_distribution<float> step(0.9f, 1.1f);
  w.weights.resize(static_cast<size_t>(rows * cols));
  w.scales.resize(static_cast<size_t>(rows * w.groups()));
  for (float& v : w.weights) v = normal(rng);
  for (float& v : w.scales) v = step(rng) * 2.6f / 127;
  w.buffer = HugeBuffer(matrix_bytes(w.matrix));
  w.matrix.data = w.buffer.data();
  const int64_t height = stripe_rows(w.matrix), stripes = (rows + height - 1) / height;
  w.residuals = std::make_unique<CodeResiduals>(stripes);
  for (int64_t s = 0; s < stripes; ++s)  // one by one, as threads do
    EXPECT_TRUE(pack_w8_stripes(w.matrix, w.weights.data(), w.scales.data(), s, s + 1, w.buffer.data(),
                                *w.residuals));
  w.matrix.residuals = w.residuals.get();
  return w;
}

FiredRows fire_normal(int64_t n, int64_t cols, bool with_events, bool outlier) {
  std::mt19937 rng(static_cast<uint32_t>(n));
  std::normal_distribution<float> normal;
  return fire_rows(n, cols, with_events, [&](int64_t r) {
    std::vector<float> x(static_cast<size_t>(cols));
    for (float& v : x) v = normal(rng);
    if (outlier) x[static_cast<size_t>(37 * r) % x.size()] = 500.0f;  // a count beyond int8
    return x;
  });
}

// Relative L2 distance of y from V * sum of scale * code * count in double precision.
double distance_from_float_path(const W8Matrix& w, const FiredRows& x, const std::vector<float>& y) {
  double difference = 0, total = 0;
  for (size_t i = 0; i < x.counts.size(); ++i)
    for (int64_t r = 0; r < w.matrix.rows; ++r) {
      double sum = 0;
      for (int64_t c = 0; c < w.matrix.cols; ++c)
        sum += double{w.scale(r, c)} * double{w.code(r, c)} * x.counts[i][static_cast<size_t>(c)];
      sum *= double{x.thresholds[i]};
      difference += std::pow(sum - y[i * static_cast<size_t>(w.matrix.rows) + static_cast<size_t>(r)], 2);
      total += sum * sum;
    }
  return std::sqrt(difference / total);
}

TEST(W8, HoldsEveryCode) {
  for (const int64_t rows : {1, 64, 130, 300})
    for (const uint8_t lines : {uint8_t{1}, uint8_t{2}}) {
      const W8Matrix w = w8_matrix(rows, 384, lines, 3);
      std::vector<float> row(384);
      uint64_t beyond = 0;
      for (int64_t r = 0; r < rows; ++r) {
        unpack_striped_row(w.matrix, r, row.data());
        for (int64_t c = 0; c < 384; ++c) {
          const float code = w.code(r, c);
          ASSERT_NEAR(row[static_cast<size_t>(c)] / w.scale(r, c), code, 1e-4) << r << "," << c;
          beyond += code < -128 || code > 127 ? 1 : 0;
        }
      }
      EXPECT_EQ(w.residuals->count(), beyond);
      EXPECT_GT(beyond, 0u);
    }
}

// W8ASpike's matrices have 3,584 columns and a code in a hundred beyond int8.
TEST(W8, TakesAboutAQuarterOfTheFloats) {
  const W8Matrix w = w8_matrix(512, 3584, 2, 5);
  const double floats = 4.0 * 512 * 3584;
  const auto held = static_cast<double>(matrix_bytes(w.matrix) + w.residuals->bytes());
  EXPECT_LT(held / floats, 0.27);
  const double beyond = static_cast<double>(w.residuals->count()) / (512.0 * 3584);
  EXPECT_GT(beyond, 0.005);
  EXPECT_LT(beyond, 0.02);
}

TEST_P(W8OnEveryIsa, IsWithin5e7OfTheFloatPath) {
  for (const bool outlier : {false, true})
    for (const uint8_t lines : {uint8_t{1}, uint8_t{2}}) {
      const W8Matrix w = w8_matrix(200, 3584, lines, 7);
      for (const int64_t n : {1, 3}) {
        const FiredRows x = fire_normal(n, 3584, true, outlier);
        const auto y = whole_product(w.matrix, x, n, SpikePath::automatic);
        EXPECT_LT(distance_from_float_path(w, x, y), 5e-7) << "outlier " << outlier << " n " << n;
      }
    }
}

// What the residuals are for: codes that saturate are a thousandth away.
TEST_P(W8OnEveryIsa, WithoutResidualsIsFarAway) {
  W8Matrix w = w8_matrix(200, 3584, 2, 7);
  const FiredRows x = fire_normal(1, 3584, true, false);
  w.matrix.residuals = nullptr;
  EXPECT_GT(distance_from_float_path(w, x, whole_product(w.matrix, x, 1, SpikePath::automatic)), 1e-3);
}

TEST_P(W8OnEveryIsa, EventsGiveTheBitsOfTheDensePath) {
  for (const int64_t rows : {64, 200})
    for (const int64_t n : {1, 2, 8}) {
      const W8Matrix w = w8_matrix(rows, 256, rows == 64 ? 1 : 2, 9);
      const FiredRows x = fire_normal(n, 256, true, true);
      EXPECT_EQ(whole_product(w.matrix, x, n, SpikePath::events),
                whole_product(w.matrix, x, n, SpikePath::dense))
          << rows << " rows, " << n;
    }
}

TEST_P(W8OnEveryIsa, OneRowAtATimeGivesTheBitsOfAChunk) {
  const W8Matrix w = w8_matrix(200, 384, 2, 11);
  const int64_t n = 21;  // more than the 16 rows that one unpacking serves
  const FiredRows x = fire_normal(n, 384, false, true);
  std::vector<float> one(static_cast<size_t>(n * 200));
  for (int64_t i = 0; i < n; ++i)
    spike_product(w.matrix, x.rows, 0, w.matrix.tiles(), i, i + 1, one.data(), 200);
  EXPECT_EQ(whole_product(w.matrix, x, n, SpikePath::automatic), one);
}

TEST_P(W8OnEveryIsa, ARowThatIsNotFiniteShowsIt) {
  const W8Matrix w = w8_matrix(64, 128, 1, 2);
  std::vector<float> x(128, 1.0f);
  x[40] = NAN;
  const FiredRows fired = fire_rows(1, 128, true, [&](int64_t) { return x; });
  for (const SpikePath path : {SpikePath::dense, SpikePath::events})
    for (const float y : whole_product(w.matrix, fired, 1, path)) EXPECT_TRUE(std::isnan(y));
}

TEST(W8, CodesBeyondInt16AreRefused) {
  const PackedMatrix w{PackedType::w8, 1, 128, nullptr, 1};
  std::vector<std::byte> out(matrix_bytes(w));
  const auto fits = [&](float value) {
    std::vector<float> weights(128, 0.25f), scales{0.5f};
    weights[5] = value;
    CodeResiduals residuals(1);
    return pack_w8_stripes(w, weights.data(), scales.data(), 0, 1, out.data(), residuals);
  };
  EXPECT_TRUE(fits(0.5f * 32767));
  EXPECT_TRUE(fits(0.5f * -32767));
  EXPECT_FALSE(fits(0.5f * 32768));
  EXPECT_FALSE(fits(INFINITY));
  EXPECT_FALSE(fits(NAN));
}

TEST(W8, ColumnsAreWholeGroups) {
  EXPECT_THROW(matrix_bytes({PackedType::w8, 64, 96, nullptr, 1}), Error);
}

INSTANTIATE_TEST_SUITE_P(Isa, W8OnEveryIsa,
                         testing::ValuesIn(supported_isas().begin(), supported_isas().end()), isa_name);

}  // namespace
}  // namespace mneme::code_residuals_test
