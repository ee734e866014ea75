// What the codes of a W8 matrix have beyond int8. SpikingBrain's W8ASpike checkpoint rounds its weights to
// symmetric steps without clamping, and about one code in a hundred is outside -128 ... 127 (up to 194 in
// what was measured). Saturating them would be wrong by a thousandth; widening all codes would double the
// weights. So a code is held as int8, clamped, and the rest of the few that do not fit as a list of entries
// of 4 bytes,
//
//   code = base + rest,   y_r = V sum over groups g of scale_rg (sum_i s_i base_rgi + sum_i s_i rest_rgi)
//
// which together are exactly the sums of the whole codes. The second part is added after the kernel of the
// first, in the order of the list, whichever way the kernel walked: equal bits either way.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "simd/spike.h"
#include "simd/stripes.h"

namespace mneme {

inline constexpr float kMostCode = 32767;  // |code| of a W8 matrix

struct CodeResidual {
  uint8_t row;     // in the stripe
  uint8_t column;  // in the group of 128
  int16_t rest;    // code - clamped code
};

struct StripeResiduals {
  std::vector<uint32_t> begin;        // [groups + 1]: the first entry of each group of 128 columns
  std::vector<CodeResidual> entries;  // by group, row, column
  std::span<const CodeResidual> group(int64_t g) const {
    const auto at = static_cast<size_t>(g);
    return std::span(entries).subspan(begin[at], begin[at + 1] - begin[at]);
  }
};

/// Of a whole matrix.
struct CodeResiduals {
  explicit CodeResiduals(int64_t stripe_count) : stripes(static_cast<size_t>(stripe_count)) {}
  std::vector<StripeResiduals> stripes;
  uint64_t count() const;
  uint64_t bytes() const;
};

/// Adds to y what rows [n_begin, n_end) of X make of the residuals of stripes [stripe_begin, stripe_end) of
/// W; y as in spike_product(). Thread-safe for different stripes.
void add_residuals(const PackedMatrix& w, const SpikeRows& x, int64_t stripe_begin, int64_t stripe_end,
                   int64_t n_begin, int64_t n_end, float* y, int64_t stride);

}  // namespace mneme
