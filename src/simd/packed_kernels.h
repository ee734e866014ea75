// The table of product kernels, one per instruction set. packed_product.cpp looks the table up once a call;
// packed_kernels-inl.h is the one source that packed_<isa>.cpp compile with that set's vector vocabulary.
#pragma once
#include <cstddef>
#include <cstdint>

namespace mneme {

struct ProductArgs {
  // W
  const std::byte* tiles;
  int64_t tile_bytes, scale_bytes, rows, cols;
  int64_t tile_begin, tile_end;
  // X, rounded (integer kernels) or float
  const int8_t* q;
  const float* d;
  const float* d_sum;
  const int32_t* minus8;
  const int32_t* minus128;
  const int32_t* half_sums;
  const float* x;
  int64_t x_stride;
  int64_t n_begin, n_end;
  // Y
  float* y;
  int64_t stride;
};

using ProductKernel = void (*)(const ProductArgs&);

struct PackedKernels {
  ProductKernel integer[13];   // by PackedType; null for float weights
  ProductKernel floating[13];  // by PackedType
  /// One block of 32: q[32], sums of its halves; returns d (NaN if x holds a NaN or infinity).
  float (*quantize32)(const float* x, int8_t* q, int32_t* half_sums);
};

const PackedKernels& packed_kernels_portable();
const PackedKernels& packed_kernels_avx2();
const PackedKernels& packed_kernels_avx512();
const PackedKernels& packed_kernels_avx512_vnni();

}  // namespace mneme
