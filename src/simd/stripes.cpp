#include "simd/stripes.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/checked.h"
#include "core/fail.h"
#include "core/half.h"
#include "simd/code_residuals.h"
#include "simd/isa.h"

namespace mneme {
namespace {

constexpr int64_t kLine = 64;

// Where row r < 64 of a group of 64 lies in a line.
int64_t place_of(int64_t r) {
  const int64_t j = r / 16, l = r / 4 % 4, i = r % 4;
  return 16 * l + 4 * j + i;
}

bool is_finite_f16(uint16_t bits) {
  return (bits & 0x7c00u) != 0x7c00u;
}

// Codes of a block of a row in the file, as packed_matrix.h defines them.
template <DType type>
uint8_t code_at(const std::byte* block, int c) {
  if constexpr (type == DType::q8_0) return std::to_integer<uint8_t>(block[2 + c]) ^ 0x80;
  constexpr int header = type == DType::q4_0 ? 2 : 4;
  const auto both = std::to_integer<uint8_t>(block[header + c % 16]);
  return c < 16 ? both & 15 : both >> 4;
}

template <DType type>
bool pack(const PackedMatrix& w, const std::byte* src, int64_t stripe_begin, int64_t stripe_end,
          std::byte* out) {
  const int64_t height = stripe_rows(w), scale_bytes = stripe_scale_bytes(w);
  const int64_t column_bytes = kLine * w.stripe_lines, group = height / w.stripe_lines;
  const int64_t blocks = w.cols / kBlock, from_bytes = dtype_info(type).block_bytes;
  bool finite = true;
  std::byte* block = out + stripe_begin * stripe_bytes(w);
  for (int64_t stripe = stripe_begin; stripe < stripe_end; ++stripe) {
    const int64_t count = std::min(height, w.rows - stripe * height);
    for (int64_t b = 0; b < blocks; ++b, block += stripe_block_bytes(w)) {
      for (int64_t r = 0; r < count; ++r) {
        const std::byte* from = src + ((stripe * height + r) * blocks + b) * from_bytes;
        finite &= is_finite_f16(load_le<uint16_t>(from));
        std::copy_n(from, 2, block + 2 * r);
        if constexpr (type == DType::q4_1) {
          finite &= is_finite_f16(load_le<uint16_t>(from + 2));
          std::copy_n(from + 2, 2, block + 2 * height + 2 * r);
        }
        std::byte* code = block + scale_bytes + r / group * kLine + place_of(r % 64);
        const bool low = r % group < 64;
        for (int c = 0; c < 32; ++c, code += column_bytes) {
          const auto value = static_cast<std::byte>(code_at<type>(from, c));
          *code = low ? value : *code | value << 4;
        }
      }
    }
  }
  return finite;
}

}  // namespace

bool can_stripe(PackedType type) {
  return type == PackedType::q8_0 || type == PackedType::q4_0 || type == PackedType::q4_1 ||
         type == PackedType::w8;
}

uint8_t best_stripe_lines(PackedType type, int64_t rows) {
  if (gaps_are_dear()) return 1;  // two lines are walked one after the other, each with gaps
  const int64_t two = packed_layout(type).code_bits == 4 ? 256 : 128;  // rows of a stripe of two lines
  return rows >= 32 * two || (rows >= 12 * two && rows % two == 0) ? 2 : 1;
}

int64_t stripe_rows(const PackedMatrix& matrix) {
  return (packed_layout(matrix.type).code_bits == 4 ? 128 : 64) * int64_t{matrix.stripe_lines};
}

int64_t stripe_tiles(const PackedMatrix& matrix) {
  return stripe_rows(matrix) / kTileRows;
}

int64_t stripe_scale_bytes(const PackedMatrix& matrix) {
  if (matrix.type == PackedType::w8) return 0;
  return stripe_rows(matrix) * (packed_layout(matrix.type).has_min ? 4 : 2);
}

int64_t stripe_block_bytes(const PackedMatrix& matrix) {
  return stripe_scale_bytes(matrix) + kBlock * kLine * matrix.stripe_lines;
}

int64_t stripe_head_bytes(const PackedMatrix& matrix) {
  return matrix.type == PackedType::w8 ? matrix.cols / kScaleGroup * stripe_rows(matrix) * 4 : 0;
}

int64_t stripe_bytes(const PackedMatrix& matrix) {
  return stripe_head_bytes(matrix) + matrix.cols / kBlock * stripe_block_bytes(matrix);
}

uint64_t matrix_bytes(const PackedMatrix& matrix) {
  const uint64_t in_tiles = packed_bytes(matrix.type, matrix.rows, matrix.cols);  // refuses bad shapes
  if (matrix.stripe_lines == 0) {
    require(matrix.type != PackedType::w8, ErrorCode::internal, "W8 is held in stripes only");
    return in_tiles;
  }
  require(can_stripe(matrix.type), ErrorCode::internal, "{} has no stripes", packed_layout(matrix.type).name);
  const int64_t height = stripe_rows(matrix);
  return checked_mul(static_cast<uint64_t>((matrix.rows + height - 1) / height),
                     static_cast<uint64_t>(stripe_bytes(matrix)), "matrix in stripes");
}

bool pack_stripes(const PackedMatrix& matrix, DType type, const std::byte* src, int64_t stripe_begin,
                  int64_t stripe_end, std::byte* out) {
  switch (type) {
    case DType::q8_0:
      return pack<DType::q8_0>(matrix, src, stripe_begin, stripe_end, out);
    case DType::q4_0:
      return pack<DType::q4_0>(matrix, src, stripe_begin, stripe_end, out);
    case DType::q4_1:
      return pack<DType::q4_1>(matrix, src, stripe_begin, stripe_end, out);
    default:
      fail(ErrorCode::internal, "pack_stripes: {} has no stripes", dtype_info(type).name);
  }
}

bool pack_w8_stripes(const PackedMatrix& matrix, const float* weights, const float* scales,
                     int64_t stripe_begin, int64_t stripe_end, std::byte* out, CodeResiduals& residuals) {
  const int64_t height = stripe_rows(matrix), groups = matrix.cols / kScaleGroup;
  const int64_t column_bytes = kLine * matrix.stripe_lines, line_rows = height / matrix.stripe_lines;
  bool in_range = true;
  for (int64_t stripe = stripe_begin; stripe < stripe_end; ++stripe) {
    std::byte* head = out + stripe * stripe_bytes(matrix);
    std::byte* codes = head + stripe_head_bytes(matrix);
    StripeResiduals& rest = residuals.stripes[static_cast<size_t>(stripe)];
    const int64_t count = std::min(height, matrix.rows - stripe * height);
    for (int64_t g = 0; g < groups; ++g) {
      rest.begin.push_back(static_cast<uint32_t>(rest.entries.size()));
      for (int64_t r = 0; r < count; ++r) {
        const int64_t row = stripe * height + r;
        const float scale = scales[row * groups + g];
        const float* from = weights + row * matrix.cols + g * kScaleGroup;
        std::memcpy(head + 4 * (g * height + r), &scale, sizeof scale);
        std::byte* at = codes + g * kScaleGroup * column_bytes + r / line_rows * kLine + place_of(r % kLine);
        for (int64_t c = 0; c < kScaleGroup; ++c) {
          const float code = std::nearbyint(from[c] / scale);
          if (!(std::abs(code) <= kMostCode)) {  // or NaN
            in_range = false;
            continue;
          }
          const auto whole = static_cast<int>(code), base = std::clamp(whole, -128, 127);
          at[c * column_bytes] = static_cast<std::byte>(base + 128);
          if (whole != base)
            rest.entries.push_back(
                {static_cast<uint8_t>(r), static_cast<uint8_t>(c), static_cast<int16_t>(whole - base)});
        }
      }
    }
    rest.begin.push_back(static_cast<uint32_t>(rest.entries.size()));
    rest.entries.shrink_to_fit();
  }
  return in_range;
}

void unpack_striped_row(const PackedMatrix& matrix, int64_t row, float* out) {
  const PackedLayout& layout = packed_layout(matrix.type);
  const int64_t height = stripe_rows(matrix), r = row % height, group = height / matrix.stripe_lines;
  const std::byte* head = matrix.data + row / height * stripe_bytes(matrix);
  const std::byte* block = head + stripe_head_bytes(matrix);
  for (int64_t b = 0; b < matrix.cols / kBlock; ++b, block += stripe_block_bytes(matrix)) {
    const float scale = matrix.type == PackedType::w8
                            ? load_le<float>(head + 4 * (b * kBlock / kScaleGroup * height + r))
                            : f16_to_f32(load_le<uint16_t>(block + 2 * r));
    const float min = layout.has_min ? f16_to_f32(load_le<uint16_t>(block + 2 * (height + r))) : 0.0f;
    const std::byte* codes = block + stripe_scale_bytes(matrix) + r / group * kLine + place_of(r % 64);
    for (int64_t c = 0; c < kBlock; ++c) {
      const auto raw = std::to_integer<int>(codes[kLine * matrix.stripe_lines * c]);
      const int code = layout.code_bits == 8 ? raw : r % group < 64 ? raw & 15 : raw >> 4;
      out[b * kBlock + c] = scale * static_cast<float>(code - layout.offset) + min;
    }
  }
  if (matrix.residuals == nullptr) return;
  const StripeResiduals& rest = matrix.residuals->stripes[static_cast<size_t>(row / height)];
  for (int64_t g = 0; g < matrix.cols / kScaleGroup; ++g)
    for (const CodeResidual& entry : rest.group(g))
      if (entry.row == r)
        out[g * kScaleGroup + entry.column] +=
            load_le<float>(head + 4 * (g * height + r)) * static_cast<float>(entry.rest);
}

}  // namespace mneme
