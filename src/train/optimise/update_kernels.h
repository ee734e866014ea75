// The loops of the optimisers over plain f32 arrays, vectorised: every value of a parameter and of its
// optimiser state passes the memory bus once. A loop treats its array from the first value on, so that the
// same array gives the same bits; callers divide long arrays at fixed places, never by the number of threads.
#pragma once
#include <cstdint>

namespace mneme::train {

/// One step of Adam with decoupled decay, all factors worked out beforehand. For gradient G = scale * g:
/// m = keep1 m + (1 - keep1) G; v = keep2 v + (1 - keep2) G^2; p = decay p - rate m / (root sqrt(v) + eps).
struct AdamStep {
  float scale = 1;  // of the gradient (clipping)
  float keep1 = 0;  // beta 1
  float keep2 = 0;  // beta 2
  float decay = 1;  // 1 - lr * weight_decay
  float rate = 0;   // lr / (1 - beta1^t)
  float root = 1;   // 1 / sqrt(1 - beta2^t)
  float eps = 1e-8f;
};

void adam_update(float* p, const float* g, float* m, float* v, const AdamStep& step, int64_t n);

/// Sum of squares, added up in f64.
double sum_of_squares(const float* x, int64_t n);

/// y[i] += factor * x[i]
void add_scaled(float* y, const float* x, float factor, int64_t n);

}  // namespace mneme::train
