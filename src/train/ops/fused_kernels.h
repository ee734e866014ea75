// The kernels of fused.h and of cross_entropy.cpp: f32, one thread each, on ranges that the caller spreads
// over threads. Every sum is over one row, or over a block of rows that does not depend on the number of
// threads.
#pragma once
#include <cstdint>

namespace mneme::train {

/// y = x * f * (weight + offset) for rows of n values, f = 1 / sqrt(mean(x^2) + eps) of each: factors [rows].
void rms_norm_rows(const float* x, const float* weight, float eps, float offset, int64_t rows, int64_t n,
                   float* y, float* factors);

/// dx from dy, and adds the weight's gradient of these rows to dweight [n].
void rms_norm_rows_back(const float* x, const float* weight, const float* factors, const float* dy,
                        float offset, int64_t rows, int64_t n, float* dx, float* dweight);

/// out = silu(gate) * up, and its gradients.
void silu_times_n(const float* gate, const float* up, int64_t n, float* out);
void silu_times_back_n(const float* gate, const float* up, const float* upper, int64_t n, float* dgate,
                       float* dup);

/// One row of fused.h's rotate: `pairs` turned, the values from 2 * pairs up to dim copied. sign -1 turns
/// back.
void rotate_row(const float* x, const float* cos, const float* sin, float sign, int64_t pairs, int64_t dim,
                bool half, float* out);

/// The keys that one query sees of n: [0, head) and [begin, end), head <= begin <= end <= n, at least one.
struct SeenKeys {
  int64_t head, begin, end;
};

/// scores [n] become softmax(scale * scores) over the seen keys, 0 elsewhere.
void softmax_row(float* scores, int64_t n, const SeenKeys& seen, float scale);

/// Of softmax_row's `weights`: slope [n], the gradient of the weights, becomes that of the scores.
void softmax_row_back(const float* weights, int64_t n, const SeenKeys& seen, float scale, float* slope);

/// One place: logits l [vocab], of which cap * tanh(l / cap) counts if cap > 0. Returns the loss. `factor`
/// not 0: overwrites l with factor * d loss / d l.
float cross_entropy_row(float* logits, int64_t vocab, int64_t target, float cap, float factor);

}  // namespace mneme::train
