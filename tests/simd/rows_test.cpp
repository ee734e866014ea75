#include "simd/rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "core/fp8.h"
#include "every_isa.h"
#include "mneme/error.h"

namespace mneme::rows_test {
namespace {

constexpr RowFormat kFormats[] = {RowFormat::f32, RowFormat::bf16, RowFormat::int8, RowFormat::fp8_e4m3_e8m0};
constexpr int64_t kSizes[] = {1, 3, 7, 15, 16, 17, 31, 32, 33, 63, 64, 80, 97, 160, 256, 1000};

// The value that the standard's table gives a code: sign, exponent with bias 7, three mantissa bits.
double e4m3_by_definition(int code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  if (exponent == 15 && mantissa == 7) return std::numeric_limits<double>::quiet_NaN();
  const double value =
      exponent == 0 ? mantissa / 8.0 * std::pow(2.0, -6) : (1 + mantissa / 8.0) * std::pow(2.0, exponent - 7);
  return (code & 0x80) != 0 ? -value : value;
}

bool same_bits_or_both_nan(float a, float b) {
  return (std::isnan(a) && std::isnan(b)) || std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b);
}

std::vector<std::byte> random_record(RowFormat format, int64_t n, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0, 2);
  std::vector<float> row(static_cast<size_t>(n));
  for (auto& v : row) v = normal(rng);
  std::vector<std::byte> record(row_bytes(format, static_cast<uint32_t>(n)));
  encode_row(format, row.data(), n, record.data());
  return record;
}

TEST(Fp8, AllCodesOfE4m3AreWhatTheStandardSays) {
  for (int code = 0; code < 256; ++code) {
    const double expected = e4m3_by_definition(code);
    const float value = e4m3_to_f32(static_cast<uint8_t>(code));
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(value)) << code;
      continue;
    }
    EXPECT_EQ(value, expected) << code;
    EXPECT_EQ(std::signbit(value), (code & 0x80) != 0) << code;
    EXPECT_EQ(f32_to_e4m3(value), code) << "back";
  }
  EXPECT_EQ(e4m3_to_f32(0x7e), 448.0f);
  EXPECT_EQ(e4m3_to_f32(0x01), 0x1p-9f);
}

TEST(Fp8, AllCodesOfE8m0ArePowersOfTwo) {
  for (int code = 0; code < 255; ++code)
    EXPECT_EQ(double{e8m0_to_f32(static_cast<uint8_t>(code))}, std::pow(2.0, code - 127)) << code;
  EXPECT_TRUE(std::isnan(e8m0_to_f32(255)));
}

// Against a search through all codes; where two are equally near, the one with the even mantissa.
TEST(Fp8, RoundsToTheNearestCodeTiesToEven) {
  const auto nearest = [](float x) {
    int best = 0;
    for (int code = 0; code < 0x7f; ++code) {
      const double now = std::abs(e4m3_by_definition(code) - x),
                   then = std::abs(e4m3_by_definition(best) - x);
      if (now < then || (now == then && code % 2 == 0)) best = code;
    }
    return best;
  };
  std::vector<float> values = {0.0f, 0x1p-10f, 0x1.8p-9f, 0x1.fp-7f, 0x1p-6f, 17.0f, 19.0f, 447.9f, 448.0f};
  for (int code = 0; code < 0x7e; ++code)  // the middle between neighbours, and just beside it
    for (const float step : {-1e-6f, 0.0f, 1e-6f})
      values.push_back(
          0.5f * (e4m3_to_f32(static_cast<uint8_t>(code)) + e4m3_to_f32(static_cast<uint8_t>(code + 1))) *
          (1 + step));
  for (const float x : values) {
    EXPECT_EQ(f32_to_e4m3(x), nearest(x)) << x;
    EXPECT_EQ(f32_to_e4m3(-x), nearest(x) | 0x80) << -x;
  }
  EXPECT_EQ(f32_to_e4m3(1e9f), 0x7e);
  EXPECT_EQ(f32_to_e4m3(-std::numeric_limits<float>::infinity()), 0xfe);
  EXPECT_EQ(f32_to_e4m3(std::numeric_limits<float>::quiet_NaN()), 0x7f);
}

TEST(Rows, RecordsHaveTheBytesOfTheirFormat) {
  EXPECT_EQ(row_bytes(RowFormat::fp8_e4m3_e8m0, 256), 264u);  // DeepSeek-V4.1
  EXPECT_EQ(row_bytes(RowFormat::fp8_e4m3_e8m0, 33), 35u);
  EXPECT_EQ(row_bytes(RowFormat::int8, 160), 164u);
  EXPECT_EQ(row_bytes(RowFormat::bf16, 80), 160u);
  EXPECT_EQ(row_bytes(RowFormat::f32, 64), 256u);
  EXPECT_THROW(row_bytes(RowFormat::f32, 1u << 30), Error);
}

class RowsOnEveryIsa : public OnEveryIsa {};

// A record for each pair of a code and a scale: 256 codes under one scale a block, all 256 scales.
TEST_P(RowsOnEveryIsa, EveryFp8CodeUnderEveryScale) {
  std::vector<std::byte> record(264);
  for (int code = 0; code < 256; ++code) record[static_cast<size_t>(code)] = static_cast<std::byte>(code);
  std::vector<float> out(256);
  for (int scale = 0; scale < 256; ++scale) {
    std::fill(record.begin() + 256, record.end(), static_cast<std::byte>(scale));
    decode_row(RowFormat::fp8_e4m3_e8m0, record.data(), 256, out.data());
    for (int code = 0; code < 256; ++code) {
      const double expected = e4m3_by_definition(code) * (scale == 255 ? NAN : std::pow(2.0, scale - 127));
      ASSERT_TRUE(same_bits_or_both_nan(out[static_cast<size_t>(code)], static_cast<float>(expected)))
          << "code " << code << " scale " << scale << ": " << out[static_cast<size_t>(code)] << ", not "
          << expected;
    }
  }
}

TEST_P(RowsOnEveryIsa, VectorsEqualPlainLoopsAtAnySizeAndAddress) {
  for (const RowFormat format : kFormats)
    for (const int64_t n : kSizes) {
      const auto record = random_record(format, n, static_cast<uint32_t>(n));
      for (const size_t shift : {size_t{0}, size_t{1}, size_t{3}}) {
        std::vector<std::byte> moved(record.size() + shift);
        std::copy(record.begin(), record.end(), moved.begin() + static_cast<std::ptrdiff_t>(shift));
        std::vector<float> plain(static_cast<size_t>(n)), out(static_cast<size_t>(n) + 1, -77.0f);
        decode_row_plain(format, moved.data() + shift, n, plain.data());
        decode_row(format, moved.data() + shift, n, out.data());
        ASSERT_EQ(std::memcmp(out.data(), plain.data(), plain.size() * sizeof(float)), 0)
            << n << " +" << shift;
        ASSERT_EQ(out.back(), -77.0f) << "wrote past the row";
      }
    }
}

TEST_P(RowsOnEveryIsa, RandomBytesDecodeAsInPlainLoops) {
  std::mt19937 rng(5);
  for (const RowFormat format : kFormats)
    for (int round = 0; round < 50; ++round) {
      std::vector<std::byte> record(row_bytes(format, 97));
      for (auto& byte : record) byte = static_cast<std::byte>(rng());
      std::vector<float> plain(97), out(97);
      decode_row_plain(format, record.data(), 97, plain.data());
      decode_row(format, record.data(), 97, out.data());
      for (size_t i = 0; i < 97; ++i) ASSERT_TRUE(same_bits_or_both_nan(out[i], plain[i])) << i;
    }
}

TEST_P(RowsOnEveryIsa, GatherConcatenatesTheRowsAtTheAddresses) {
  for (const RowFormat format : kFormats) {
    constexpr int64_t kDim = 40;
    std::vector<std::vector<std::byte>> table;
    for (uint32_t i = 0; i < 9; ++i) table.push_back(random_record(format, kDim, 100 + i));
    for (const size_t count : {0, 1, 3, 4, 5, 24}) {
      std::vector<const std::byte*> records;
      for (size_t i = 0; i < count; ++i) records.push_back(table[i * i % table.size()].data());
      std::vector<float> out(count * kDim), row(kDim);
      gather_rows(format, records, kDim, out.data());
      for (size_t i = 0; i < count; ++i) {
        decode_row_plain(format, records[i], kDim, row.data());
        ASSERT_TRUE(std::equal(row.begin(), row.end(), out.begin() + static_cast<std::ptrdiff_t>(i * kDim)));
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, RowsOnEveryIsa,
                         testing::ValuesIn(supported_isas().begin(), supported_isas().end()), isa_name);

// Worst error of a value against the largest of its row or block: half a step of the format.
TEST(Rows, EncodingIsAsNearAsTheFormatAllows) {
  for (const int64_t n : kSizes)
    for (const float scale : {1e-30f, 0.02f, 1.0f, 3e30f}) {
      std::mt19937 rng(static_cast<uint32_t>(n));
      std::normal_distribution<float> normal(0, scale);
      std::vector<float> row(static_cast<size_t>(n)), back(static_cast<size_t>(n));
      for (auto& v : row) v = normal(rng);
      for (const RowFormat format : kFormats) {
        std::vector<std::byte> record(row_bytes(format, static_cast<uint32_t>(n)));
        encode_row(format, row.data(), n, record.data());
        decode_row(format, record.data(), n, back.data());
        for (int64_t i = 0; i < n; ++i) {
          const auto at = static_cast<size_t>(i);
          const auto begin = format == RowFormat::int8 ? row.begin() : row.begin() + i / 32 * 32;
          const auto end =
              format == RowFormat::int8 ? row.end() : row.begin() + std::min(n, i / 32 * 32 + 32);
          float peak = 0;
          for (auto it = begin; it != end; ++it) peak = std::max(peak, std::abs(*it));
          float bound = 0;                                                 // f32 is exact
          if (format == RowFormat::bf16) bound = std::abs(row[at]) / 256;  // 8 significant bits
          if (format == RowFormat::int8) bound = peak / 127 / 2 * 1.0001f;
          // 4 significant bits; below the smallest normal code half of 2^-9 scales, and scale < peak / 224
          if (format == RowFormat::fp8_e4m3_e8m0) bound = std::max(std::abs(row[at]) / 16, peak / 224 / 1024);
          ASSERT_NEAR(back[at], row[at], bound) << "n " << n << " i " << i << " format " << int(format);
        }
      }
    }
}

TEST(Rows, Fp8BlocksUseTheSmallestScaleThatHoldsThem) {
  std::vector<float> row(64, 1.0f);
  std::vector<std::byte> record(66);
  for (const auto& [peak, scale] : {std::pair{448.0f, 127}, std::pair{448.1f, 128}, std::pair{224.0f, 126},
                                    std::pair{1.0f, 119}, std::pair{3e38f, 247}, std::pair{1e-44f, 1}}) {
    row.assign(64, 0.0f);
    row[5] = -peak;
    encode_row(RowFormat::fp8_e4m3_e8m0, row.data(), 64, record.data());
    EXPECT_EQ(std::to_integer<int>(record[64]), scale) << peak;
    EXPECT_EQ(std::to_integer<int>(record[65]), 127) << "a block of zeros";
  }
}

TEST(Rows, ScaledFormatsRefuseWhatIsNotFinite) {
  std::vector<float> row(64, 1.0f);
  std::vector<std::byte> record(256);
  for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    row[40] = bad;
    for (const RowFormat format : {RowFormat::int8, RowFormat::fp8_e4m3_e8m0})
      EXPECT_THAT([&] { encode_row(format, row.data(), 64, record.data()); },
                  testing::ThrowsMessage<Error>(testing::HasSubstr("finite numbers only")));
    std::vector<float> back(64);
    encode_row(RowFormat::bf16, row.data(), 64, record.data());
    decode_row(RowFormat::bf16, record.data(), 64, back.data());
    EXPECT_TRUE(same_bits_or_both_nan(back[40], bad));
  }
}

}  // namespace
}  // namespace mneme::rows_test
