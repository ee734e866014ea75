#include "simd/spike_product.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/huge_buffer.h"
#include "simd/every_isa.h"
#include "simd/packed_product.h"
#include "simd/random_blocks.h"
#include "simd/spike_outputs.h"

namespace mneme::spike_product_test {
namespace {

using SpikeProductOnEveryIsa = OnEveryIsa;

constexpr DType kStriped[] = {DType::q8_0, DType::q4_0, DType::q4_1};

struct Striped {
  HugeBuffer buffer;
  PackedMatrix matrix;
};

Striped stripe(DType type, int64_t rows, int64_t cols, const std::vector<std::byte>& data,
               uint8_t lines = 1) {
  Striped s;
  s.matrix = {packed_type(type), rows, cols, nullptr, lines};
  s.buffer = HugeBuffer(matrix_bytes(s.matrix));
  s.matrix.data = s.buffer.data();
  const int64_t height = stripe_rows(s.matrix);
  EXPECT_TRUE(pack_stripes(s.matrix, type, data.data(), 0, (rows + height - 1) / height, s.buffer.data()));
  return s;
}

// A row of x of which about the share `silent` is 0, with an outlier if there is room.
std::vector<float> row_of(int64_t cols, double silent, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::uniform_real_distribution<double> uniform;
  std::vector<float> x(static_cast<size_t>(cols));
  for (float& v : x) v = uniform(rng) < silent ? 0.0f : normal(rng);
  if (seed % 3 == 0) x[static_cast<size_t>(seed) % x.size()] = 400.0f;  // counts beyond int8
  if (seed % 3 == 1) x[static_cast<size_t>(seed) % x.size()] = 12.0f;   // of 8 bits, in most rows
  return x;
}

FiredRows fire(int64_t n, int64_t cols, double silent, bool with_events, uint32_t seed) {
  return fire_rows(n, cols, with_events,
                   [&](int64_t r) { return row_of(cols, silent, seed + static_cast<uint32_t>(r)); });
}

TEST(Stripes, HoldTheWeightsOfTiles) {
  for (const DType type : kStriped)
    for (const int64_t rows : {1, 3, 16, 64, 100, 128, 129, 300}) {
      const int64_t cols = 96;
      const auto data = random_rows(type, rows, cols, 5);
      const Striped s = stripe(type, rows, cols, data, rows % 3 == 0 ? 2 : 1);
      HugeBuffer buffer(packed_bytes(s.matrix.type, rows, cols));
      PackedMatrix tiles{s.matrix.type, rows, cols, buffer.data()};
      ASSERT_TRUE(pack_tiles(type, data.data(), rows, cols, 0, tiles.tiles(), buffer.data()));
      std::vector<float> a(96), b(96);
      for (int64_t r = 0; r < rows; ++r) {
        unpack_row(tiles, r, 0, cols, a.data());
        unpack_striped_row(s.matrix, r, b.data());
        ASSERT_EQ(a, b) << dtype_info(type).name << " row " << r << " of " << rows;
      }
    }
}

TEST(Stripes, ReportNonFiniteScales) {
  for (const DType type : kStriped) {
    auto data = random_rows(type, 3, 64, 1);
    data[1] = std::byte{0x7c};
    data[0] = std::byte{0};  // f16 infinity
    const PackedMatrix w{packed_type(type), 3, 64, nullptr, 1};
    std::vector<std::byte> out(matrix_bytes(w));
    EXPECT_FALSE(pack_stripes(w, type, data.data(), 0, 1, out.data()));
  }
}

TEST_P(SpikeProductOnEveryIsa, EqualsTheReference) {
  for (const DType type : kStriped)
    for (const int64_t rows : {1, 37, 64, 130, 200})
      for (const int64_t n : {1, 2, 3, 5, 8, 13}) {
        const int64_t cols = 160;
        const Striped s = stripe(type, rows, cols, random_rows(type, rows, cols, 7), n % 2 ? 1 : 2);
        const FiredRows input = fire(n, cols, 0.3, false, static_cast<uint32_t>(10 * n));
        const std::vector<float> y = whole_product(s.matrix, input, n, SpikePath::automatic);
        for (int64_t i = 0; i < n; ++i)
          for (int64_t r = 0; r < rows; ++r) {
            const auto& counts = input.counts[static_cast<size_t>(i)];
            std::vector<float> weights(static_cast<size_t>(cols));
            unpack_striped_row(s.matrix, r, weights.data());
            double bound = 0;
            const float threshold = input.rows.threshold[static_cast<size_t>(i)];
            for (size_t c = 0; c < counts.size(); ++c)
              bound += std::abs(double{weights[c]} * counts[c]) * threshold * 1e-6 + 1e-12;
            // with mins, the two parts of a block may each be larger than their sum
            if (type == DType::q4_1) bound *= 8;
            ASSERT_NEAR(y[static_cast<size_t>(i * rows + r)],
                        spike_product_reference(s.matrix, counts.data(), threshold, r), bound)
                << dtype_info(type).name << " rows " << rows << " n " << n << " at " << i << "," << r;
          }
      }
}

TEST_P(SpikeProductOnEveryIsa, EventsGiveTheBitsOfTheDensePath) {
  for (const DType type : kStriped)
    for (const int64_t rows : {64, 200})
      for (const int64_t cols : {32, 576})
        for (const double silent : {0.0, 0.3, 0.6, 0.9, 0.995, 1.0})
          for (const int64_t n : {1, 3, 8}) {
            const Striped s = stripe(type, rows, cols, random_rows(type, rows, cols, 11), rows == 64 ? 1 : 2);
            const FiredRows input = fire(n, cols, silent, true, static_cast<uint32_t>(n));
            ASSERT_EQ(whole_product(s.matrix, input, n, SpikePath::events),
                      whole_product(s.matrix, input, n, SpikePath::dense))
                << dtype_info(type).name << " " << rows << "x" << cols << " silent " << silent << " n " << n;
          }
}

TEST_P(SpikeProductOnEveryIsa, OneRowAtATimeGivesTheBitsOfAChunk) {
  for (const DType type : kStriped) {
    const int64_t rows = 200, cols = 320, n = 21;
    const Striped s = stripe(type, rows, cols, random_rows(type, rows, cols, 13), 2);
    const FiredRows input = fire(n, cols, 0.5, false, 3);
    std::vector<float> one(static_cast<size_t>(n * rows));
    for (int64_t i = 0; i < n; ++i)
      spike_product(s.matrix, input.rows, 0, s.matrix.tiles(), i, i + 1, one.data(), rows);
    ASSERT_EQ(whole_product(s.matrix, input, n, SpikePath::automatic), one) << dtype_info(type).name;
  }
}

TEST_P(SpikeProductOnEveryIsa, StripesMayBeComputedApart) {
  const int64_t rows = 300, cols = 64;
  for (const DType type : kStriped) {
    const Striped s = stripe(type, rows, cols, random_rows(type, rows, cols, 17));
    const FiredRows input = fire(1, cols, 0.5, true, 4);
    std::vector<float> apart(static_cast<size_t>(rows));
    const int64_t unit = stripe_tiles(s.matrix);
    for (int64_t tile = 0; tile < s.matrix.tiles(); tile += unit)
      spike_product(s.matrix, input.rows, tile, std::min(tile + unit, s.matrix.tiles()), 0, 1, apart.data(),
                    rows);
    EXPECT_EQ(apart, whole_product(s.matrix, input, 1, SpikePath::automatic));
  }
}

// The largest integers there are: extreme codes against the largest counts, alone and 32 at a time.
TEST_P(SpikeProductOnEveryIsa, ExtremeCodesAndCountsAreExact) {
  const int64_t rows = 64, cols = 64;
  auto data = random_rows(DType::q8_0, rows, cols, 1);
  for (int64_t b = 0; b < rows * cols / 32; ++b)
    for (int i = 0; i < 32; ++i)
      data[static_cast<size_t>(34 * b + 2 + i)] = static_cast<std::byte>(b % 2 ? 0x80 : 0x7f);
  const Striped s = stripe(DType::q8_0, rows, cols, data);
  for (const float sign : {1.0f, -1.0f})
    for (const bool single : {false, true}) {
      std::vector<float> x(static_cast<size_t>(cols), single ? 0.0f : sign * 1e30f);
      x[9] = sign * 1e30f;
      const FiredRows input = fire_rows(1, cols, true, [&](int64_t) { return x; });
      const auto dense = whole_product(s.matrix, input, 1, SpikePath::dense);
      EXPECT_EQ(whole_product(s.matrix, input, 1, SpikePath::events), dense);
      for (int64_t r = 0; r < rows; ++r) {
        const double expected =
            spike_product_reference(s.matrix, input.counts[0].data(), input.thresholds[0], r);
        ASSERT_NEAR(dense[static_cast<size_t>(r)], expected,
                    std::abs(expected) * 1e-5 + std::abs(x[9]) * 1e-5)
            << r;
      }
    }
}

TEST_P(SpikeProductOnEveryIsa, ARowThatIsNotFiniteShowsIt) {
  const Striped s = stripe(DType::q8_0, 64, 64, random_rows(DType::q8_0, 64, 64, 2));
  std::vector<float> x(64, 1.0f);
  x[40] = INFINITY;
  const FiredRows input = fire_rows(1, 64, true, [&](int64_t) { return x; });
  for (const SpikePath path : {SpikePath::dense, SpikePath::events})
    for (const float y : whole_product(s.matrix, input, 1, path)) EXPECT_TRUE(std::isnan(y));
}

TEST(SpikeProduct, TheEngineTakesEventsWhereTheListIsShort) {
  const int64_t cols = 1024;
  const bool here = gaps_are_dear();
  for (const bool dear : {false, true}) {
    set_gaps_are_dear(dear);
    EXPECT_TRUE(takes_events(fire(1, cols, 0.8, true, 1).rows, cols, 0, 1));
    EXPECT_EQ(takes_events(fire(1, cols, 0.5, true, 1).rows, cols, 0, 1), !dear);
    EXPECT_FALSE(takes_events(fire(1, cols, 0.8, false, 1).rows, cols, 0, 1)) << "there is no list";
    EXPECT_FALSE(takes_events(fire(2, cols, 0.8, true, 1).rows, cols, 0, 1)) << "the list is of two rows";
    SpikeRows full;
    full.reserve(1, cols, true);
    fire_row({}, std::vector<float>(cols, 1.0f).data(), 0, cols, full);
    EXPECT_FALSE(takes_events(full, cols, 0, 1)) << "no input is silent";
  }
  set_gaps_are_dear(here);
}

INSTANTIATE_TEST_SUITE_P(Isa, SpikeProductOnEveryIsa,
                         testing::ValuesIn(supported_isas().begin(), supported_isas().end()), isa_name);

}  // namespace
}  // namespace mneme::spike_product_test
