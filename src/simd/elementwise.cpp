#include "simd/elementwise.h"

// Highway re-includes this file for every target, so these includes have an order of their own.
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "simd/elementwise.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
#include <hwy/contrib/math/math-inl.h>
// clang-format on

#include <cmath>

#include "simd/highway_isa.h"

HWY_BEFORE_NAMESPACE();
namespace mneme {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;
constexpr D d;

float rms_factor_n(const float* x, float eps, int64_t n) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  V sum0 = hn::Zero(d), sum1 = hn::Zero(d);
  int64_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    const V a = hn::LoadU(d, x + i), b = hn::LoadU(d, x + i + lanes);
    sum0 = hn::MulAdd(a, a, sum0);
    sum1 = hn::MulAdd(b, b, sum1);
  }
  float sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(sum0, sum1)));
  for (; i < n; ++i) sum += x[i] * x[i];
  return 1.0f / std::sqrt(sum / static_cast<float>(n) + eps);
}

void rms_norm_n(const float* x, const float* weight, float eps, int64_t n, float* out) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const float factor = rms_factor_n(x, eps, n);
  const V f = hn::Set(d, factor);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    hn::StoreU(hn::Mul(hn::Mul(hn::LoadU(d, x + i), f), hn::LoadU(d, weight + i)), d, out + i);
  for (; i < n; ++i) out[i] = x[i] * factor * weight[i];
}

HWY_INLINE V sigmoid_times(V x, V argument) {  // x * sigmoid(argument)
  const V e = hn::Exp(d, hn::Min(hn::Neg(argument), hn::Set(d, 88.0f)));
  return hn::Div(x, hn::Add(hn::Set(d, 1.0f), e));
}

HWY_INLINE V act_of(GateAct act, V x) {
  if (act == GateAct::silu) return sigmoid_times(x, x);
  // 0.5 x (1 + tanh u) = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3)
  const V inner = hn::MulAdd(hn::Mul(hn::Set(d, 0.044715f), hn::Mul(x, x)), x, x);
  return sigmoid_times(x, hn::Mul(hn::Set(d, 1.5957691216057308f), inner));
}

void gated_act_n(GateAct act, const float* gate, const float* up, int64_t n, float* out) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    hn::StoreU(hn::Mul(act_of(act, hn::LoadU(d, gate + i)), hn::LoadU(d, up + i)), d, out + i);
  if (i < n) {
    float g[HWY_MAX_BYTES / 4] = {}, u[HWY_MAX_BYTES / 4] = {};
    for (int64_t k = i; k < n; ++k) {
      g[k - i] = gate[k];
      u[k - i] = up[k];
    }
    hn::StoreU(hn::Mul(act_of(act, hn::LoadU(d, g)), hn::LoadU(d, u)), d, g);
    for (int64_t k = i; k < n; ++k) out[k] = g[k - i];
  }
}

void add_to_n(float* x, const float* y, int64_t n) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(hn::Add(hn::LoadU(d, x + i), hn::LoadU(d, y + i)), d, x + i);
  for (; i < n; ++i) x[i] += y[i];
}

void add_scaled_n(float* x, float factor, const float* y, int64_t n) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const V f = hn::Set(d, factor);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    hn::StoreU(hn::MulAdd(f, hn::LoadU(d, y + i), hn::LoadU(d, x + i)), d, x + i);
  if (i == n) return;
  float a[HWY_MAX_BYTES / 4] = {}, b[HWY_MAX_BYTES / 4] = {};
  for (int64_t k = i; k < n; ++k) {
    a[k - i] = x[k];
    b[k - i] = y[k];
  }
  hn::StoreU(hn::MulAdd(f, hn::LoadU(d, b), hn::LoadU(d, a)), d, a);
  for (int64_t k = i; k < n; ++k) x[k] = a[k - i];
}

}  // namespace HWY_NAMESPACE
}  // namespace mneme
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mneme {

HWY_EXPORT(rms_factor_n);
HWY_EXPORT(rms_norm_n);
HWY_EXPORT(gated_act_n);
HWY_EXPORT(add_to_n);
HWY_EXPORT(add_scaled_n);

void rms_norm(const float* x, const float* weight, float eps, int64_t n, float* out) {
  sync_highway_isa();
  HWY_DYNAMIC_DISPATCH(rms_norm_n)(x, weight, eps, n, out);
}

float rms_factor(const float* x, float eps, int64_t n) {
  sync_highway_isa();
  return HWY_DYNAMIC_DISPATCH(rms_factor_n)(x, eps, n);
}

void gated_act(GateAct act, const float* gate, const float* up, int64_t n, float* out) {
  if (act == GateAct::gelu) {
    for (int64_t i = 0; i < n; ++i)
      out[i] = 0.5f * gate[i] * (1.0f + std::erf(gate[i] * 0.70710678118654752f)) * up[i];
    return;
  }
  sync_highway_isa();
  HWY_DYNAMIC_DISPATCH(gated_act_n)(act, gate, up, n, out);
}

void add_to(float* x, const float* y, int64_t n) {
  sync_highway_isa();
  HWY_DYNAMIC_DISPATCH(add_to_n)(x, y, n);
}

void add_scaled(float* x, float factor, const float* y, int64_t n) {
  sync_highway_isa();
  HWY_DYNAMIC_DISPATCH(add_scaled_n)(x, factor, y, n);
}

void softcap(float* x, float cap, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] = cap * std::tanh(x[i] / cap);
}

void rope(float* head, const float* cos, const float* sin, int64_t dims, bool half) {
  const int64_t pairs = dims / 2;
  for (int64_t i = 0; i < pairs; ++i) {
    float& a = head[half ? i : 2 * i];
    float& b = head[half ? i + pairs : 2 * i + 1];
    const float x = a, y = b;
    a = x * cos[i] - y * sin[i];
    b = x * sin[i] + y * cos[i];
  }
}

}  // namespace mneme
#endif
