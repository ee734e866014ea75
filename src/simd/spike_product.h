// Y = X W^T where X are spike counts: y = threshold * sum over blocks of (scale * exact integer sum). Two
// ways with equal bits (stripe_kernels-inl.h): dense, which reads every column of W, and event-driven, which
// reads the columns of a list and leaves the cache lines of silent inputs where they are.
#pragma once
#include <cstdint>
#include <string_view>

#include "simd/spike.h"
#include "simd/stripes.h"

namespace mneme {

enum class SpikePath { automatic, dense, events };

/// Y[n, row] for the rows of tiles [tile_begin, tile_end) of W, which must be in stripes and the range whole
/// ones (or end with W), and rows [n_begin, n_end) of X; y points at Y[0, 0] with `stride` floats between
/// rows of Y. Writes only rows < W.rows. SpikePath::events needs a list of exactly these rows of X.
void spike_product(const PackedMatrix& w, const SpikeRows& x, int64_t tile_begin, int64_t tile_end,
                   int64_t n_begin, int64_t n_end, float* y, int64_t stride,
                   SpikePath path = SpikePath::automatic);

/// Plain C++ specification, in double precision: row `row` of W (in stripes) with whole counts [cols].
double spike_product_reference(const PackedMatrix& w, const int32_t* counts, float threshold, int64_t row);

}  // namespace mneme
