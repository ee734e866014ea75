// Y = X W^T for packed weights: the matrix products of decode (few rows of X) and prefill (many).
//
// Integer path (quantized weights, activation int8): X is rounded to int8 in blocks of 32 with one scale
// each; per block an exact integer dot product, then y += (weight scale * activation scale) * dot in float,
// blocks in ascending order. The order does not depend on how many rows or tiles are computed together, so
// one row at a time and a chunk at once give equal bits. Float path: y += w * x over ascending columns with
// fused multiply-add.
//
// packed_product_reference() is the specification; packed_product_test holds every instruction set to it.
#pragma once
#include <cstdint>
#include <vector>

#include "simd/isa.h"
#include "simd/packed_matrix.h"

namespace mneme {

/// Rows of activations rounded to int8: x[r, c] ≈ d[r, c/32] * q[r, c], |q| ≤ 127, d = max|x|/127 of the
/// block. Storage only: how many columns a row has (a multiple of 32) is the caller's to say.
struct QuantizedRows {
  std::vector<int8_t> q;           // [rows, cols]
  std::vector<float> d;            // [rows, cols/32]
  std::vector<float> d_sum;        // [rows, cols/32]: d * sum(q)
  std::vector<int32_t> minus8;     // [rows, cols/32]: -8 * sum(q), the offset term of Q4_0
  std::vector<int32_t> minus128;   // [rows, cols/32]: -128 * sum(q), that of Q8_0
  std::vector<int32_t> half_sums;  // [rows, cols/16]: sum(q) of each half block

  /// Room for rows x cols; never shrinks, so that a warmed-up engine does not allocate.
  void reserve(int64_t rows, int64_t cols);
};

/// Rounds `count` blocks of row `row` of [rows, cols], starting at block `first` (x points at the row's
/// start). Ties to even. A block with a NaN or infinity gets a NaN scale, so that the result shows it.
void quantize_blocks(const float* x, int64_t row, int64_t cols, int64_t first, int64_t count,
                     QuantizedRows& out);

/// Makes row `row` of [rows, cols] what quantize_blocks would have made it, from its codes [cols] and scales
/// [cols / 32]: for rows that were rounded elsewhere.
void place_codes(const int8_t* codes, const float* scales, int64_t row, int64_t cols, QuantizedRows& out);

/// out[n] = x rounded to steps of max|x| / 7 (ties to even), one scale for all: int4 activations of a token.
/// A row with a NaN or an infinity becomes NaN. Plain C++: a yardstick, not a fast path.
void round_to_int4(const float* x, int64_t n, float* out);

/// Y[n, row] for rows [16 tile_begin, 16 tile_end) of W and rows [n_begin, n_end) of X; y points at Y[0, 0]
/// with `stride` floats between rows of Y. Writes only rows < matrix.rows. W must be quantized; rows of X
/// have W.cols columns.
void packed_product(const PackedMatrix& w, const QuantizedRows& x, int64_t tile_begin, int64_t tile_end,
                    int64_t n_begin, int64_t n_end, float* y, int64_t stride);

/// The same with float activations x: [n, cols], `x_stride` floats apart; any packed type.
void packed_product(const PackedMatrix& w, const float* x, int64_t x_stride, int64_t tile_begin,
                    int64_t tile_end, int64_t n_begin, int64_t n_end, float* y, int64_t stride);

/// Plain C++ specification of both, in double precision over columns.
double packed_product_reference(const PackedMatrix& w, const QuantizedRows& x, int64_t row, int64_t n);
double packed_product_reference(const PackedMatrix& w, const float* x, int64_t row);

}  // namespace mneme
