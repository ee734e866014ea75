#include "simd/packed_product.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/huge_buffer.h"
#include "simd/random_blocks.h"

namespace mneme::packed_product_test {
namespace {

struct Packed {
  HugeBuffer buffer;
  PackedMatrix matrix;
};

Packed pack(DType type, int64_t rows, int64_t cols, const std::vector<std::byte>& data) {
  Packed p;
  p.matrix = {packed_type(type), rows, cols, nullptr};
  p.buffer = HugeBuffer(packed_bytes(p.matrix.type, rows, cols));
  p.matrix.data = p.buffer.data();
  EXPECT_TRUE(pack_tiles(type, data.data(), rows, cols, 0, p.matrix.tiles(), p.buffer.data()));
  return p;
}

std::vector<float> random_floats(size_t n, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(n);
  for (auto& v : x) v = normal(rng);
  return x;
}

class ProductOnEveryIsa : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    before_ = active_isa();
    set_active_isa(GetParam());
  }
  void TearDown() override { set_active_isa(before_); }
  Isa before_ = Isa::portable;
};

void quantize_all(const std::vector<float>& x, int64_t n, int64_t cols, QuantizedRows& out) {
  out.reserve(n, cols);
  for (int64_t r = 0; r < n; ++r) quantize_blocks(x.data() + r * cols, r, cols, 0, cols / 32, out);
}

// |y| of a row is about sqrt(cols) of its terms; the bound is relative to the sum of their magnitudes.
double term_bound(const PackedMatrix& w, const float* x, int64_t row) {
  std::vector<float> weights(static_cast<size_t>(w.cols));
  unpack_row(w, row, 0, w.cols, weights.data());
  double sum = 0;
  for (int64_t c = 0; c < w.cols; ++c) sum += std::abs(double{weights[static_cast<size_t>(c)]} * x[c]);
  return sum * 2e-6 + 1e-12;
}

TEST_P(ProductOnEveryIsa, RowsThatWereRoundedElsewhereAreTheSame) {
  const int64_t n = 3, cols = 96;
  QuantizedRows here, placed;
  quantize_all(random_floats(static_cast<size_t>(n * cols), 5), n, cols, here);
  placed.reserve(n, cols);
  for (int64_t r = 0; r < n; ++r)
    place_codes(here.q.data() + r * cols, here.d.data() + r * (cols / 32), r, cols, placed);
  EXPECT_EQ(placed.q, here.q);
  EXPECT_EQ(placed.d, here.d);
  EXPECT_EQ(placed.d_sum, here.d_sum);
  EXPECT_EQ(placed.half_sums, here.half_sums);
  EXPECT_EQ(placed.minus8, here.minus8);
  EXPECT_EQ(placed.minus128, here.minus128);
}

TEST_P(ProductOnEveryIsa, IntegerProductEqualsReference) {
  for (const DType type : kMatrixTypes) {
    if (!dtype_info(type).quantized) continue;
    for (const int64_t rows : {1, 16, 37}) {
      const int64_t cols = dtype_info(type).block_size == 256 ? 512 : 96;
      const Packed p = pack(type, rows, cols, random_rows(type, rows, cols, 7));
      for (const int64_t n : {1, 2, 3, 5, 13, 27}) {
        const auto x = random_floats(static_cast<size_t>(n * cols), static_cast<uint32_t>(n));
        QuantizedRows q;
        quantize_all(x, n, cols, q);
        std::vector<float> y(static_cast<size_t>(n * rows + 1), 7.5f);
        packed_product(p.matrix, q, 0, p.matrix.tiles(), 0, n, y.data(), rows);
        for (int64_t i = 0; i < n; ++i)
          for (int64_t r = 0; r < rows; ++r)
            ASSERT_NEAR(y[static_cast<size_t>(i * rows + r)], packed_product_reference(p.matrix, q, r, i),
                        2 * term_bound(p.matrix, x.data() + i * cols, r))
                << dtype_info(type).name << " rows " << rows << " n " << n << " at " << i << "," << r;
        ASSERT_EQ(y.back(), 7.5f) << "wrote past the last row";
      }
    }
  }
}

TEST_P(ProductOnEveryIsa, FloatProductEqualsReference) {
  for (const DType type : kMatrixTypes) {
    for (const int64_t rows : {1, 37}) {
      const int64_t cols = dtype_info(type).block_size == 256 ? 256 : dtype_info(type).quantized ? 96 : 67;
      const Packed p = pack(type, rows, cols, random_rows(type, rows, cols, 3));
      for (const int64_t n : {1, 3, 14}) {
        const auto x = random_floats(static_cast<size_t>(n * cols), static_cast<uint32_t>(n));
        std::vector<float> y(static_cast<size_t>(n * rows));
        packed_product(p.matrix, x.data(), cols, 0, p.matrix.tiles(), 0, n, y.data(), rows);
        for (int64_t i = 0; i < n; ++i)
          for (int64_t r = 0; r < rows; ++r)
            ASSERT_NEAR(y[static_cast<size_t>(i * rows + r)],
                        packed_product_reference(p.matrix, x.data() + i * cols, r),
                        term_bound(p.matrix, x.data() + i * cols, r))
                << dtype_info(type).name << " rows " << rows << " n " << n;
      }
    }
  }
}

TEST_P(ProductOnEveryIsa, OneRowAtATimeGivesTheBitsOfAChunk) {
  for (const DType type : kMatrixTypes) {
    const int64_t rows = 40, cols = 512, n = 27;
    const Packed p = pack(type, rows, cols, random_rows(type, rows, cols, 11));
    const auto x = random_floats(n * cols, 5);
    QuantizedRows q;
    quantize_all(x, n, cols, q);
    std::vector<float> all(n * rows), one(n * rows);
    const auto multiply = [&](int64_t begin, int64_t end, float* y) {
      if (dtype_info(type).quantized)
        packed_product(p.matrix, q, 0, p.matrix.tiles(), begin, end, y, rows);
      else
        packed_product(p.matrix, x.data(), cols, 0, p.matrix.tiles(), begin, end, y, rows);
    };
    multiply(0, n, all.data());
    for (int64_t i = 0; i < n; ++i) multiply(i, i + 1, one.data());
    ASSERT_EQ(all, one) << dtype_info(type).name;
  }
}

TEST_P(ProductOnEveryIsa, ExtremeCodesDoNotSaturate) {
  // Q8_0 codes of ±127 and -128 against activations of ±127: the largest sums there are.
  const int64_t rows = 16, cols = 64;
  auto data = random_rows(DType::q8_0, rows, cols, 1);
  for (int64_t b = 0; b < rows * cols / 32; ++b)
    for (int i = 0; i < 32; ++i)
      data[static_cast<size_t>(34 * b + 2 + i)] = static_cast<std::byte>(b % 2 ? 0x80 : 0x7f);
  const Packed p = pack(DType::q8_0, rows, cols, data);
  for (const float sign : {1.0f, -1.0f}) {
    const std::vector<float> x(cols, sign);
    QuantizedRows q;
    quantize_all(x, 1, cols, q);
    std::vector<float> y(rows);
    packed_product(p.matrix, q, 0, 1, 0, 1, y.data(), rows);
    for (int64_t r = 0; r < rows; ++r)
      ASSERT_NEAR(y[static_cast<size_t>(r)], packed_product_reference(p.matrix, q, r, 0),
                  term_bound(p.matrix, x.data(), r));
  }
}

TEST_P(ProductOnEveryIsa, QuantizedRowsRoundToNearestAndReportNonFinite) {
  std::vector<float> x(32 * 4, 0.0f);
  for (int i = 0; i < 32; ++i) x[static_cast<size_t>(i)] = static_cast<float>(i) - 15.5f;
  x[32] = std::nanf("");
  x[64] = INFINITY;
  QuantizedRows q;
  quantize_all(x, 1, 128, q);
  for (int i = 0; i < 32; ++i)
    EXPECT_EQ(q.q[static_cast<size_t>(i)],
              static_cast<int8_t>(std::nearbyint(x[static_cast<size_t>(i)] * (127.0f / 15.5f))))
        << i;
  EXPECT_FLOAT_EQ(q.d[0], 15.5f / 127.0f);
  EXPECT_TRUE(std::isnan(q.d[1]));
  EXPECT_TRUE(std::isnan(q.d[2]));
  EXPECT_EQ(q.d[3], 0.0f);
}

TEST(Int4, StepsAreASeventhOfTheLargest) {
  const std::vector<float> x{-7, 3.4f, 0.5f, 1.5f, -2.5f, 0.2f, 0};
  std::vector<float> out(x.size());
  round_to_int4(x.data(), std::ssize(x), out.data());
  EXPECT_EQ(out, (std::vector<float>{-7, 3, 0, 2, -2, 0, 0}));  // ties to even
  std::vector<float> zeros(3, 0.0f), broken{1, INFINITY, 2};
  round_to_int4(zeros.data(), 3, zeros.data());
  EXPECT_EQ(zeros, std::vector<float>(3, 0.0f));
  round_to_int4(broken.data(), 3, broken.data());
  for (const float value : broken) EXPECT_TRUE(std::isnan(value));
}

INSTANTIATE_TEST_SUITE_P(Isa, ProductOnEveryIsa,
                         testing::ValuesIn(supported_isas().begin(), supported_isas().end()),
                         [](const auto& isa) {
                           std::string name(to_string(isa.param));
                           for (auto& c : name) c = c == '-' ? '_' : c;
                           return name;
                         });

}  // namespace
}  // namespace mneme::packed_product_test
