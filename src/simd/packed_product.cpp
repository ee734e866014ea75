#include "simd/packed_product.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/fail.h"
#include "simd/packed_kernels.h"

namespace mneme {
namespace {

const PackedKernels& kernels() {
  switch (active_isa()) {
#if defined(__x86_64__)
    case Isa::avx512_vnni:
      return packed_kernels_avx512_vnni();
    case Isa::avx512:
      return packed_kernels_avx512();
    case Isa::avx2:
      return packed_kernels_avx2();
#endif
    default:
      return packed_kernels_portable();
  }
}

ProductArgs make_args(const PackedMatrix& w, int64_t tile_begin, int64_t tile_end, int64_t n_begin,
                      int64_t n_end, float* y, int64_t stride) {
  ProductArgs args{};
  args.tiles = w.data;
  args.tile_bytes = packed_tile_bytes(w.type, w.cols);
  args.scale_bytes = packed_scale_bytes(w.type, w.cols);
  args.rows = w.rows;
  args.cols = w.cols;
  args.tile_begin = tile_begin;
  args.tile_end = tile_end;
  args.n_begin = n_begin;
  args.n_end = n_end;
  args.y = y;
  args.stride = stride;
  return args;
}

// What products need of block `at` beside its codes, whose sum is `sum`.
void set_scale(size_t at, float d, int32_t sum, QuantizedRows& out) {
  out.d[at] = d;
  out.d_sum[at] = d * static_cast<float>(sum);
  out.minus8[at] = -8 * sum;
  out.minus128[at] = -128 * sum;
}

}  // namespace

void QuantizedRows::reserve(int64_t rows, int64_t cols) {
  const auto values = static_cast<size_t>(rows * cols), blocks = values / static_cast<size_t>(kBlock);
  const auto grow = [](auto& vector, size_t size) {
    if (vector.size() < size) vector.resize(size);
  };
  grow(q, values);
  grow(d, blocks);
  grow(d_sum, blocks);
  grow(minus8, blocks);
  grow(minus128, blocks);
  grow(half_sums, 2 * blocks);
}

void quantize_blocks(const float* x, int64_t row, int64_t cols, int64_t first, int64_t count,
                     QuantizedRows& out) {
  const auto quantize32 = kernels().quantize32;
  const int64_t base = row * (cols / kBlock);
  for (int64_t b = first; b < first + count; ++b) {
    const auto at = static_cast<size_t>(base + b);
    int32_t* halves = &out.half_sums[2 * at];
    const float d = quantize32(x + b * kBlock, &out.q[at * kBlock], halves);
    set_scale(at, d, halves[0] + halves[1], out);
  }
}

void place_codes(const int8_t* codes, const float* scales, int64_t row, int64_t cols, QuantizedRows& out) {
  std::copy_n(codes, cols, out.q.begin() + row * cols);
  for (int64_t b = 0; b < cols / kBlock; ++b) {
    const auto at = static_cast<size_t>(row * (cols / kBlock) + b);
    int32_t halves[2] = {};
    for (int64_t c = 0; c < kBlock; ++c) halves[c / (kBlock / 2)] += codes[b * kBlock + c];
    out.half_sums[2 * at] = halves[0];
    out.half_sums[2 * at + 1] = halves[1];
    set_scale(at, scales[b], halves[0] + halves[1], out);
  }
}

void round_to_int4(const float* x, int64_t n, float* out) {
  float most = 0;
  bool finite = true;
  for (int64_t i = 0; i < n; ++i) {
    finite &= std::isfinite(x[i]);
    most = std::max(most, std::abs(x[i]));
  }
  const float scale = finite ? most / 7.0f : std::numeric_limits<float>::quiet_NaN();
  for (int64_t i = 0; i < n; ++i) out[i] = scale == 0 ? 0.0f : scale * std::nearbyint(x[i] / scale);
}

void packed_product(const PackedMatrix& w, const QuantizedRows& x, int64_t tile_begin, int64_t tile_end,
                    int64_t n_begin, int64_t n_end, float* y, int64_t stride) {
  const ProductKernel kernel = kernels().integer[static_cast<size_t>(w.type)];
  require(kernel != nullptr, ErrorCode::internal, "packed_product: {} has no integer product",
          packed_layout(w.type).name);
  ProductArgs args = make_args(w, tile_begin, tile_end, n_begin, n_end, y, stride);
  args.q = x.q.data();
  args.d = x.d.data();
  args.d_sum = x.d_sum.data();
  args.minus8 = x.minus8.data();
  args.minus128 = x.minus128.data();
  args.half_sums = x.half_sums.data();
  kernel(args);
}

void packed_product(const PackedMatrix& w, const float* x, int64_t x_stride, int64_t tile_begin,
                    int64_t tile_end, int64_t n_begin, int64_t n_end, float* y, int64_t stride) {
  ProductArgs args = make_args(w, tile_begin, tile_end, n_begin, n_end, y, stride);
  args.x = x;
  args.x_stride = x_stride;
  kernels().floating[static_cast<size_t>(w.type)](args);
}

double packed_product_reference(const PackedMatrix& w, const QuantizedRows& x, int64_t row, int64_t n) {
  std::vector<float> weights(static_cast<size_t>(w.cols));
  unpack_row(w, row, 0, w.cols, weights.data());
  double sum = 0;
  for (int64_t c = 0; c < w.cols; ++c)
    sum += double{weights[static_cast<size_t>(c)]} * x.q[static_cast<size_t>(n * w.cols + c)] *
           x.d[static_cast<size_t>(n * (w.cols / kBlock) + c / kBlock)];
  return sum;
}

double packed_product_reference(const PackedMatrix& w, const float* x, int64_t row) {
  std::vector<float> weights(static_cast<size_t>(w.cols));
  unpack_row(w, row, 0, w.cols, weights.data());
  double sum = 0;
  for (int64_t c = 0; c < w.cols; ++c) sum += double{weights[static_cast<size_t>(c)]} * x[c];
  return sum;
}

}  // namespace mneme
