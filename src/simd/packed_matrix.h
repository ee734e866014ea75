// PackedMatrix: a weight matrix in the one layout that every product kernel reads.
//
// W is [rows, cols]; y = W x. Rows are grouped in tiles of 16, one vector lane a row, so that a product needs
// no horizontal sum and its result is 16 neighbouring outputs. The last tile is padded with zero rows. Within
// a tile, in two regions (each padded to 64 bytes) that are read as two streams:
//
//   scales   quantized layouts only; see PackedLayout
//   codes    for every 32 columns:
//              4-bit  256 bytes = 4 vectors; dword `lane` of vector j holds row `lane`: low nibbles columns
//              4j..4j+3,
//                     high nibbles columns 16+4j..16+4j+3
//              8-bit  512 bytes = 8 vectors; dword `lane` of vector j holds columns 4j..4j+3 of row `lane`
//            for every column of a float layout: 16 values, one a row
//
// Codes are unsigned. A weight is  scale * (code - offset)  or  scale * code + min. The dot products of 4
// unsigned codes with 4 signed activations are what VNNI's vpdpbusd computes; the offset leaves the loop as
// -offset * sum(activations). Every format of a file keeps its exact integers and scales: packing loses
// nothing (packed_matrix_test).
#pragma once
#include <cstdint>
#include <string_view>

#include "core/dtype.h"
#include "core/file.h"

namespace mneme {

inline constexpr int64_t kTileRows = 16;
inline constexpr int64_t kScaleGroup = 128;  // columns that share a scale of W8
inline constexpr int64_t kBlock = 32;        // columns that share an activation scale

enum class PackedType : uint8_t {
  f32,
  f16,
  bf16,
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  q8_0,
  q2_k,
  q3_k,
  q4_k,
  q5_k,
  q6_k,
  w8  // int8 in groups of 128 columns with an f32 scale, only in stripes: simd/code_residuals.h
};

struct PackedLayout {
  enum class Scales : uint8_t {
    none,
    f16,  // per block: 16 x f16 scale, then 16 x f16 min if has_min
    k,  // per 256 columns: 16 x f16 d, 16 x f16 dmin if has_min, then per sub-block 16 x i8 (u8) scale, then
        // likewise 16 x u8 min if has_min. scale = d * sub_scale, min = -dmin * sub_min
    group  // of stripes: one f32 a row and 128 columns
  };
  std::string_view name;
  int code_bits;  // 4, 8; 16 or 32 for floats
  int sub_block;  // columns that share a weight scale: 16 or 32
  Scales scales;
  bool has_min;
  int offset;  // of the codes
};

const PackedLayout& packed_layout(PackedType type);
/// The packed type that holds a file type exactly. Throws Error(unsupported) for integer tensors and F64.
PackedType packed_type(DType type);

struct CodeResiduals;

struct PackedMatrix {
  PackedType type = PackedType::f32;
  int64_t rows = 0, cols = 0;
  const std::byte* data = nullptr;  // 64-byte aligned, not owned
  uint8_t stripe_lines = 0;         // if not 0, it is held as stripes.h says, for inputs that may be silent
  const CodeResiduals* residuals = nullptr;  // w8: what codes have beyond int8; null: nothing. Not owned

  int64_t tiles() const { return (rows + kTileRows - 1) / kTileRows; }
};

/// Bytes of a tile: of its scale region, and of the whole.
int64_t packed_scale_bytes(PackedType type, int64_t cols);
int64_t packed_tile_bytes(PackedType type, int64_t cols);
/// Bytes of a matrix. Throws Error(corrupt) when cols is not a multiple of the type's block.
uint64_t packed_bytes(PackedType type, int64_t rows, int64_t cols);

/// Packs tiles [tile_begin, tile_end) of a row-major matrix of file type `type` (its packed type must be
/// packed_type(type)) into the matrix memory at `out`. Different tiles may be packed from different threads.
/// Returns false if a scale or float value is NaN or infinite.
bool pack_tiles(DType type, const std::byte* src, int64_t rows, int64_t cols, int64_t tile_begin,
                int64_t tile_end, std::byte* out);

/// Reference: the weights of `row`, columns [col, col + n), as floats. Quantized: col and n multiples of 32.
void unpack_row(const PackedMatrix& matrix, int64_t row, int64_t col, int64_t n, float* out);

}  // namespace mneme
