// Codes against the examples and rates that their authors give, and against plain integers.
#include "model/spike_codes.h"

#include <gtest/gtest.h>

#include <cmath>

#include "mneme/error.h"
#include "random_values.h"
#include "stride.h"

namespace mneme::spike_codes_test {
namespace {

std::vector<int> train_of(SpikeCode code, int32_t count, int64_t steps = 0) {
  const SpikeTrain train = encode_spikes(code, {&count, 1}, steps);
  return {train.spikes.begin(), train.spikes.end()};
}

TEST(SpikeCodesTest, TheExamplesOfFive) {
  EXPECT_EQ(train_of(SpikeCode::binary, 5), (std::vector<int>{1, 1, 1, 1, 1}));
  EXPECT_EQ(train_of(SpikeCode::ternary, -5), (std::vector<int>{-1, -1, -1, -1, -1}));
  EXPECT_EQ(train_of(SpikeCode::unsigned_, 5), (std::vector<int>{1, 0, 1}));
  EXPECT_EQ(train_of(SpikeCode::bidirectional, -5), (std::vector<int>{-1, 0, -1}));
  EXPECT_EQ(train_of(SpikeCode::twos_complement, -5), (std::vector<int>{1, 0, 1, 1}));
  EXPECT_EQ(train_of(SpikeCode::twos_complement, 5), (std::vector<int>{0, 1, 0, 1}));
  EXPECT_EQ(train_of(SpikeCode::ternary, 2, 4), (std::vector<int>{1, 1, 0, 0}));
}

TEST(SpikeCodesTest, StepsAtPowersOfTwo) {
  struct Case {
    int32_t most;
    int64_t bits;
  };
  for (const auto& [most, bits] : {Case{0, 1},
                                   {1, 1},
                                   {2, 2},
                                   {3, 2},
                                   {4, 3},
                                   {7, 3},
                                   {8, 4},
                                   {127, 7},
                                   {128, 8},
                                   {255, 8},
                                   {256, 9},
                                   {32767, 15},
                                   {32768, 16},
                                   {1 << 24, 25}}) {
    EXPECT_EQ(spike_steps(SpikeCode::unsigned_, 0, most), bits) << most;
    EXPECT_EQ(spike_steps(SpikeCode::bidirectional, -most, 0), bits) << most;
    EXPECT_EQ(spike_steps(SpikeCode::twos_complement, -most, most), std::max<int64_t>(2, bits + 1)) << most;
    EXPECT_EQ(spike_steps(SpikeCode::ternary, -most, 0), std::max(1, most)) << most;
    EXPECT_EQ(spike_steps(SpikeCode::binary, 0, most), std::max(1, most)) << most;
  }
  EXPECT_EQ(spike_steps(SpikeCode::bidirectional, INT32_MIN, 0), 32);
}

TEST(SpikeCodesTest, EveryInt8AndInt16IsItsOwnDecoding) {
  for (const SpikeCode code : kSpikeCodes)
    for (const int32_t most : {127, 32767})
      // A counting code takes as many steps as its largest count; in pieces, so that small counts have short
      // trains.
      for (int32_t first = is_unsigned(code) ? 0 : -most - 1; first <= most; first += 512 * kStride) {
        std::vector<int32_t> counts;
        for (int32_t count = first; count <= most && count < first + 512; ++count) counts.push_back(count);
        ASSERT_EQ(decode_spikes(encode_spikes(code, counts)), counts) << to_string(code) << " from " << first;
      }
}

TEST(SpikeCodesTest, CountsOutsideTheDomainAreNamed) {
  const std::vector<int32_t> counts{3, 0, -4};
  for (const SpikeCode code : {SpikeCode::binary, SpikeCode::unsigned_}) {
    try {
      encode_spikes(code, counts);
      FAIL() << "no error";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("-4"), std::string::npos) << error.what();
    }
    EXPECT_THROW(encode_spikes(code, counts, 5), Error);
    EXPECT_THROW(spike_steps(code, -1, 4), Error);
  }
}

TEST(SpikeCodesTest, StepsThatAreTooFewAreAnError) {
  struct Case {
    SpikeCode code;
    int32_t count;
    int64_t enough;
  };
  for (const auto& [code, count, enough] : {Case{SpikeCode::binary, 5, 5},
                                            {SpikeCode::ternary, -5, 5},
                                            {SpikeCode::unsigned_, 8, 4},
                                            {SpikeCode::bidirectional, -8, 4},
                                            {SpikeCode::twos_complement, 8, 5},
                                            {SpikeCode::twos_complement, -8, 4}}) {
    EXPECT_EQ(decode_spikes(encode_spikes(code, {&count, 1}, enough)), std::vector<int32_t>{count});
    EXPECT_THROW(encode_spikes(code, {&count, 1}, enough - 1), Error) << to_string(code);
  }
  const int32_t one = 1;
  EXPECT_THROW(encode_spikes(SpikeCode::bidirectional, {&one, 1}, 63), Error);
  EXPECT_THROW(encode_spikes(SpikeCode::ternary, {&one, 1}, -1), Error);
  EXPECT_THROW(encode_spikes(SpikeCode::binary, std::vector<int32_t>(1000, 1 << 24)),
               Error);  // 16 GB of slots
}

TEST(SpikeCodesTest, NothingIsATrainOfNothing) {
  for (const SpikeCode code : kSpikeCodes) {
    const SpikeTrain train = encode_spikes(code, {});
    EXPECT_EQ(train.rate(), 0);
    EXPECT_TRUE(decode_spikes(train).empty());
  }
}

TEST(SpikeCodesTest, SpikesOfOneCountAreThoseOfItsTrain) {
  for (const SpikeCode code : kSpikeCodes)
    for (int32_t count = is_unsigned(code) ? 0 : -300; count <= 300; ++count) {
      const std::vector<int> train =
          train_of(code, count, 300 * (code == SpikeCode::binary || code == SpikeCode::ternary));
      const auto fired = static_cast<int64_t>(train.size()) - std::count(train.begin(), train.end(), 0);
      ASSERT_EQ(spikes_of(code, count, std::ssize(train)), fired) << to_string(code) << " " << count;
    }
}

TEST(SpikeCodesTest, TrainsMultiplyLikeCounts) {
  Pcg64 random(5);
  const size_t width = 61, rows = 7;
  std::vector<int8_t> weights(width * rows);
  for (int8_t& w : weights) w = static_cast<int8_t>(static_cast<int>(random.below(256)) - 128);
  for (const SpikeCode code : kSpikeCodes) {
    std::vector<int32_t> counts(width);
    for (int32_t& count : counts)
      count = static_cast<int32_t>(random.below(401)) - (is_unsigned(code) ? 0 : 200);
    std::vector<int64_t> y(rows, -1);
    spike_train_product(encode_spikes(code, counts), weights, y);
    for (size_t r = 0; r < rows; ++r) {
      int64_t dense = 0;
      for (size_t i = 0; i < width; ++i) dense += int64_t{weights[r * width + i]} * counts[i];
      EXPECT_EQ(y[r], dense) << to_string(code) << " row " << r;
    }
  }
  std::vector<int64_t> y(rows + 1);
  EXPECT_THROW(
      spike_train_product(encode_spikes(SpikeCode::ternary, std::vector<int32_t>(width)), weights, y), Error);
}

// The rates that the published demo prints for N(0, 1) on a grid of 16 values.
TEST(SpikeCodesTest, RatesOfTheDemo) {
  const std::vector<float> x = gaussian(1 << 20, 6);
  float largest = 0;
  for (const float value : x) largest = std::max(largest, std::fabs(value));
  std::vector<int32_t> grid(x.size()), around_zero(x.size());  // 0..15 and -8..7
  for (size_t i = 0; i < x.size(); ++i) {
    grid[i] = static_cast<int32_t>(std::lrint((x[i] + largest) * 15 / (2 * largest)));
    around_zero[i] = grid[i] - 8;
  }
  grid[0] = 15;
  around_zero[0] = -8;  // both ends of the grid are there
  struct Case {
    SpikeCode code;
    int64_t steps;
    double rate;
  };
  for (const auto& [code, steps, rate] : {Case{SpikeCode::binary, 15, 0.50},
                                          {SpikeCode::ternary, 8, 0.16},
                                          {SpikeCode::unsigned_, 4, 0.50},
                                          {SpikeCode::bidirectional, 4, 0.21},
                                          {SpikeCode::twos_complement, 5, 0.50}}) {
    const SpikeTrain train = encode_spikes(code, is_unsigned(code) ? grid : around_zero);
    EXPECT_EQ(train.steps, steps) << to_string(code);
    EXPECT_NEAR(train.rate(), rate, 0.011) << to_string(code);
  }
}

TEST(SpikeCodesTest, NamesReadBack) {
  for (const SpikeCode code : kSpikeCodes) EXPECT_EQ(spike_code_from(to_string(code)), code);
  EXPECT_FALSE(spike_code_from("morse"));
}

}  // namespace
}  // namespace mneme::spike_codes_test
