// Block formats against the numpy reference of the `gguf` package (tools/make_block_golden.py).
#include "simd/blocks.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/file.h"
#include "core/half.h"
#include "mneme/error.h"

namespace mneme::blocks_test {
namespace {

std::string golden(const std::string& name) {
  return read_text_file(fs::path(MNEME_TEST_DATA) / "blocks" / name);
}

std::vector<float> as_floats(std::string_view bytes) {
  std::vector<float> out(bytes.size() / sizeof(float));
  std::memcpy(out.data(), bytes.data(), bytes.size());
  return out;
}

const std::byte* raw(const std::string& text) {
  return reinterpret_cast<const std::byte*>(text.data());
}

class BlockFormat : public testing::TestWithParam<DType> {
 protected:
  DTypeInfo info_ = dtype_info(GetParam());
  std::string name_{info_.name};
};

TEST_P(BlockFormat, DequantizesToTheReferenceBits) {
  const std::string file = golden("dequantize_" + name_ + ".bin");
  const size_t n = 2048, bytes = n / info_.block_size * info_.block_bytes;
  ASSERT_EQ(file.size(), bytes + n * sizeof(float));
  const auto want = as_floats(std::string_view(file).substr(bytes));
  std::vector<float> got(n);
  dequantize_row(GetParam(), raw(file), got.data(), n);
  for (size_t i = 0; i < n; ++i) ASSERT_EQ(got[i], want[i]) << "value " << i;
}

TEST_P(BlockFormat, RefusesARowOfPartialBlocks) {
  std::vector<float> row(info_.block_size);
  std::vector<std::byte> bytes(info_.block_bytes);
  EXPECT_THROW(dequantize_row(GetParam(), bytes.data(), row.data(), info_.block_size - 1), Error);
}

INSTANTIATE_TEST_SUITE_P(All, BlockFormat,
                         testing::Values(DType::q4_0, DType::q4_1, DType::q5_0, DType::q5_1, DType::q8_0,
                                         DType::q2_k, DType::q3_k, DType::q4_k, DType::q5_k, DType::q6_k),
                         [](const auto& test) { return std::string(dtype_info(test.param).name); });

class Quantizer : public testing::TestWithParam<DType> {};

TEST_P(Quantizer, WritesTheReferenceBytes) {
  const auto info = dtype_info(GetParam());
  const auto input = as_floats(golden("quantize_input.f32"));
  const std::string want = golden("quantize_" + std::string(info.name) + ".bin");
  std::string got(want.size(), '\0');
  ASSERT_EQ(input.size() / info.block_size * info.block_bytes, want.size());
  quantize_row(GetParam(), input.data(), reinterpret_cast<std::byte*>(got.data()), input.size());
  for (size_t b = 0; b < want.size(); b += info.block_bytes)
    ASSERT_EQ(got.substr(b, info.block_bytes), want.substr(b, info.block_bytes))
        << "block " << b / info.block_bytes;
}

TEST_P(Quantizer, RefusesNonFiniteValuesAndNamesThem) {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), 1e30f}) {
    std::vector<float> row(32, 1.0f);
    row[17] = bad;
    std::vector<std::byte> bytes(64);
    try {
      quantize_row(GetParam(), row.data(), bytes.data(), row.size());
      FAIL() << bad << " was accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::corrupt);
      EXPECT_NE(std::string(error.what()).find("cannot be quantized"), std::string::npos);
    }
  }
}

TEST_P(Quantizer, TinyValuesGiveZerosNotNaNs) {
  std::vector<float> row(32, 1e-44f), back(32, 1.0f);
  std::vector<std::byte> bytes(64);
  quantize_row(GetParam(), row.data(), bytes.data(), row.size());
  dequantize_row(GetParam(), bytes.data(), back.data(), back.size());
  for (const float v : back) EXPECT_EQ(v, 0.0f);
}

INSTANTIATE_TEST_SUITE_P(All, Quantizer, testing::Values(DType::q8_0, DType::q4_0, DType::q4_1),
                         [](const auto& test) { return std::string(dtype_info(test.param).name); });

TEST(QuantizeRow, RefusesTypesThatAreOnlyRead) {
  std::vector<float> row(256);
  std::vector<std::byte> bytes(256);
  try {
    quantize_row(DType::q6_k, row.data(), bytes.data(), row.size());
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::unsupported);
    EXPECT_NE(std::string(error.what()).find("Q6_K"), std::string::npos);
  }
}

TEST(Half, ConvertsToTheBitsOfNumpy) {
  const auto input = as_floats(golden("convert_input.f32"));
  for (const DType type : {DType::f16, DType::bf16}) {
    const std::string want = golden("convert_" + std::string(dtype_info(type).name) + ".bin");
    ASSERT_EQ(want.size(), 2 * input.size());
    std::string got(want.size(), '\0');
    quantize_row(type, input.data(), reinterpret_cast<std::byte*>(got.data()), input.size());
    for (size_t i = 0; i < input.size(); ++i)
      ASSERT_EQ(load_le<uint16_t>(&got[2 * i]), load_le<uint16_t>(&want[2 * i])) << input[i];
  }
}

// The definition of IEEE 754 binary16, by arithmetic instead of bit tricks.
float f16_by_definition(uint16_t h) {
  const int exponent = (h >> 10) & 31, mantissa = h & 1023;
  const float sign = (h & 0x8000) != 0 ? -1.0f : 1.0f;
  if (exponent == 31) return sign * std::numeric_limits<float>::infinity();
  return sign * (exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -24)
                               : std::ldexp(static_cast<float>(1024 + mantissa), exponent - 25));
}

TEST(Half, EveryPatternHasItsValueAndComesBack) {
  for (uint32_t h = 0; h < 65536; ++h) {
    const auto half = static_cast<uint16_t>(h);
    const float value = f16_to_f32(half);
    if ((h & 0x7fff) > 0x7c00) {
      EXPECT_TRUE(std::isnan(value));
      EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(value))));
      continue;
    }
    ASSERT_EQ(value, f16_by_definition(half)) << h;
    ASSERT_EQ(std::signbit(value), h >= 0x8000);
    ASSERT_EQ(f32_to_f16(value), half);
  }
}

TEST(Half, NaNStaysNaN) {
  for (const uint32_t bits : {0x7f800001u, 0x7fffffffu, 0xff800001u, 0x7fc00000u}) {
    const float nan = std::bit_cast<float>(bits);
    EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(nan))));
    EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(nan))));
  }
}

}  // namespace
}  // namespace mneme::blocks_test
