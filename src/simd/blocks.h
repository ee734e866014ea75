// What the bytes of a tensor row mean: the reference definition of every block format of core/dtype.h, in
// both directions. The fast kernels are tested against these functions, and the loader and `mneme quantize`
// use them directly, so they are plain loops that a compiler vectorises.
//
// Values and roundings equal GGML's reference quantizers bit for bit (tests/data/blocks, made by
// tools/make_block_golden.py from the numpy reference of the `gguf` package).
#pragma once
#include <cstddef>

#include "core/dtype.h"

namespace mneme {

/// dst[0..n) = the values of a row. `src` holds n / block_size blocks and may have any alignment. Integer
/// types become floats. Throws Error(invalid_argument) if n is not a multiple of the type's block size.
/// Thread-safe.
void dequantize_row(DType type, const std::byte* src, float* dst, size_t n);

/// The reverse, for the types that can_quantize() names. Throws Error(unsupported) for any other type,
/// Error(invalid_argument) if n is not a multiple of the block size, and Error(corrupt) when a block format
/// meets a NaN, an infinity, or a value too large for its f16 scale (the float formats keep them).
/// Thread-safe.
void quantize_row(DType type, const float* src, std::byte* dst, size_t n);

/// True for F32, F16, BF16, Q8_0, Q4_0 and Q4_1.
bool can_quantize(DType type) noexcept;

}  // namespace mneme
