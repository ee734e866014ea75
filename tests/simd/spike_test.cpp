#include "simd/spike.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "simd/every_isa.h"
#include "simd/spike_outputs.h"

namespace mneme::spike_test {
namespace {

using SpikeOnEveryIsa = OnEveryIsa;

std::vector<float> normal_row(int64_t n, uint32_t seed, float sigma = 1) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0, sigma);
  std::vector<float> x(static_cast<size_t>(n));
  for (float& v : x) v = normal(rng);
  return x;
}

// Whole counts from what a row of SpikeRows holds.
std::vector<int32_t> counts_of(const SpikeRows& rows, int64_t row, int64_t cols) {
  std::vector<int32_t> counts(static_cast<size_t>(cols));
  spike_counts(rows, row, cols, counts.data());
  return counts;
}

// Clamped counts that the list of events has for row n, silent ones 0.
std::vector<int32_t> listed(const SpikeRows& rows, int64_t n, int64_t cols) {
  std::vector<int32_t> counts(static_cast<size_t>(cols), 0);
  for (int64_t b = 0; b < cols / 32; ++b) {
    const size_t begin = 4 * rows.events.begin[static_cast<size_t>(b)];
    for (size_t e = begin; e < 4 * rows.events.begin[static_cast<size_t>(b + 1)]; ++e)
      counts[static_cast<size_t>(b * 32 + rows.events.columns[e])] +=
          rows.events.counts[static_cast<size_t>(n * rows.events.stride) + e];
  }
  return counts;
}

/// Where gaps are dear, lists are made after the counts and not with them.
struct WhereGapsAre {
  explicit WhereGapsAre(bool dear) { set_gaps_are_dear(dear); }
  ~WhereGapsAre() { set_gaps_are_dear(here); }
  const bool here = gaps_are_dear();
};

void expect_equals_reference_here(const NeuronSetting& neuron, const std::vector<float>& x,
                                  const char* what) {
  const auto cols = static_cast<int64_t>(x.size());
  SpikeRows rows;
  rows.reserve(1, cols, true);
  fire_row(neuron, x.data(), 0, cols, rows);
  EXPECT_TRUE(rows.listed || gaps_are_dear()) << what;
  unite_events(cols, rows, true);
  std::vector<int32_t> expected(x.size());
  const float threshold = fire_reference(neuron, x.data(), cols, expected.data());
  ASSERT_EQ(rows.threshold[0], threshold) << what;
  ASSERT_EQ(counts_of(rows, 0, cols), expected) << what;
  int64_t spiking = 0;
  const std::vector<int32_t> events = listed(rows, 0, cols);
  for (int64_t c = 0; c < cols; ++c) {
    const int32_t count = expected[static_cast<size_t>(c)];
    ASSERT_EQ((rows.fired[static_cast<size_t>(c / 32)] >> (c % 32)) & 1, count != 0 ? 1u : 0u) << what;
    ASSERT_EQ(events[static_cast<size_t>(c)], std::clamp(count, -127, 127)) << what << " " << c;
    spiking += count != 0;
  }
  ASSERT_EQ(rows.spiking[0], spiking) << what;
  for (int64_t b = 0; b < cols / 32; ++b)
    ASSERT_EQ(rows.sums[static_cast<size_t>(b)],
              std::accumulate(expected.begin() + b * 32, expected.begin() + (b + 1) * 32, 0))
        << what;
}

void expect_equals_reference(const NeuronSetting& neuron, const std::vector<float>& x, const char* what) {
  for (const bool dear : {false, true}) {
    SCOPED_TRACE(dear ? "gaps are dear" : "gaps are cheap");
    const WhereGapsAre gaps(dear);
    expect_equals_reference_here(neuron, x, what);
  }
}

TEST_P(SpikeOnEveryIsa, CountsEqualTheSpecification) {
  for (const int64_t cols : {32, 64, 96, 576, 1536, 11008})
    for (const float k : {0.5f, 2.0f, 3.0f, 4.0f, 64.0f})
      for (const float dead_zone : {0.0f, 0.5f, 1.5f, 4.0f})
        expect_equals_reference({k, dead_zone}, normal_row(cols, static_cast<uint32_t>(cols)), "normal");
}

TEST_P(SpikeOnEveryIsa, TheThresholdIsTheMeanOverKBetweenItsClamps) {
  const std::vector<float> x(64, 0.5f);
  SpikeRows rows;
  rows.reserve(1, 64, true);
  fire_row({2.0f, 0}, x.data(), 0, 64, rows);
  EXPECT_EQ(rows.threshold[0], 0.25f);
  EXPECT_EQ(counts_of(rows, 0, 64), std::vector<int32_t>(64, 2));
  const std::vector<float> tiny(64, 1e-6f), huge(64, 1e6f);
  fire_row({3.0f, 0}, tiny.data(), 0, 64, rows);
  EXPECT_EQ(rows.threshold[0], 1e-5f);
  EXPECT_EQ(rows.spiking[0], 0);
  fire_row({3.0f, 0}, huge.data(), 0, 64, rows);
  EXPECT_EQ(rows.threshold[0], 1e4f);
  EXPECT_EQ(counts_of(rows, 0, 64), std::vector<int32_t>(64, 100));
}

TEST_P(SpikeOnEveryIsa, TiesRoundToEven) {
  // The magnitudes add up to 32, so that with k = 1 the threshold is 1 and values are counts.
  std::vector<float> x{0.5f, -0.5f, 1.5f, -1.5f, 2.5f, -2.5f, 3.5f, -3.5f, 4.5f, 5.5f, 6.0f};
  x.resize(32, 0.0f);
  SpikeRows rows;
  rows.reserve(1, 32, true);
  fire_row({1.0f, 0}, x.data(), 0, 32, rows);
  ASSERT_EQ(rows.threshold[0], 1.0f);
  const std::vector<int32_t> counts = counts_of(rows, 0, 32);
  const std::vector<int32_t> expected{0, 0, 2, -2, 2, -2, 4, -4, 4, 6, 6};
  EXPECT_EQ(std::vector<int32_t>(counts.begin(), counts.begin() + 11), expected);
}

// Neighbours of halves, with the threshold at one of its clamps so that it is known: a count is the rounded
// quotient, whatever is multiplied instead of divided.
TEST_P(SpikeOnEveryIsa, CountsNearHalvesAreThoseOfTheQuotient) {
  for (const auto& [k, threshold] : {std::pair(64.0f, 1e-5f), std::pair(0.5f, 1e4f)}) {
    std::vector<float> x;
    for (int m = 0; m < 100; ++m) {
      float value = (static_cast<float>(m) + 0.5f) * threshold;
      for (int step = 0; step < 8; ++step) value = std::nextafter(value, 0.0f);
      for (int step = 0; step < 16; ++step) {
        x.push_back(m % 2 == 0 ? value : -value);
        value = std::nextafter(value, 1e30f);
      }
    }
    SpikeRows rows;
    const auto cols = static_cast<int64_t>(x.size());
    rows.reserve(1, cols, true);
    fire_row({k, 0}, x.data(), 0, cols, rows);
    ASSERT_EQ(rows.threshold[0], threshold);
    for (size_t i = 0; i < x.size(); ++i)
      ASSERT_EQ(rows.base[i], std::clamp(std::nearbyint(x[i] / threshold), -127.0f, 127.0f)) << x[i];
    expect_equals_reference({k, 0}, x, "near halves");
  }
}

TEST_P(SpikeOnEveryIsa, SilentRowsAreZerosAndHaveNoEvents) {
  const std::vector<float> x(576, 0.0f);
  expect_equals_reference({}, x, "zeros");
  SpikeRows rows;
  rows.reserve(1, 576, true);
  fire_row({}, x.data(), 0, 576, rows);
  EXPECT_EQ(rows.events.groups, 0);
  EXPECT_EQ(rows.threshold[0], kLeastThreshold);
}

TEST_P(SpikeOnEveryIsa, CountsBeyondInt8AndInt16AreExact) {
  std::vector<float> x = normal_row(11008, 3, 1e-3f);
  for (size_t i = 0; i < x.size(); i += 97) x[i] *= 200;
  expect_equals_reference({}, x, "heavy tail");
  std::vector<float> outlier(11008, 0.0f);
  outlier[4711] = -3.0f;
  expect_equals_reference({4, 0}, outlier, "single outlier");
  SpikeRows rows;
  rows.reserve(1, 11008, true);
  fire_row({4, 0}, outlier.data(), 0, 11008, rows);
  EXPECT_EQ(counts_of(rows, 0, 11008)[4711], -44032) << "k times the length";
}

TEST_P(SpikeOnEveryIsa, CountsAreBoundedWhereTheThresholdCannotGrow) {
  std::vector<float> x(4096, 1.0f);
  x[5] = 1e30f;
  expect_equals_reference({}, x, "beyond the upper clamp");
  SpikeRows rows;
  rows.reserve(1, 4096, true);
  fire_row({}, x.data(), 0, 4096, rows);
  EXPECT_EQ(counts_of(rows, 0, 4096)[5], 1 << 18);
  const std::vector<float> all(64, 1e30f);
  fire_row({}, all.data(), 0, 64, rows);
  EXPECT_EQ(counts_of(rows, 0, 64), std::vector<int32_t>(64, 256));
}

TEST_P(SpikeOnEveryIsa, NonFiniteRowsHaveTheThresholdNaN) {
  for (const float bad : {std::nanf(""), -std::nanf(""), INFINITY, -INFINITY}) {
    std::vector<float> x = normal_row(96, 1);
    x[70] = bad;
    SpikeRows rows;
    rows.reserve(1, 96, true);
    fire_row({}, x.data(), 0, 96, rows);
    EXPECT_TRUE(std::isnan(rows.threshold[0]));
    EXPECT_EQ(counts_of(rows, 0, 96), std::vector<int32_t>(96, 0));
    EXPECT_EQ(rows.events.groups, 0);
  }
  const std::vector<float> most(64, std::numeric_limits<float>::max());
  SpikeRows rows;
  rows.reserve(1, 64, false);
  fire_row({}, most.data(), 0, 64, rows);
  EXPECT_TRUE(std::isnan(rows.threshold[0])) << "their sum is no float";
}

TEST_P(SpikeOnEveryIsa, ARowForgetsWhatWasThereBefore) {
  std::vector<float> outlier(64, 0.01f);
  outlier[3] = 100;
  SpikeRows rows;
  rows.reserve(1, 64, true);
  fire_row({}, outlier.data(), 0, 64, rows);
  ASSERT_GT(counts_of(rows, 0, 64)[3], 127);
  const std::vector<float> x = normal_row(64, 9);
  fire_row({}, x.data(), 0, 64, rows);
  std::vector<int32_t> expected(64);
  fire_reference({}, x.data(), 64, expected.data());
  EXPECT_EQ(counts_of(rows, 0, 64), expected);
}

TEST_P(SpikeOnEveryIsa, ARowThatWasFiredElsewhereIsTheSame) {
  const int64_t cols = 160;
  std::vector<float> x = normal_row(cols, 8);
  x[70] = -500;  // a count beyond int8
  for (const bool with_events : {false, true}) {
    SpikeRows here, placed;
    here.reserve(1, cols, with_events);
    placed.reserve(1, cols, with_events);
    fire_row({3, 1.0f}, x.data(), 0, cols, here);
    ASSERT_FALSE(here.beyond[0].begin.empty());
    std::vector<float> counts(x.size());
    spike_counts(here, 0, cols, counts.data());
    place_spikes(counts.data(), here.threshold[0], 0, cols, placed);
    EXPECT_EQ(placed.base, here.base);
    EXPECT_EQ(placed.fired, here.fired);
    EXPECT_EQ(placed.sums, here.sums);
    EXPECT_EQ(placed.threshold, here.threshold);
    EXPECT_EQ(placed.spiking, here.spiking);
    EXPECT_EQ(counts_of(placed, 0, cols), counts_of(here, 0, cols));
    if (with_events) {
      EXPECT_EQ(listed(placed, 0, cols), listed(here, 0, cols));
    }
  }
}

TEST_P(SpikeOnEveryIsa, TheListOfSeveralRowsIsTheirUnion) {
  for (const int64_t n : {2, 3, 8}) {
    const int64_t cols = 160;
    const FiredRows fired =
        fire_rows(n, cols, true,
                  [&](int64_t r) { return normal_row(cols, static_cast<uint32_t>(100 * n + r)); }, {3, 3.0f});
    const SpikeRows& rows = fired.rows;
    std::vector<bool> fires(static_cast<size_t>(cols), false), is_listed(static_cast<size_t>(cols), false);
    for (int64_t r = 0; r < n; ++r) {
      EXPECT_EQ(listed(rows, r, cols), fired.counts[static_cast<size_t>(r)]);
      for (size_t c = 0; c < fires.size(); ++c)
        fires[c] = fires[c] || fired.counts[static_cast<size_t>(r)][c] != 0;
    }
    for (int64_t b = 0; b < cols / 32; ++b)
      for (size_t e = 4 * rows.events.begin[static_cast<size_t>(b)];
           e < 4 * rows.events.begin[static_cast<size_t>(b + 1)]; ++e)
        is_listed[static_cast<size_t>(b * 32 + rows.events.columns[e])] = true;
    EXPECT_EQ(is_listed, fires);
  }
}

TEST_P(SpikeOnEveryIsa, AListOfSeveralRowsIsMadeOnlyIfItIsShort) {
  const int64_t cols = 1024;
  for (const int64_t n : {2, 4, 8})
    for (const bool quiet : {true, false}) {
      SpikeRows rows;
      rows.reserve(n, cols, true);
      for (int64_t r = 0; r < n; ++r) {
        std::vector<float> x(static_cast<size_t>(cols), quiet ? 0.0f : 1.0f);
        x[static_cast<size_t>(r)] = 1;
        fire_row({}, x.data(), r, cols, rows);
      }
      unite_events(cols, rows);
      EXPECT_EQ(takes_events(rows, cols, 0, n), quiet) << n;
      EXPECT_EQ(rows.listed, quiet) << n;
      unite_events(cols, rows, true);
      EXPECT_TRUE(rows.listed);
      EXPECT_EQ(takes_events(rows, cols, 0, n), quiet) << "a list that is too long is not walked";
    }
}

TEST_P(SpikeOnEveryIsa, FloatsAreCountsTimesTheThreshold) {
  std::vector<float> x = normal_row(64, 4);
  x[7] = 900;
  SpikeRows rows;
  rows.reserve(1, 64, false);
  fire_row({}, x.data(), 0, 64, rows);
  std::vector<float> f(64);
  spikes_to_floats(rows, 0, 64, f.data());
  const std::vector<int32_t> counts = counts_of(rows, 0, 64);
  for (size_t c = 0; c < 64; ++c) EXPECT_EQ(f[c], rows.threshold[0] * static_cast<float>(counts[c]));
  EXPECT_NEAR(f[7], 900, rows.threshold[0] / 2);
}

// The threshold is mean|x| / k (arXiv:2509.05276, section 3.3), so mean|s| is near k whatever the
// distribution.
TEST(Spike, TheMeanCountIsAboutK) {
  for (const float k : {2.0f, 3.0f, 4.0f}) {
    const auto x = normal_row(65536, 5, 0.02f);
    std::vector<int32_t> counts(x.size());
    fire_reference({k, 0}, x.data(), std::ssize(x), counts.data());
    double sum = 0;
    for (const int32_t c : counts) sum += std::abs(c);
    EXPECT_NEAR(sum / static_cast<double>(counts.size()), k, 0.02);
  }
}

// Attention's queries, one head at a time: the same neuron, any length.
TEST(Spike, InPlaceGivesCountsTimesThreshold) {
  for (const NeuronSetting neuron : {NeuronSetting{3, 0}, NeuronSetting{2.5f, 1.5f}}) {
    for (const size_t n : {size_t{32}, size_t{128}}) {
      const auto x = normal_row(n, 11, 0.02f);
      std::vector<int32_t> counts(n);
      const float threshold = fire_reference(neuron, x.data(), std::ssize(x), counts.data());
      auto spiked = x;
      spike_in_place(neuron, spiked.data(), std::ssize(spiked));
      for (size_t i = 0; i < n; ++i) EXPECT_EQ(spiked[i], threshold * static_cast<float>(counts[i])) << i;
    }
  }
  std::vector<float> odd{3, -1, 0.4f}, zeros(5, 0.0f), broken{1, NAN, 2};
  spike_in_place({}, odd.data(), 3);  // threshold (3 + 1 + 0.4) / 9
  const float v = 4.4f / 9;
  EXPECT_NEAR(odd[0], 6 * v, 1e-6);
  EXPECT_NEAR(odd[1], -2 * v, 1e-6);
  EXPECT_NEAR(odd[2], 1 * v, 1e-6);
  spike_in_place({}, zeros.data(), 5);
  EXPECT_EQ(zeros, std::vector<float>(5, 0.0f));
  spike_in_place({}, broken.data(), 3);
  for (const float value : broken) EXPECT_TRUE(std::isnan(value));
}

INSTANTIATE_TEST_SUITE_P(Isa, SpikeOnEveryIsa,
                         testing::ValuesIn(supported_isas().begin(), supported_isas().end()), isa_name);

}  // namespace
}  // namespace mneme::spike_test
