#include "train/optimise/update_kernels.h"

// Highway re-includes this file for every target, so these includes have an order of their own.
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "train/optimise/update_kernels.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

#include <cmath>

HWY_BEFORE_NAMESPACE();
namespace mneme::train {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

void adam_n(float* p, const float* g, float* m, float* v, const AdamStep& s, int64_t n) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const V scale = hn::Set(d, s.scale), keep1 = hn::Set(d, s.keep1), add1 = hn::Set(d, 1 - s.keep1),
          keep2 = hn::Set(d, s.keep2), add2 = hn::Set(d, 1 - s.keep2), decay = hn::Set(d, s.decay),
          rate = hn::Set(d, s.rate), root = hn::Set(d, s.root), eps = hn::Set(d, s.eps);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const V gradient = hn::Mul(hn::LoadU(d, g + i), scale);
    const V first = hn::Add(hn::Mul(hn::LoadU(d, m + i), keep1), hn::Mul(gradient, add1));
    const V second = hn::Add(hn::Mul(hn::LoadU(d, v + i), keep2), hn::Mul(hn::Mul(gradient, gradient), add2));
    const V move = hn::Div(hn::Mul(first, rate), hn::Add(hn::Mul(hn::Sqrt(second), root), eps));
    hn::StoreU(first, d, m + i);
    hn::StoreU(second, d, v + i);
    hn::StoreU(hn::Sub(hn::Mul(hn::LoadU(d, p + i), decay), move), d, p + i);
  }
  for (; i < n; ++i) {
    const float gradient = g[i] * s.scale;
    m[i] = m[i] * s.keep1 + gradient * (1 - s.keep1);
    v[i] = v[i] * s.keep2 + gradient * gradient * (1 - s.keep2);
    p[i] = p[i] * s.decay - m[i] * s.rate / (std::sqrt(v[i]) * s.root + s.eps);
  }
}

double squares_n(const float* x, int64_t n) {
  const hn::ScalableTag<float> d;
  const hn::Repartition<double, decltype(d)> dd;
  const hn::Half<decltype(d)> half;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  auto low = hn::Zero(dd), high = hn::Zero(dd);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto a = hn::PromoteTo(dd, hn::LoadU(half, x + i));
    const auto b = hn::PromoteTo(dd, hn::LoadU(half, x + i + lanes / 2));
    low = hn::MulAdd(a, a, low);
    high = hn::MulAdd(b, b, high);
  }
  double sum = hn::GetLane(hn::SumOfLanes(dd, hn::Add(low, high)));
  for (; i < n; ++i) sum += static_cast<double>(x[i]) * x[i];
  return sum;
}

void add_scaled_n(float* y, const float* x, float factor, int64_t n) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto f = hn::Set(d, factor);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    hn::StoreU(hn::Add(hn::LoadU(d, y + i), hn::Mul(hn::LoadU(d, x + i), f)), d, y + i);
  for (; i < n; ++i) y[i] += x[i] * factor;
}

}  // namespace HWY_NAMESPACE
}  // namespace mneme::train
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mneme::train {

HWY_EXPORT(adam_n);
HWY_EXPORT(squares_n);
HWY_EXPORT(add_scaled_n);

void adam_update(float* p, const float* g, float* m, float* v, const AdamStep& step, int64_t n) {
  HWY_DYNAMIC_DISPATCH(adam_n)(p, g, m, v, step, n);
}

double sum_of_squares(const float* x, int64_t n) {
  return HWY_DYNAMIC_DISPATCH(squares_n)(x, n);
}

void add_scaled(float* y, const float* x, float factor, int64_t n) {
  HWY_DYNAMIC_DISPATCH(add_scaled_n)(y, x, factor, n);
}

}  // namespace mneme::train
#endif
