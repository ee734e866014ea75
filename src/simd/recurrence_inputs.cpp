#include "simd/recurrence_inputs.h"

// Highway re-includes this file for every target, so these includes have an order of their own.
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "simd/recurrence_inputs.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
#include <hwy/contrib/math/math-inl.h>
// clang-format on

#include <algorithm>
#include <cmath>

#include "simd/highway_isa.h"

HWY_BEFORE_NAMESPACE();
namespace mneme {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;
constexpr D d;

// out[i] = f(x[i]), the last ones in a padded vector. A value does not depend on its place.
template <class F>
HWY_INLINE void for_each(const float* x, int64_t n, float* out, const F& f) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(f(hn::LoadU(d, x + i)), d, out + i);
  if (i == n) return;
  float last[HWY_MAX_BYTES / 4] = {};
  std::copy(x + i, x + n, last);
  hn::StoreU(f(hn::LoadU(d, last)), d, last);
  std::copy(last, last + (n - i), out + i);
}

// 1 / (1 + e^-x); e^-x is held below the largest float, so that the quotient is small and not 0 / 0.
HWY_INLINE V sigmoid(V x) {
  const V one = hn::Set(d, 1.0f);
  return hn::Div(one, hn::Add(one, hn::Exp(d, hn::Min(hn::Neg(x), hn::Set(d, 88.0f)))));
}

void map_n(ElementMap map, float scale, int64_t n, float* x) {
  const V s = hn::Set(d, scale);
  switch (map) {
    case ElementMap::identity:
      return for_each(x, n, x, [&](V v) { return hn::Mul(v, s); });
    case ElementMap::relu:
      return for_each(x, n, x, [&](V v) { return hn::Mul(hn::Max(v, hn::Zero(d)), s); });
    case ElementMap::sigmoid:
      return for_each(x, n, x, [&](V v) { return hn::Mul(sigmoid(v), s); });
    case ElementMap::silu:
      return for_each(x, n, x, [&](V v) { return hn::Mul(hn::Mul(v, sigmoid(v)), s); });
  }
}

void l2_n(float eps, float scale, int64_t n, float* x) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  V squares = hn::Zero(d);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const V v = hn::LoadU(d, x + i);
    squares = hn::MulAdd(v, v, squares);
  }
  float sum = hn::GetLane(hn::SumOfLanes(d, squares));
  for (; i < n; ++i) sum += x[i] * x[i];
  const V factor = hn::Set(d, scale / std::sqrt(sum + eps));
  for_each(x, n, x, [&](V v) { return hn::Mul(v, factor); });
}

void gla_n(const float* z, float normaliser, int64_t n, float* decay) {
  const V rate = hn::Set(d, 1 / normaliser);
  for_each(z, n, decay, [&](V v) {
    // logsigmoid(z) = min(z, 0) - log(1 + e^-|z|)
    const V log = hn::Sub(hn::Min(v, hn::Zero(d)), hn::Log1p(d, hn::Exp(d, hn::Neg(hn::Abs(v)))));
    return hn::Exp(d, hn::Mul(log, rate));
  });
}

void tied_n(const float* k, int64_t n, float* decay) {
  const V one = hn::Set(d, 1.0f);
  for_each(k, n, decay, [&](V v) { return hn::Sub(one, v); });
}

void low_rank_n(const float* y, const float* up, int64_t stride, const float* bias, int64_t rank, int64_t n,
                float* z) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    V sum = bias != nullptr ? hn::LoadU(d, bias + i) : hn::Zero(d);
    for (int64_t r = 0; r < rank; ++r)
      sum = hn::MulAdd(hn::Set(d, y[r]), hn::LoadU(d, up + r * stride + i), sum);
    hn::StoreU(sum, d, z + i);
  }
  for (; i < n; ++i) {
    float sum = bias != nullptr ? bias[i] : 0.0f;
    for (int64_t r = 0; r < rank; ++r) sum += y[r] * up[r * stride + i];
    z[i] = sum;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace mneme
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mneme {
namespace {

HWY_EXPORT(map_n);
HWY_EXPORT(l2_n);
HWY_EXPORT(gla_n);
HWY_EXPORT(tied_n);
HWY_EXPORT(low_rank_n);

double log_sigmoid(double x) {
  return std::min(x, 0.0) - std::log1p(std::exp(-std::abs(x)));
}

}  // namespace

void map_elements(ElementMap map, float scale, int64_t n, float* x) {
  sync_highway_isa();
  HWY_DYNAMIC_DISPATCH(map_n)(map, scale, n, x);
}

double map_element_plain(ElementMap map, double x) {
  switch (map) {
    case ElementMap::identity:
      return x;
    case ElementMap::relu:
      return std::max(x, 0.0);
    case ElementMap::sigmoid:
      return 1 / (1 + std::exp(-x));
    case ElementMap::silu:
      return x / (1 + std::exp(-x));
  }
  return x;
}

void l2_normalise(float eps, float scale, int64_t n, float* x) {
  sync_highway_isa();
  HWY_DYNAMIC_DISPATCH(l2_n)(eps, scale, n, x);
}

void gla_decays(const float* z, float normaliser, int64_t n, float* decay) {
  sync_highway_isa();
  HWY_DYNAMIC_DISPATCH(gla_n)(z, normaliser, n, decay);
}

double gla_decay_plain(double z, double normaliser) {
  return std::exp(log_sigmoid(z) / normaliser);
}

void tied_decays(const float* k, int64_t n, float* decay) {
  sync_highway_isa();
  HWY_DYNAMIC_DISPATCH(tied_n)(k, n, decay);
}

float delta_decay(float a, float a_log, float dt_bias) {
  const double softplus = -log_sigmoid(-(double{a} + dt_bias));
  return static_cast<float>(std::exp(-std::exp(double{a_log}) * softplus));
}

float delta_beta(float b) {
  return static_cast<float>(1 / (1 + std::exp(-double{b})));
}

void low_rank_gate(const float* y, const float* up, int64_t stride, const float* bias, int64_t rank,
                   int64_t n, float* z) {
  sync_highway_isa();
  HWY_DYNAMIC_DISPATCH(low_rank_n)(y, up, stride, bias, rank, n, z);
}

}  // namespace mneme
#endif
