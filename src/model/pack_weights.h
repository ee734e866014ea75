// From rows of a file to the layout that kernels read, tiles or stripes, in the file's own type or another.
#pragma once
#include "core/dtype.h"
#include "simd/packed_matrix.h"

namespace mneme {

/// Packs tiles [begin, end), whole stripes if `w` has such, of the matrix `w` to its zeroed memory at `out`.
/// `source`: all of its rows, of type `from`; they are packed as `to`, and quantized to that first if it is
/// another type. Different tiles may be packed from different threads. Returns false if a weight is NaN or
/// infinite.
bool pack_weights(const PackedMatrix& w, DType from, DType to, const std::byte* source, int64_t begin,
                  int64_t end, std::byte* out);

}  // namespace mneme
