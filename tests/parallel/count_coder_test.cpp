// The coder of spike counts: what goes in comes out, in hardly more bits than the entropy; and damaged bytes
// are an error, never a crash or another answer that is not noticed.
#include "parallel/count_coder.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <random>

#include "simd/spike.h"

namespace mneme::count_coder_test {
namespace {

MessageBytes coded(const std::vector<int32_t>& counts) {
  MessageWriter out;
  encode_counts(counts, out);
  return out.take();
}

std::vector<int32_t> decoded(const MessageBytes& bytes, size_t n) {
  std::vector<int32_t> counts(n);
  MessageReader in(bytes, "test");
  decode_counts(in, counts);
  in.end();
  return counts;
}

/// Counts of values with a normal distribution at the threshold mean|x| / k.
std::vector<int32_t> normal_counts(size_t n, double k, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  const double threshold = std::sqrt(2 / M_PI) / k;  // mean |x| is sqrt(2 / pi)
  std::vector<int32_t> counts(n);
  for (int32_t& count : counts) count = static_cast<int32_t>(std::nearbyint(normal(random) / threshold));
  return counts;
}

double entropy_bits(const std::vector<int32_t>& counts) {
  std::map<int32_t, double> histogram;
  for (const int32_t count : counts) ++histogram[count];
  double bits = 0;
  for (const auto& [count, n] : histogram) bits -= n * std::log2(n / static_cast<double>(counts.size()));
  return bits;
}

TEST(CountCoder, RoundTripsOfAllSizesAndRanges) {
  std::mt19937 random(1);
  for (const size_t n : {0, 1, 2, 3, 31, 64, 257, 5000})
    for (const int bits : {0, 1, 2, 4, 5, 7, 8, 12, 16, 18}) {
      std::vector<int32_t> counts(n);
      const int32_t most = 1 << bits;
      for (int32_t& count : counts) count = std::uniform_int_distribution<int32_t>(-most, most)(random);
      EXPECT_EQ(decoded(coded(counts), n), counts) << n << " counts of up to " << most;
    }
  for (const double k : {0.2, 1.0, 3.0, 40.0}) {
    const auto counts = normal_counts(3000, k, 7);
    EXPECT_EQ(decoded(coded(counts), counts.size()), counts) << k;
  }
}

TEST(CountCoder, EveryMagnitudeNearTheBordersOfBuckets) {
  std::vector<int32_t> counts;
  for (int bit = 0; bit <= 18; ++bit)
    for (const int32_t off : {-1, 0, 1})
      for (const int32_t base : {1 << bit, 3 << (bit > 0 ? bit - 1 : 0)})
        if (base + off <= kMostCount) counts.insert(counts.end(), {base + off, -(base + off)});
  EXPECT_EQ(decoded(coded(counts), counts.size()), counts);
}

TEST(CountCoder, OneKindOfCountCostsNearlyNothing) {
  EXPECT_LT(coded(std::vector<int32_t>(4096, 0)).size(), 16u);
  EXPECT_LT(coded(std::vector<int32_t>(4096, 2)).size(), 16u + 4096 / 8);  // their signs
}

TEST(CountCoder, ReachesTheEntropy) {
  for (const double k : {0.5, 1.0, 3.0, 8.0})
    for (const size_t n : {size_t{2048}, size_t{65536}}) {
      const auto counts = normal_counts(n, k, 3);
      const double bytes = entropy_bits(counts) / 8;
      EXPECT_LT(static_cast<double>(coded(counts).size()), 1.01 * bytes + 48) << k << " " << n;
    }
}

double bytes_a_count(size_t n, double k) {
  size_t bytes = 0;
  for (uint32_t seed = 1; seed <= 100; ++seed) bytes += coded(normal_counts(n, k, seed)).size();
  return static_cast<double>(bytes) / 100 / static_cast<double>(n);
}

// The figures of docs/expert-parallel.md.
TEST(CountCoder, NormalRowsTakeHalfOfInt8) {
  EXPECT_NEAR(bytes_a_count(2048, 3.0), 0.51, 0.01);
  EXPECT_NEAR(bytes_a_count(2048, 1.5), 0.38, 0.01);
  EXPECT_NEAR(bytes_a_count(64, 3.0), 0.77, 0.02);  // short rows pay for their table
}

TEST(CountCoder, NeverLongerThanPlainBytes) {
  std::mt19937 random(2);
  for (const size_t n : {1, 8, 40, 1000}) {
    std::vector<int32_t> counts(n);
    for (int32_t& count : counts) count = std::uniform_int_distribution<int32_t>(-127, 127)(random);
    EXPECT_LE(coded(counts).size(), n + 1);
  }
}

TEST(CountCoder, RefusesCountsBeyondItsRange) {
  EXPECT_THROW(coded({kMostCount + 1}), Error);
  EXPECT_EQ(decoded(coded({kMostCount, -kMostCount}), 2), (std::vector<int32_t>{1 << 18, -(1 << 18)}));
}

void expect_corrupt(const MessageBytes& bytes, size_t n) {
  try {
    decoded(bytes, n);
    ADD_FAILURE() << "damage was not noticed";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::corrupt) << error.what();
  }
}

TEST(CountCoder, TruncatedBytesAreCorrupt) {
  const auto counts = normal_counts(500, 3.0, 11);
  const MessageBytes whole = coded(counts);
  for (size_t size = 0; size < whole.size(); ++size)
    expect_corrupt({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)}, counts.size());
  expect_corrupt(whole, counts.size() + 1);
  expect_corrupt(whole, counts.size() - 1);
}

// The state at the end says whether anything was damaged on the way; signs are plain bits, which nothing
// guards.
TEST(CountCoder, DamagedBytesAreNoticedOrChangeSignsOnly) {
  const auto counts = normal_counts(500, 3.0, 13);
  const MessageBytes whole = coded(counts);
  int noticed = 0, changed = 0;
  for (size_t i = 0; i < 8 * whole.size(); ++i) {
    MessageBytes bytes = whole;
    bytes[i / 8] ^= static_cast<std::byte>(1u << i % 8);
    try {
      const auto other = decoded(bytes, counts.size());
      for (size_t c = 0; c < counts.size(); ++c) EXPECT_LE(std::abs(other[c]), kMostCount);
      ++changed;
    } catch (const Error& error) {
      ASSERT_EQ(error.code(), ErrorCode::corrupt) << error.what();
      ++noticed;
    }
  }
  EXPECT_GT(noticed, 2 * changed);
}

TEST(CountCoder, RandomBytesAreCorruptOrCounts) {
  std::mt19937 random(17);
  for (int round = 0; round < 20000; ++round) {
    MessageBytes bytes(random() % 64);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
    if (!bytes.empty() && round % 2 == 0) bytes[0] = std::byte{1};
    std::vector<int32_t> counts(random() % 40);
    try {
      MessageReader in(bytes, "test");
      decode_counts(in, counts);
      for (const int32_t count : counts) ASSERT_LE(std::abs(int64_t{count}), kMostCount);
    } catch (const Error& error) {
      ASSERT_EQ(error.code(), ErrorCode::corrupt) << error.what();
    }
  }
}

}  // namespace
}  // namespace mneme::count_coder_test
