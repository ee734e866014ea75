// Sizes of inputs and the errors that follow from them, against neurons that really fire.
#include "eval/input_sizes.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "random_values.h"
#include "simd/spike.h"

namespace mneme::input_sizes_test {
namespace {

constexpr size_t kSampledWidth = 256;

struct SampledRows {
  std::vector<std::vector<float>> x;
  std::vector<float> weights;
};
/// SampledRows of normal inputs with a few large ones, and columns of different weight.
SampledRows sampled_rows(size_t count) {
  SampledRows out;
  const std::vector<float> all = gaussian(count * kSampledWidth, 7);
  for (size_t r = 0; r < count; ++r) {
    out.x.emplace_back(all.begin() + static_cast<std::ptrdiff_t>(r * kSampledWidth),
                       all.begin() + static_cast<std::ptrdiff_t>((r + 1) * kSampledWidth));
    for (size_t i = 0; i < kSampledWidth; i += 37) out.x.back()[i] *= 9;
  }
  for (size_t i = 0; i < kSampledWidth; ++i) out.weights.push_back(0.5f + static_cast<float>(i % 5));
  return out;
}

InputSizes sizes_of_rows(const SampledRows& rows) {
  InputSizes sizes;
  for (const auto& x : rows.x) EXPECT_TRUE(sizes.add(x, rows.weights));
  return sizes;
}

/// Silent share, columns read again and relative squared error of the neuron itself.
NeuronCandidate neuron_that_fires(const SampledRows& rows, double k, double dead_zone) {
  NeuronCandidate out{k, dead_zone};
  std::vector<int32_t> counts(kSampledWidth);
  for (const auto& x : rows.x) {
    const float threshold = fire_reference({static_cast<float>(k), static_cast<float>(dead_zone)}, x.data(),
                                           static_cast<int64_t>(kSampledWidth), counts.data());
    double lost = 0, all = 0;
    for (size_t i = 0; i < kSampledWidth; ++i) {
      const double off = x[i] - static_cast<double>(threshold) * counts[i];
      lost += rows.weights[i] * off * off;
      all += static_cast<double>(rows.weights[i]) * x[i] * x[i];
      out.silent += counts[i] == 0 ? 1 : 0;
      const int32_t beyond = std::abs(counts[i]) - 127;
      if (beyond > 0) out.extra += (beyond + 126) / 127;
    }
    out.error += lost / all;
  }
  const auto n = static_cast<double>(rows.x.size());
  out.silent /= n * kSampledWidth;
  out.extra /= n * kSampledWidth;
  out.error /= n;
  return out;
}

TEST(InputSizesTest, FiguresAreThoseOfNeuronsThatFire) {
  const SampledRows rows = sampled_rows(200);
  const InputSizes sizes = sizes_of_rows(rows);
  EXPECT_EQ(sizes.inputs(), 200u * kSampledWidth);
  for (const double k : {3.0, 8.0, 32.0, 64.0})
    for (const double ratio : {0.0, 0.2, 0.5, 1.0}) {
      const NeuronCandidate want = neuron_that_fires(rows, k, ratio * k), got = sizes.candidate(k, ratio * k);
      EXPECT_NEAR(got.silent, want.silent, 0.012) << k << " " << ratio;
      EXPECT_NEAR(got.extra, want.extra, 0.05 * want.extra + 0.001) << k << " " << ratio;
      EXPECT_NEAR(got.error, want.error, 0.12 * want.error) << k << " " << ratio;
    }
}

TEST(InputSizesTest, LargerDeadZonesSilenceMoreAndCostMore) {
  const InputSizes sizes = sizes_of_rows(sampled_rows(20));
  NeuronCandidate before = sizes.candidate(16, 0);
  for (const double ratio : silent_ratios()) {
    const NeuronCandidate now = sizes.candidate(16, 16 * ratio);
    EXPECT_GE(now.silent, before.silent);
    if (ratio > 0.25) {
      EXPECT_GE(now.error, before.error);
    }
    before = now;
  }
  EXPECT_GT(before.silent, 0.9);
  EXPECT_NEAR(sizes.below(0.5), sizes.candidate(16, 8).silent, 0.01);
  EXPECT_LT(sizes.candidate(32, 0).error, sizes.candidate(4, 0).error);
}

TEST(InputSizesTest, TheOrderOfRowsChangesNothing) {
  const SampledRows rows = sampled_rows(50);
  InputSizes forward = sizes_of_rows(rows), even, odd;
  for (size_t r = rows.x.size(); r-- > 0;)
    EXPECT_TRUE((r % 2 == 0 ? even : odd).add(rows.x[r], rows.weights));
  odd.add(even);
  for (const double k : {2.0, 24.0})
    for (const double zone : {0.0, 1.3}) {
      EXPECT_EQ(forward.candidate(k, zone).error, odd.candidate(k, zone).error);
      EXPECT_EQ(forward.candidate(k, zone).silent, odd.candidate(k, zone).silent);
    }
}

TEST(InputSizesTest, OddRows) {
  const std::vector<float> weights(kSampledWidth, 1.0f);
  InputSizes sizes;
  EXPECT_TRUE(sizes.add(std::vector<float>(kSampledWidth, 0.0f), weights));  // nothing fires
  EXPECT_EQ(sizes.candidate(3, 0).silent, 1);
  EXPECT_EQ(sizes.candidate(3, 0).error, 0);
  std::vector<float> x(kSampledWidth, 0.0f);
  x[5] = 1e6f;  // one outlier: 256 means, as counts of 32 * 256
  EXPECT_TRUE(sizes.add(x, weights));
  EXPECT_NEAR(sizes.candidate(32, 0).extra, std::ceil((32.0 * 256 - 127) / 127) / (2 * kSampledWidth), 0.01);
  x[6] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_FALSE(sizes.add(x, weights));
  x[6] = std::numeric_limits<float>::infinity();
  EXPECT_FALSE(sizes.add(x, weights));
  EXPECT_EQ(sizes.inputs(), 2 * kSampledWidth);
  x.assign(kSampledWidth, 1e-38f);
  EXPECT_TRUE(sizes.add(x, weights));
  EXPECT_TRUE(sizes.add(x, std::vector<float>(kSampledWidth, 0.0f)));  // an output of 0
  EXPECT_TRUE(std::isfinite(sizes.candidate(32, 4).error));
}

}  // namespace
}  // namespace mneme::input_sizes_test
