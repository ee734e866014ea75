#include "simd/code_residuals.h"

#include <algorithm>

#include "core/half.h"

namespace mneme {
uint64_t CodeResiduals::count() const {
  uint64_t sum = 0;
  for (const StripeResiduals& stripe : stripes) sum += stripe.entries.size();
  return sum;
}

uint64_t CodeResiduals::bytes() const {
  uint64_t sum = 0;
  for (const StripeResiduals& stripe : stripes)
    sum += stripe.entries.size() * sizeof(CodeResidual) + stripe.begin.size() * sizeof(uint32_t);
  return sum;
}

void add_residuals(const PackedMatrix& w, const SpikeRows& x, int64_t stripe_begin, int64_t stripe_end,
                   int64_t n_begin, int64_t n_end, float* y, int64_t stride) {
  thread_local std::vector<float> counts, sums;
  counts.resize(static_cast<size_t>(w.cols));
  const int64_t height = stripe_rows(w), groups = w.cols / kScaleGroup;
  for (int64_t n = n_begin; n < n_end; ++n) {
    spike_counts(x, n, w.cols, counts.data());  // products with residuals are exact up to 2^24
    const float threshold = x.threshold[static_cast<size_t>(n)];
    for (int64_t stripe = stripe_begin; stripe < stripe_end; ++stripe) {
      const StripeResiduals& rest = w.residuals->stripes[static_cast<size_t>(stripe)];
      if (rest.entries.empty()) continue;
      sums.assign(static_cast<size_t>(height), 0.0f);
      const std::byte* scales = w.data + stripe * stripe_bytes(w);
      for (int64_t g = 0; g < groups; ++g, scales += 4 * height) {
        const float* group_counts = counts.data() + g * kScaleGroup;
        for (const CodeResidual& entry : rest.group(g)) {
          const auto scale = load_le<float>(scales + 4 * int64_t{entry.row});
          sums[entry.row] += scale * (static_cast<float>(entry.rest) * group_counts[entry.column]);
        }
      }
      const int64_t first = stripe * height, count = std::min(height, w.rows - first);
      float* out = y + n * stride + first;
      for (int64_t r = 0; r < count; ++r) out[r] += threshold * sums[static_cast<size_t>(r)];
    }
  }
}

}  // namespace mneme
