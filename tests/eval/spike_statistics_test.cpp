// Figures of spike counts, by hand and as published for SpikingBrain's activations and our own simulation of
// them.
#include "eval/spike_statistics.h"

#include <gtest/gtest.h>

#include "mneme/error.h"
#include "model/spike_neuron.h"
#include "random_values.h"

namespace mneme::spike_statistics_test {
namespace {

SpikeHistogram of(const std::vector<int32_t>& counts) {
  SpikeHistogram histogram;
  histogram.add(counts);
  return histogram;
}

SpikeHistogram of_samples(const std::vector<float>& x, float k) {
  std::vector<int32_t> counts(x.size());
  spike_row(x, {k, 0}, counts);
  return of(counts);
}

TEST(SpikeStatisticsTest, FiguresByHand) {
  const SpikeHistogram h = of({0, 0, 1, -1, 3, -5, 7, -8, 100000, 0});
  EXPECT_EQ(h.values(), 10u);
  EXPECT_DOUBLE_EQ(h.silent(), 0.3);
  EXPECT_DOUBLE_EQ(h.mean_size(), 10002.5);
  EXPECT_DOUBLE_EQ(h.popcount(), (1 + 1 + 2 + 2 + 3 + 1 + 6) / 10.0);  // 100000 is 11000011010100000
  EXPECT_DOUBLE_EQ(h.at_most_seven(), 0.8);
  EXPECT_EQ(h.largest(), 100000);
  EXPECT_EQ(h.least(), -8);
  EXPECT_EQ(h.occurrences(0), 3u);
  EXPECT_EQ(h.occurrences(100000), 1u);
  EXPECT_EQ(h.occurrences(-100000), 0u);
  EXPECT_DOUBLE_EQ(h.slot_sparsity(4), 1 - 1.6 / 4);
}

TEST(SpikeStatisticsTest, WindowsByHand) {
  // 9 = 000 001 001, 7 = 000 000 111: of six windows three are silent, two hold a spike, one three.
  const std::vector<double> parts = of({9, -7}).window_spikes(3);
  ASSERT_EQ(parts.size(), 4u);
  EXPECT_DOUBLE_EQ(parts[0], 3 / 6.0);
  EXPECT_DOUBLE_EQ(parts[1], 2 / 6.0);
  EXPECT_DOUBLE_EQ(parts[2], 0);
  EXPECT_DOUBLE_EQ(parts[3], 1 / 6.0);
  EXPECT_DOUBLE_EQ(of({1 << 12}).window_spikes(3)[1], 1 / 3.0);    // 13 bits: the last window is longer
  EXPECT_DOUBLE_EQ(of({(1 << 13) - 1}).window_spikes(3)[3], 1.0);  // and never more than full
  EXPECT_DOUBLE_EQ(of({1}).window_spikes(31)[0], 2 / 3.0);
}

TEST(SpikeStatisticsTest, SpikesPerCode) {
  const SpikeHistogram h = of({0, 5, -5, 2});
  using Counts = std::map<int64_t, uint64_t>;
  EXPECT_EQ(h.spikes_per_value(SpikeCode::ternary, 5), (Counts{{0, 1}, {2, 1}, {5, 2}}));
  EXPECT_EQ(h.spikes_per_value(SpikeCode::bidirectional, 3), (Counts{{0, 1}, {1, 1}, {2, 2}}));
  EXPECT_EQ(h.spikes_per_value(SpikeCode::twos_complement, 4), (Counts{{0, 1}, {1, 1}, {2, 1}, {3, 1}}));
}

TEST(SpikeStatisticsTest, PartsAddUp) {
  SpikeHistogram sum = of({1, 2, 5000});
  sum.add(of({-3, 5000}));
  sum.add(SpikeHistogram());
  EXPECT_EQ(sum.values(), 5u);
  EXPECT_EQ(sum.occurrences(5000), 2u);
  EXPECT_EQ(sum.least(), -3);
  EXPECT_DOUBLE_EQ(sum.mean_size(), 10006 / 5.0);
}

TEST(SpikeStatisticsTest, NothingHasFiguresToo) {
  const SpikeHistogram none;
  EXPECT_EQ(none.silent(), 0);
  EXPECT_EQ(none.mean_size(), 0);
  EXPECT_EQ(none.largest(), 0);
  EXPECT_THROW(none.slot_sparsity(0), Error);
  EXPECT_THROW(none.window_spikes(32), Error);
}

// The table of the simulation: a million samples, k = 3.
TEST(SpikeStatisticsTest, PublishedTableOfSyntheticActivations) {
  struct Case {
    std::vector<float> x;
    double silent, le7, popcount, slots;
    std::vector<double> windows;
  };
  const size_t n = 1 << 20;
  for (const auto& [x, silent, le7, popcount, slots, windows] :
       {Case{gaussian(n, 7), 0.107, 0.954, 1.30, 0.567, {0.695, 0.191, 0.102, 0.012}},
        Case{laplace(n, 8), 0.153, 0.918, 1.22, 0.592, {0.699, 0.207, 0.083, 0.012}}}) {
    const SpikeHistogram h = of_samples(x, 3);
    EXPECT_NEAR(h.silent(), silent, 2e-3);
    EXPECT_NEAR(h.at_most_seven(), le7, 1.5e-3);
    EXPECT_NEAR(h.popcount(), popcount, 6e-3);
    EXPECT_NEAR(h.slot_sparsity(3), slots, 2.5e-3);
    const std::vector<double> parts = h.window_spikes(3);
    for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(parts[i], windows[i], 2e-3) << i;
    EXPECT_NEAR(h.mean_size(), 3, 0.02);
  }
}

TEST(SpikeStatisticsTest, PublishedSweepOfK) {
  const std::vector<float> x = gaussian(1 << 19, 9);
  const std::vector<std::pair<float, double>> sweep{
      {2.0f, 0.720}, {2.5f, 0.707}, {3.0f, 0.695}, {3.5f, 0.679}, {4.0f, 0.664}};
  for (const auto& [k, silent] : sweep) EXPECT_NEAR(of_samples(x, k).window_spikes(3)[0], silent, 3e-3) << k;
}

TEST(SpikeStatisticsTest, EnergyAsTheReportModelsIt) {
  const SpikeEnergy energy = spike_energy(1.13);
  EXPECT_NEAR(energy.spike, 0.034, 2e-4);
  EXPECT_NEAR(energy.less_than_fp16(), 0.977, 5e-4);
  EXPECT_NEAR(energy.less_than_int8(), 0.852, 1e-3);
}

}  // namespace
}  // namespace mneme::spike_statistics_test
