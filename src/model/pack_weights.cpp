#include "model/pack_weights.h"

#include <algorithm>
#include <vector>

#include "simd/blocks.h"
#include "simd/stripes.h"

namespace mneme {
namespace {

/// Tiles of a matrix that are packed together: 1, or those of a stripe.
int64_t unit_of(const PackedMatrix& w) {
  return w.stripe_lines > 0 ? stripe_tiles(w) : 1;
}

bool pack_rows(const PackedMatrix& w, DType type, const std::byte* source, int64_t begin, int64_t end,
               std::byte* out) {
  if (w.stripe_lines == 0) return pack_tiles(type, source, w.rows, w.cols, begin, end, out);
  const int64_t unit = unit_of(w);
  return pack_stripes(w, type, source, begin / unit, (end + unit - 1) / unit, out);
}

// Through floats, a few rows at a time.
bool pack_requantized(const PackedMatrix& w, DType from_type, DType to_type, const std::byte* source,
                      int64_t tile_begin, int64_t tile_end, std::byte* out) {
  const DTypeInfo& from = dtype_info(from_type);
  const DTypeInfo& to = dtype_info(to_type);
  const int64_t cols = w.cols, unit = unit_of(w);
  const int64_t to_bytes = cols / to.block_size * to.block_bytes;
  const int64_t unit_bytes = w.stripe_lines > 0 ? stripe_bytes(w) : packed_tile_bytes(w.type, cols);
  std::vector<float> values(static_cast<size_t>(cols));
  std::vector<std::byte> converted(static_cast<size_t>(unit * kTileRows * to_bytes));
  bool finite = true;
  for (int64_t tile = tile_begin; tile < tile_end; tile += unit) {
    const int64_t first = tile * kTileRows, count = std::min(unit * kTileRows, w.rows - first);
    for (int64_t r = 0; r < count; ++r) {
      dequantize_row(from_type, source + (first + r) * cols / from.block_size * from.block_bytes,
                     values.data(), values.size());
      quantize_row(to_type, values.data(), converted.data() + r * to_bytes, values.size());
    }
    PackedMatrix part = w;
    part.rows = count;
    finite &= pack_rows(part, to_type, converted.data(), 0, unit, out + tile / unit * unit_bytes);
  }
  return finite;
}

}  // namespace

bool pack_weights(const PackedMatrix& w, DType from, DType to, const std::byte* source, int64_t begin,
                  int64_t end, std::byte* out) {
  return from == to ? pack_rows(w, to, source, begin, end, out)
                    : pack_requantized(w, from, to, source, begin, end, out);
}

}  // namespace mneme
