#include "simd/code_residuals.h"

#include <algorithm>

#include "core/half.h"

namespace mneme {
namespace {

// The whole counts of a row of X, as floats: they and their products with residuals are exact up to 2^24.
void whole_counts(const SpikeRows& x, int64_t row, int64_t cols, std::vector<float>& out) {
  out.resize(static_cast<size_t>(cols));
  const int8_t* base = x.base.data() + row * cols;
  std::copy_n(base, cols, out.begin());
  const EventList& beyond = x.beyond[static_cast<size_t>(row)];
  if (beyond.begin.empty()) return;
  for (size_t b = 0; b + 1 < beyond.begin.size(); ++b)
    for (size_t e = 4 * size_t{beyond.begin[b]}; e < 4 * size_t{beyond.begin[b + 1]}; ++e)
      out[b * size_t{kBlock} + beyond.columns[e]] += static_cast<float>(beyond.counts[e]);
}

}  // namespace

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
  const int64_t height = stripe_rows(w), groups = w.cols / kScaleGroup;
  for (int64_t n = n_begin; n < n_end; ++n) {
    whole_counts(x, n, w.cols, counts);
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
