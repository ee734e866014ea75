#include "simd/packed_matrix.h"

#include <array>
#include <cmath>
#include <cstring>

#include "core/checked.h"
#include "core/half.h"

namespace mneme {
namespace {

using Scales = PackedLayout::Scales;

constexpr std::array<PackedLayout, 14> kLayouts = {{
    {"f32 x16 rows", 32, 32, Scales::none, false, 0},
    {"f16 x16 rows", 16, 32, Scales::none, false, 0},
    {"bf16 x16 rows", 16, 32, Scales::none, false, 0},
    {"4-bit x16 rows (Q4_0)", 4, 32, Scales::f16, false, 8},
    {"4-bit+min x16 rows (Q4_1)", 4, 32, Scales::f16, true, 0},
    {"8-bit x16 rows (Q5_0)", 8, 32, Scales::f16, false, 16},
    {"8-bit+min x16 rows (Q5_1)", 8, 32, Scales::f16, true, 0},
    {"8-bit x16 rows (Q8_0)", 8, 32, Scales::f16, false, 128},
    {"4-bit+min x16 rows (Q2_K)", 4, 16, Scales::k, true, 0},
    {"4-bit x16 rows (Q3_K)", 4, 16, Scales::k, false, 4},
    {"4-bit+min x16 rows (Q4_K)", 4, 32, Scales::k, true, 0},
    {"8-bit+min x16 rows (Q5_K)", 8, 32, Scales::k, true, 0},
    {"8-bit x16 rows (Q6_K)", 8, 16, Scales::k, false, 32},
    {"8-bit (W8, groups of 128)", 8, 32, Scales::group, false, 128},
}};

constexpr int64_t kSuper = 256;  // columns of a K super-block

int64_t align64(int64_t bytes) {
  return (bytes + 63) & ~int64_t{63};
}

int64_t super_scale_bytes(const PackedLayout& layout) {
  const int64_t subs = kSuper / layout.sub_block;
  return (32 + subs * kTileRows) * (layout.has_min ? 2 : 1);
}

// The integers of 32 columns of one row, and their scales: one entry if sub_block is 32, two if 16.
struct Block {
  uint8_t code[32];
  uint16_t d = 0, dmin = 0;  // f16 bits
  int8_t scale[2] = {0, 0};  // K layouts
  uint8_t min[2] = {0, 0};
};

uint8_t byte_at(const std::byte* p, int64_t i) {
  return std::to_integer<uint8_t>(p[i]);
}

void low_high_nibbles(const std::byte* q, uint8_t* code) {
  for (int i = 0; i < 16; ++i) {
    code[i] = byte_at(q, i) & 15;
    code[16 + i] = byte_at(q, i) >> 4;
  }
}

void read_q5(const std::byte* block, int header, Block& out) {
  const auto high = load_le<uint32_t>(block + header);
  low_high_nibbles(block + header + 4, out.code);
  for (int i = 0; i < 32; ++i) out.code[i] |= static_cast<uint8_t>(((high >> i) & 1) << 4);
}

// 6-bit scale and min of sub-block `s` (0..7) of Q4_K and Q5_K.
void read_k4_scale(const std::byte* s12, int s, Block& out) {
  const auto at = [&](int i) { return byte_at(s12, i); };
  out.scale[0] = static_cast<int8_t>(s < 4 ? at(s) & 63 : (at(s + 4) & 15) | ((at(s - 4) >> 6) << 4));
  out.min[0] = static_cast<uint8_t>(s < 4 ? at(s + 4) & 63 : (at(s + 4) >> 4) | ((at(s) >> 6) << 4));
}

void read_q2_k(const std::byte* block, int64_t b, Block& out) {
  const int64_t n = b / 4, shift = 2 * (b % 4);
  for (int l = 0; l < 32; ++l)
    out.code[l] = static_cast<uint8_t>((byte_at(block, 16 + 32 * n + l) >> shift) & 3);
  for (int h = 0; h < 2; ++h) {
    const uint8_t packed = byte_at(block, 2 * b + h);
    out.scale[h] = static_cast<int8_t>(packed & 15);
    out.min[h] = packed >> 4;
  }
  out.d = load_le<uint16_t>(block + 80);
  out.dmin = load_le<uint16_t>(block + 82);
}

void read_q3_k(const std::byte* block, int64_t b, Block& out) {
  const int64_t n = b / 4, shift = 2 * (b % 4);
  for (int l = 0; l < 32; ++l) {
    const int low = (byte_at(block, 32 + 32 * n + l) >> shift) & 3;
    const int high = (byte_at(block, l) >> b) & 1;
    out.code[l] = static_cast<uint8_t>(low | (high << 2));
  }
  for (int h = 0; h < 2; ++h) {
    const int64_t i = 2 * b + h;
    const int low = i < 8 ? byte_at(block, 96 + i) & 15 : byte_at(block, 96 + i - 8) >> 4;
    const int high = (byte_at(block, 96 + 8 + i % 4) >> (2 * (i / 4))) & 3;
    out.scale[h] = static_cast<int8_t>((low | (high << 4)) - 32);
  }
  out.d = load_le<uint16_t>(block + 108);
}

void read_q6_k(const std::byte* block, int64_t b, Block& out) {
  const int64_t n = b / 4, quarter = b % 4;  // values 128n + 32 quarter + l
  for (int l = 0; l < 32; ++l) {
    const uint8_t low = byte_at(block, 64 * n + l + 32 * (quarter & 1));
    const uint8_t high = byte_at(block, 128 + 32 * n + l);
    out.code[l] =
        static_cast<uint8_t>((quarter < 2 ? low & 15 : low >> 4) | (((high >> (2 * quarter)) & 3) << 4));
  }
  for (int h = 0; h < 2; ++h) out.scale[h] = static_cast<int8_t>(byte_at(block, 192 + 2 * b + h));
  out.d = load_le<uint16_t>(block + 208);
}

// Reads columns [32 b, 32 b + 32) of a row of a quantized file type.
void read_block(DType type, const std::byte* row, int64_t b, Block& out) {
  const DTypeInfo& info = dtype_info(type);
  const std::byte* block = row + (b * kBlock / info.block_size) * info.block_bytes;
  const int64_t in_super = b % (info.block_size / kBlock);
  switch (type) {
    case DType::q4_0:
      out.d = load_le<uint16_t>(block);
      return low_high_nibbles(block + 2, out.code);
    case DType::q4_1:
      out.d = load_le<uint16_t>(block);
      out.dmin = load_le<uint16_t>(block + 2);
      return low_high_nibbles(block + 4, out.code);
    case DType::q5_0:
      out.d = load_le<uint16_t>(block);
      return read_q5(block, 2, out);
    case DType::q5_1:
      out.d = load_le<uint16_t>(block);
      out.dmin = load_le<uint16_t>(block + 2);
      return read_q5(block, 4, out);
    case DType::q8_0:
      out.d = load_le<uint16_t>(block);
      for (int i = 0; i < 32; ++i) out.code[i] = static_cast<uint8_t>(byte_at(block, 2 + i) ^ 0x80);
      return;
    case DType::q2_k:
      return read_q2_k(block, in_super, out);
    case DType::q3_k:
      return read_q3_k(block, in_super, out);
    case DType::q4_k:
    case DType::q5_k: {
      out.d = load_le<uint16_t>(block);
      out.dmin = load_le<uint16_t>(block + 2);
      read_k4_scale(block + 4, static_cast<int>(in_super), out);
      const std::byte* nibbles = block + (type == DType::q4_k ? 16 : 48) + 32 * (in_super / 2);
      for (int l = 0; l < 32; ++l) {
        const uint8_t q = byte_at(nibbles, l);
        out.code[l] = (in_super & 1) != 0 ? q >> 4 : q & 15;
        if (type == DType::q5_k)
          out.code[l] |= static_cast<uint8_t>(((byte_at(block, 16 + l) >> in_super) & 1) << 4);
      }
      return;
    }
    case DType::q6_k:
      return read_q6_k(block, in_super, out);
    default:
      fail(ErrorCode::internal, "read_block: {} is not quantized", info.name);
  }
}

bool finite_f16(uint16_t bits) {
  return (bits & 0x7c00u) != 0x7c00u;
}

void write_codes(int code_bits, const uint8_t* code, int64_t lane, std::byte* codes) {
  if (code_bits == 4) {
    for (int j = 0; j < 4; ++j)
      for (int i = 0; i < 4; ++i)
        codes[64 * j + 4 * lane + i] = static_cast<std::byte>(code[4 * j + i] | (code[16 + 4 * j + i] << 4));
  } else {
    for (int j = 0; j < 8; ++j) std::memcpy(codes + 64 * j + 4 * lane, code + 4 * j, 4);
  }
}

void store_f16(std::byte* to, uint16_t bits) {
  std::memcpy(to, &bits, 2);
}

// Where the scales of block b of a tile lie: f16 layouts
int64_t f16_scale_at(const PackedLayout& layout, int64_t b) {
  return b * (layout.has_min ? 64 : 32);
}

bool pack_quantized_row(DType type, const PackedLayout& layout, const std::byte* row, int64_t cols,
                        int64_t lane, std::byte* scales, std::byte* codes) {
  bool finite = true;
  const int64_t blocks = cols / kBlock, block_bytes = layout.code_bits * 64;
  Block block;
  for (int64_t b = 0; b < blocks; ++b) {
    read_block(type, row, b, block);
    finite &= finite_f16(block.d) && finite_f16(block.dmin);
    write_codes(layout.code_bits, block.code, lane, codes + b * block_bytes);
    if (layout.scales == Scales::f16) {
      std::byte* at = scales + f16_scale_at(layout, b);
      store_f16(at + 2 * lane, block.d);
      if (layout.has_min) store_f16(at + 32 + 2 * lane, block.dmin);
      continue;
    }
    std::byte* super = scales + (b * kBlock / kSuper) * super_scale_bytes(layout);
    store_f16(super + 2 * lane, block.d);
    if (layout.has_min) store_f16(super + 32 + 2 * lane, block.dmin);
    const int64_t subs = kSuper / layout.sub_block, per_block = kBlock / layout.sub_block;
    std::byte* sub_scales = super + (layout.has_min ? 64 : 32);
    for (int64_t h = 0; h < per_block; ++h) {
      const int64_t sub = (b % (kSuper / kBlock)) * per_block + h;
      sub_scales[sub * kTileRows + lane] = static_cast<std::byte>(block.scale[h]);
      if (layout.has_min) sub_scales[(subs + sub) * kTileRows + lane] = static_cast<std::byte>(block.min[h]);
    }
  }
  return finite;
}

// The formats that people run most, without unpacking to bytes: dwords keep their place.
bool pack_nibble_row_fast(const std::byte* row, int64_t blocks, int64_t header, int64_t lane,
                          std::byte* scales, std::byte* codes) {
  bool finite = true;
  const int64_t stride = header + 16, scale_stride = header * 16;
  for (int64_t b = 0; b < blocks; ++b, row += stride, codes += 256, scales += scale_stride) {
    const auto d = load_le<uint16_t>(row);
    finite &= finite_f16(d);
    store_f16(scales + 2 * lane, d);
    if (header == 4) {
      const auto m = load_le<uint16_t>(row + 2);
      finite &= finite_f16(m);
      store_f16(scales + 32 + 2 * lane, m);
    }
    for (int j = 0; j < 4; ++j) std::memcpy(codes + 64 * j + 4 * lane, row + header + 4 * j, 4);
  }
  return finite;
}

bool pack_q8_row_fast(const std::byte* row, int64_t blocks, int64_t lane, std::byte* scales,
                      std::byte* codes) {
  bool finite = true;
  for (int64_t b = 0; b < blocks; ++b, row += 34, codes += 512, scales += 32) {
    const auto d = load_le<uint16_t>(row);
    finite &= finite_f16(d);
    store_f16(scales + 2 * lane, d);
    for (int j = 0; j < 8; ++j) {
      const uint32_t code = load_le<uint32_t>(row + 2 + 4 * j) ^ 0x80808080u;
      std::memcpy(codes + 64 * j + 4 * lane, &code, 4);
    }
  }
  return finite;
}

template <class T>
bool pack_float_row(const std::byte* row, int64_t cols, int64_t lane, T exponent_mask, std::byte* codes) {
  bool finite = true;
  for (int64_t c = 0; c < cols; ++c) {
    const T value = load_le<T>(row + c * static_cast<int64_t>(sizeof(T)));
    finite &= (value & exponent_mask) != exponent_mask;
    std::memcpy(codes + (c * kTileRows + lane) * static_cast<int64_t>(sizeof(T)), &value, sizeof(T));
  }
  return finite;
}

bool pack_row(DType type, const PackedLayout& layout, const std::byte* row, int64_t cols, int64_t lane,
              std::byte* scales, std::byte* codes) {
  switch (type) {
    case DType::f32:
      return pack_float_row<uint32_t>(row, cols, lane, 0x7f800000u, codes);
    case DType::f16:
      return pack_float_row<uint16_t>(row, cols, lane, 0x7c00u, codes);
    case DType::bf16:
      return pack_float_row<uint16_t>(row, cols, lane, 0x7f80u, codes);
    case DType::q4_0:
      return pack_nibble_row_fast(row, cols / kBlock, 2, lane, scales, codes);
    case DType::q4_1:
      return pack_nibble_row_fast(row, cols / kBlock, 4, lane, scales, codes);
    case DType::q8_0:
      return pack_q8_row_fast(row, cols / kBlock, lane, scales, codes);
    default:
      return pack_quantized_row(type, layout, row, cols, lane, scales, codes);
  }
}

}  // namespace

const PackedLayout& packed_layout(PackedType type) {
  return kLayouts[static_cast<size_t>(type)];
}

PackedType packed_type(DType type) {
  switch (type) {
    case DType::f32:
      return PackedType::f32;
    case DType::f16:
      return PackedType::f16;
    case DType::bf16:
      return PackedType::bf16;
    case DType::q4_0:
      return PackedType::q4_0;
    case DType::q4_1:
      return PackedType::q4_1;
    case DType::q5_0:
      return PackedType::q5_0;
    case DType::q5_1:
      return PackedType::q5_1;
    case DType::q8_0:
      return PackedType::q8_0;
    case DType::q2_k:
      return PackedType::q2_k;
    case DType::q3_k:
      return PackedType::q3_k;
    case DType::q4_k:
      return PackedType::q4_k;
    case DType::q5_k:
      return PackedType::q5_k;
    case DType::q6_k:
      return PackedType::q6_k;
    default:
      break;
  }
  fail(ErrorCode::unsupported, "a weight matrix of type {} cannot be used in a product",
       dtype_info(type).name);
}

int64_t packed_scale_bytes(PackedType type, int64_t cols) {
  const PackedLayout& layout = packed_layout(type);
  if (layout.scales == Scales::none) return 0;
  if (layout.scales == Scales::f16) return align64(f16_scale_at(layout, cols / kBlock));
  if (layout.scales == Scales::group) return cols / kScaleGroup * kTileRows * 4;
  return align64(cols / kSuper * super_scale_bytes(layout));
}

int64_t packed_tile_bytes(PackedType type, int64_t cols) {
  return packed_scale_bytes(type, cols) + align64(cols * kTileRows * packed_layout(type).code_bits / 8);
}

uint64_t packed_bytes(PackedType type, int64_t rows, int64_t cols) {
  const PackedLayout& layout = packed_layout(type);
  const int64_t unit = layout.scales == Scales::none    ? 1
                       : layout.scales == Scales::k     ? kSuper
                       : layout.scales == Scales::group ? kScaleGroup
                                                        : kBlock;
  require(rows > 0 && cols > 0 && cols % unit == 0, ErrorCode::corrupt,
          "a [{}, {}] matrix cannot be stored in {}: columns must be a multiple of {}", rows, cols,
          layout.name, unit);
  require(rows < (int64_t{1} << 40) && cols < (int64_t{1} << 40), ErrorCode::corrupt,
          "a [{}, {}] matrix is too large", rows, cols);
  const auto tiles = static_cast<uint64_t>((rows + kTileRows - 1) / kTileRows);
  return checked_mul(tiles, static_cast<uint64_t>(packed_tile_bytes(type, cols)), "packed matrix");
}

bool pack_tiles(DType type, const std::byte* src, int64_t rows, int64_t cols, int64_t tile_begin,
                int64_t tile_end, std::byte* out) {
  const PackedType packed = packed_type(type);
  const PackedLayout& layout = packed_layout(packed);
  const DTypeInfo& info = dtype_info(type);
  const int64_t row_bytes = cols / info.block_size * info.block_bytes;
  const int64_t tile_bytes = packed_tile_bytes(packed, cols), scale_bytes = packed_scale_bytes(packed, cols);
  bool finite = true;
  for (int64_t tile = tile_begin; tile < tile_end; ++tile) {
    std::byte* scales = out + tile * tile_bytes;
    for (int64_t lane = 0; lane < kTileRows && tile * kTileRows + lane < rows; ++lane)
      finite &= pack_row(type, layout, src + (tile * kTileRows + lane) * row_bytes, cols, lane, scales,
                         scales + scale_bytes);
  }
  return finite;
}

void unpack_row(const PackedMatrix& matrix, int64_t row, int64_t col, int64_t n, float* out) {
  const PackedLayout& layout = packed_layout(matrix.type);
  const int64_t lane = row % kTileRows;
  const std::byte* scales = matrix.data + (row / kTileRows) * packed_tile_bytes(matrix.type, matrix.cols);
  const std::byte* codes = scales + packed_scale_bytes(matrix.type, matrix.cols);
  if (layout.scales == Scales::none) {
    for (int64_t i = 0; i < n; ++i) {
      const int64_t at = (col + i) * kTileRows + lane;
      if (matrix.type == PackedType::f32) {
        out[i] = load_le<float>(codes + 4 * at);
      } else {
        const auto bits = load_le<uint16_t>(codes + 2 * at);
        out[i] = matrix.type == PackedType::f16 ? f16_to_f32(bits) : bf16_to_f32(bits);
      }
    }
    return;
  }
  for (int64_t i = 0; i < n; ++i) {
    const int64_t c = col + i, b = c / kBlock, k = c % kBlock;
    const int64_t j = (layout.code_bits == 4 ? k % 16 : k) / 4;
    const uint8_t raw = byte_at(codes, b * layout.code_bits * 64 + 64 * j + 4 * lane + k % 4);
    const int code = layout.code_bits == 8 ? raw : k < 16 ? raw & 15 : raw >> 4;
    float scale = 0, min = 0;
    if (layout.scales == Scales::f16) {
      const std::byte* at = scales + f16_scale_at(layout, b);
      scale = f16_to_f32(load_le<uint16_t>(at + 2 * lane));
      if (layout.has_min) min = f16_to_f32(load_le<uint16_t>(at + 32 + 2 * lane));
    } else {
      const std::byte* super = scales + c / kSuper * super_scale_bytes(layout);
      const std::byte* sub_scales = super + (layout.has_min ? 64 : 32);
      const int64_t subs = kSuper / layout.sub_block, sub = c % kSuper / layout.sub_block;
      const auto sub_scale = static_cast<int8_t>(byte_at(sub_scales, sub * kTileRows + lane));
      scale = f16_to_f32(load_le<uint16_t>(super + 2 * lane)) * static_cast<float>(sub_scale);
      if (layout.has_min)
        min = -f16_to_f32(load_le<uint16_t>(super + 32 + 2 * lane)) *
              static_cast<float>(byte_at(sub_scales, (subs + sub) * kTileRows + lane));
    }
    out[i] = scale * static_cast<float>(code - layout.offset) + min;
  }
}

}  // namespace mneme
