// Neurons against arithmetic done by hand and against what the published rule says of any input.
#include "model/spike_neuron.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "mneme/error.h"
#include "random_values.h"

namespace mneme::spike_neuron_test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

std::vector<int32_t> counts_of(const std::vector<float>& x, const SpikeRule& rule = {}) {
  std::vector<int32_t> counts(x.size(), 99);
  spike_row(x, rule, counts);
  return counts;
}

double mean_size(const std::vector<int32_t>& counts) {
  double sum = 0;
  for (const int32_t count : counts) sum += std::abs(count);
  return sum / static_cast<double>(counts.size());
}

TEST(SpikeNeuronTest, CountsByHand) {
  // mean |x| = 3, so with k = 3 the threshold is 1; halves go to even.
  const std::vector<float> x{0.5f, -0.5f, 1.5f, -2.5f, 0.25f, 12.75f};
  ASSERT_EQ(spike_threshold(x, 3), 1.0f);
  EXPECT_EQ(counts_of(x), (std::vector<int32_t>{0, 0, 2, -2, 0, 13}));
  EXPECT_EQ(counts_of(x, {6, 0}), (std::vector<int32_t>{1, -1, 3, -5, 0, 26}));    // 26 is 25.5 to even
  EXPECT_EQ(counts_of(x, {3, 2}), (std::vector<int32_t>{0, 0, 0, -2, 0, 13}));     // 1.5 is in the dead zone
  EXPECT_EQ(counts_of(x, {3, 2.5f}), (std::vector<int32_t>{0, 0, 0, -2, 0, 13}));  // 2.5 is at its edge
}

TEST(SpikeNeuronTest, TheMeanCountIsAboutK) {
  const std::vector<float> x = gaussian(1 << 16, 1);
  for (const float k : {2.0f, 2.5f, 3.0f, 3.5f, 4.0f})
    EXPECT_NEAR(mean_size(counts_of(x, {k, 0})), k, 0.02 * k) << k;
}

TEST(SpikeNeuronTest, ScaleOfTheInputDoesNotMatter) {
  const std::vector<float> x = gaussian(513, 2);
  std::vector<float> scaled = x;
  for (float& value : scaled) value *= 64;
  EXPECT_EQ(counts_of(x), counts_of(scaled));
}

TEST(SpikeNeuronTest, ThresholdsAreClamped) {
  EXPECT_EQ(spike_threshold(std::vector<float>(7, 0.0f), 3), kMinSpikeThreshold);
  EXPECT_EQ(spike_threshold({}, 3), kMinSpikeThreshold);
  EXPECT_EQ(spike_threshold(std::vector<float>{3e-6f, -3e-6f}, 3), kMinSpikeThreshold);
  EXPECT_EQ(spike_threshold(std::vector<float>{9e8f, -9e8f}, 3), kMaxSpikeThreshold);
  EXPECT_EQ(counts_of({0, 0, 0}), (std::vector<int32_t>{0, 0, 0}));
  EXPECT_EQ(counts_of({9e8f, -9e8f}), (std::vector<int32_t>{90000, -90000}));
  EXPECT_EQ(counts_of({3e38f, -3e38f}), (std::vector<int32_t>{kMaxSpikeCount, -kMaxSpikeCount}));
}

TEST(SpikeNeuronTest, AnOutlierIsALargeCount) {
  std::vector<float> x(4096, 0.0f);
  x[17] = -2.5f;
  const std::vector<int32_t> counts = counts_of(x);
  EXPECT_EQ(counts[17], -3 * 4096);
  EXPECT_EQ(std::count(counts.begin(), counts.end(), 0), 4095);
}

TEST(SpikeNeuronTest, NaNAndInfinityShowInTheThreshold) {
  for (const float damage : {kNaN, kInfinity, -kInfinity}) {
    const std::vector<float> x{1, damage, 2};
    std::vector<int32_t> counts(3, 99);
    EXPECT_TRUE(std::isnan(spike_row(x, {}, counts))) << damage;
    EXPECT_EQ(counts, (std::vector<int32_t>{0, 0, 0}));
  }
}

TEST(SpikeNeuronTest, EveryHeadHasItsThreshold) {
  const std::vector<float> x{1, 2, 3, 10, 20, 30};
  std::vector<int32_t> counts(6);
  EXPECT_EQ(spike_heads(x, 3, {2, 0}, counts), (std::vector<float>{1, 10}));
  EXPECT_EQ(counts, (std::vector<int32_t>{1, 2, 3, 1, 2, 3}));
  EXPECT_THROW(spike_heads(x, 4, {}, counts), Error);
  EXPECT_THROW(spike_heads(x, 0, {}, counts), Error);
}

TEST(SpikeNeuronTest, RulesAreChecked) {
  EXPECT_NO_THROW(check_spike_rule({3, 0.6f}));
  for (const SpikeRule& rule : {SpikeRule{0, 0}, {-1, 0}, {kNaN, 0}, {kInfinity, 0}, {3, -0.1f}, {3, kNaN}})
    EXPECT_THROW(check_spike_rule(rule), Error);
}

// Equation 20 over virtual time ends with the counts of the one-step form.
TEST(SpikeNeuronTest, DynamicsInTimeGiveTheCollapsedCounts) {
  const std::vector<float> x = gaussian(2000, 3);
  std::vector<int32_t> counts(x.size());
  const float threshold = spike_row(x, {}, counts);
  for (size_t i = 0; i < x.size(); ++i) {
    const Settled settled = settle({&x[i], 1}, threshold);
    EXPECT_EQ(settled.count, counts[i]) << x[i] / threshold;
    EXPECT_LE(std::fabs(settled.residue), threshold / 2.0);
    EXPECT_NEAR(static_cast<double>(settled.count) * threshold + settled.residue, x[i], 1e-12);
    EXPECT_EQ(settled.steps,
              std::max<int64_t>(1, std::abs(counts[i])));  // the first spike is in the step of the input
  }
}

TEST(SpikeNeuronTest, TiesSettleToEven) {
  for (const auto& [input, count] : std::vector<std::pair<float, int64_t>>{
           {0.5f, 0}, {1.5f, 2}, {2.5f, 2}, {3.5f, 4}, {-0.5f, 0}, {-1.5f, -2}, {-2.5f, -2}})
    EXPECT_EQ(settle({&input, 1}, 1).count, count) << input;
}

TEST(SpikeNeuronTest, WhenTheInputComesDoesNotMatter) {
  const std::vector<float> x = gaussian(640, 4);
  for (size_t at = 0; at < x.size(); at += 16) {
    const std::span<const float> inputs(&x[at], 16);
    const double sum = std::accumulate(inputs.begin(), inputs.end(), 0.0);
    EXPECT_EQ(settle(inputs, 0.37).count, std::llrint(sum / 0.37));
  }
}

TEST(SpikeNeuronTest, WhatCannotSettleIsAnError) {
  const float one = 1, damaged = kNaN;
  EXPECT_THROW(settle({&one, 1}, 0), Error);
  EXPECT_THROW(settle({&one, 1}, kInfinity), Error);
  EXPECT_THROW(settle({&damaged, 1}, 1), Error);
  EXPECT_THROW(settle({&one, 1}, 1e-9), Error);
}

TEST(SpikeNeuronTest, LeakySoftResetByHand) {
  LeakyIntegrateAndFire neuron({.leak = 0.5f, .threshold = 1, .reset = SpikeReset::soft});
  EXPECT_FALSE(neuron.step(0.75f));  // 0.75
  EXPECT_TRUE(neuron.step(1.0f));    // 0.375 + 1 - 1
  EXPECT_EQ(neuron.potential(), 0.375f);
  EXPECT_FALSE(neuron.step(0));
  EXPECT_EQ(neuron.potential(), 0.1875f);
  EXPECT_TRUE(neuron.step(3.0f));
  EXPECT_EQ(neuron.potential(), 2.09375f);
  EXPECT_TRUE(neuron.step(0));  // what a soft reset left fires again
}

TEST(SpikeNeuronTest, LeakyHardResetForgetsTheRest) {
  LeakyIntegrateAndFire neuron(
      {.leak = 0.5f, .threshold = 1, .reset = SpikeReset::hard, .reset_potential = -0.5f});
  EXPECT_TRUE(neuron.step(3.0f));
  EXPECT_EQ(neuron.potential(), -0.5f);
  EXPECT_FALSE(neuron.step(1.0f));
  EXPECT_EQ(neuron.potential(), 0.75f);
  EXPECT_TRUE(neuron.step(0.625f));  // at the threshold it fires
}

// Without a leak a soft reset loses nothing: spikes and potential together are the input.
TEST(SpikeNeuronTest, WithoutALeakNothingIsLost) {
  LeakyIntegrateAndFire neuron({.leak = 1, .threshold = 0.5f});
  int spikes = 0;
  for (int t = 0; t < 64; ++t) spikes += neuron.step(0.125f) ? 1 : 0;
  EXPECT_EQ(spikes, 16);
  EXPECT_EQ(neuron.potential(), 0.0f);
}

TEST(SpikeNeuronTest, ImpossibleNeuronsAreRefused) {
  EXPECT_THROW(LeakyIntegrateAndFire({.leak = 1.5f}), Error);
  EXPECT_THROW(LeakyIntegrateAndFire({.leak = kNaN}), Error);
  EXPECT_THROW(LeakyIntegrateAndFire({.threshold = 0}), Error);
  EXPECT_THROW(LeakyIntegrateAndFire({.reset = SpikeReset::hard, .reset_potential = 1}), Error);
  EXPECT_THROW(DrainedNeuron({1}, -0.1f, 0), Error);
  EXPECT_THROW(DrainedNeuron({kNaN}, 0.5f, 0), Error);
  EXPECT_THROW(DrainedNeuron({1}, 0.5f, kInfinity), Error);
}

TEST(SpikeNeuronTest, DrainedByHand) {
  DrainedNeuron neuron({2, -1}, 0.5f, 1);
  EXPECT_FALSE(neuron.step(std::vector<float>{0.5f, 0}));  // 1 - 1 = 0
  EXPECT_TRUE(neuron.step(std::vector<float>{1, 0.5f}));   // 1.5 - 1
  EXPECT_EQ(neuron.potential(), 0.5f);
  EXPECT_FALSE(neuron.step(std::vector<float>{0, 0}));  // 0.25 - 1: the threshold drains
  EXPECT_EQ(neuron.potential(), -0.75f);
  neuron.set_theta(-1);
  EXPECT_TRUE(neuron.step(std::vector<float>{0, 0}));  // -0.375 + 1
  EXPECT_THROW(neuron.step(std::vector<float>{1}), Error);
}

}  // namespace
}  // namespace mneme::spike_neuron_test
