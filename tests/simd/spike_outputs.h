// What tests of spikes and of their products share: rows that were fired beside what the specification says
// of them, and a whole product with a look at what lies behind it.
#pragma once
#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "simd/spike_product.h"

namespace mneme {

struct FiredRows {
  SpikeRows rows;
  std::vector<std::vector<int32_t>> counts;  // fire_reference()'s
  std::vector<float> thresholds;
};

/// Fires rows `x_of(0)` to `x_of(n - 1)` of `cols` values; with events, their list is made however long it
/// is.
inline FiredRows fire_rows(int64_t n, int64_t cols, bool with_events,
                           const std::function<std::vector<float>(int64_t)>& x_of,
                           const NeuronSetting& neuron = {}) {
  FiredRows out;
  out.rows.reserve(n, cols, with_events);
  for (int64_t r = 0; r < n; ++r) {
    const std::vector<float> x = x_of(r);
    out.counts.emplace_back(static_cast<size_t>(cols));
    out.thresholds.push_back(fire_reference(neuron, x.data(), cols, out.counts.back().data()));
    fire_row(neuron, x.data(), r, cols, out.rows);
  }
  unite_events(cols, out.rows, true);
  return out;
}

/// y [n, w.rows], and a failure if anything after it was written.
inline std::vector<float> whole_product(const PackedMatrix& w, const FiredRows& x, int64_t n,
                                        SpikePath path) {
  std::vector<float> y(static_cast<size_t>(n * w.rows + 1), 7.5f);
  spike_product(w, x.rows, 0, w.tiles(), 0, n, y.data(), w.rows, path);
  EXPECT_EQ(y.back(), 7.5f) << "wrote past the last row";
  y.pop_back();
  return y;
}

}  // namespace mneme
