// Stripes: the layout of a weight matrix whose inputs may be silent.
//
// W is [rows, cols]; y = W x. The tiles of packed_matrix.h put 4 neighbouring columns of 16 rows into a cache
// line, so that an input of 0 saves nothing. Here a line belongs to one column: rows are grouped in stripes,
// and a stripe is, for every 32 columns,
//
//   scales   one f16 a row, then one f16 min a row if the format has them
//   codes    for each of 32 columns one or two lines of 64 bytes
//
// (a line: 64 rows of 8-bit codes, or 128 rows of 4-bit codes, rows 0..63 in low nibbles, 64..127 in high)
//
// and nothing else: blocks follow each other, and so do stripes, one stream without gaps. The last stripe is
// padded with rows of zeros. A column of the list of events costs its lines; a block without events costs
// nothing, not even its scales. Processors fetch lines in pairs where they can: with two lines a column that
// fetches nothing in vain (8-bit codes: 85 % of the speed of plain reading instead of 75 %), but small
// matrices would be padded too much, and divide badly among threads.
//
// The products want 4 columns of a row side by side (vpdpbusd). Interleaving 4 lines in registers does that;
// byte 16 l + 4 j + i of a line holds row 16 j + 4 l + i, so that interleaved vector j holds rows 16 j ...
// 16 j + 15 in order. Interleaving works within 16 bytes, and so gives the same with vectors of any width.
//
// Codes, scales and mins are those of the file, as in tiles; formats: Q8_0, Q4_0 and Q4_1, and W8.
//
// W8 has int8 codes and one f32 scale a row and 128 columns. A stripe begins with its scales, for every group
// of 128 columns one a row; blocks of codes alone follow. Where a code does not fit in int8, the rest of it
// is in PackedMatrix::residuals (code_residuals.h).
#pragma once
#include <cstdint>

#include "simd/packed_matrix.h"

namespace mneme {

/// Whether a matrix of this type can be held in stripes.
bool can_stripe(PackedType type);
/// Lines that a column of a matrix should have: 1, or 2 where that pads little and lines are fetched in
/// pairs.
uint8_t best_stripe_lines(PackedType type, int64_t rows);

// Of a matrix in stripes (stripe_lines > 0):
/// Rows of a stripe: 64 or 128.
int64_t stripe_rows(const PackedMatrix& matrix);
/// Tiles of 16 rows in a stripe.
int64_t stripe_tiles(const PackedMatrix& matrix);
/// Bytes of the scales (and mins) of a block of 32 columns of a stripe, of the whole block, of a stripe, and
/// of what stands before the first block of a stripe.
int64_t stripe_scale_bytes(const PackedMatrix& matrix);
int64_t stripe_block_bytes(const PackedMatrix& matrix);
int64_t stripe_bytes(const PackedMatrix& matrix);
int64_t stripe_head_bytes(const PackedMatrix& matrix);

/// Bytes of a matrix in whichever of the two layouts it is held, without residuals. Throws Error(corrupt)
/// when cols is not a multiple of the type's block.
uint64_t matrix_bytes(const PackedMatrix& matrix);

/// Packs stripes [stripe_begin, stripe_end) of a row-major matrix of file type `type` (its rows, cols and
/// lines are those of `matrix`) into the zeroed matrix memory at `out`. Different stripes may be packed from
/// different threads. Returns false if a scale is NaN or infinite.
bool pack_stripes(const PackedMatrix& matrix, DType type, const std::byte* src, int64_t stripe_begin,
                  int64_t stripe_end, std::byte* out);

/// Packs stripes [stripe_begin, stripe_end) of a matrix W8 into the zeroed matrix memory at `out`: code =
/// round(weight / scale), ties to even. weights: [rows, cols]; scales: [rows, cols / 128], finite and above
/// 0. What codes have beyond int8 goes into `residuals`, made for this many stripes. Different stripes may be
/// packed from different threads. Returns false if a weight is not finite or a code beyond int16.
bool pack_w8_stripes(const PackedMatrix& matrix, const float* weights, const float* scales,
                     int64_t stripe_begin, int64_t stripe_end, std::byte* out, CodeResiduals& residuals);

/// Reference: the weights of a row of a matrix in stripes, all columns, as floats.
void unpack_striped_row(const PackedMatrix& matrix, int64_t row, float* out);

}  // namespace mneme
