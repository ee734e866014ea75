#include "simd/engram.h"

// Highway re-includes this file for every target, so these includes have an order of their own.
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "simd/engram.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
#include <hwy/contrib/math/math-inl.h>
// clang-format on

#include <algorithm>
#include <cmath>

#include "simd/highway_isa.h"

#ifndef MNEME_SIMD_ENGRAM_SUMS  // once, though the file is read for every target
#define MNEME_SIMD_ENGRAM_SUMS
namespace mneme {
struct GateSums {
  double kk, hh, khw;  // k * k, h * h, k * h * weight
};
}  // namespace mneme
#endif

HWY_BEFORE_NAMESPACE();
namespace mneme {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;
constexpr D d;
constexpr hn::ScalableTag<double> dd;
constexpr hn::Rebind<float, decltype(dd)> half;  // as many floats as a vector has doubles

GateSums gate_sums(const float* k, const float* h, const float* weight, int64_t n) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(dd));
  auto kk = hn::Zero(dd), hh = hn::Zero(dd), khw = hn::Zero(dd);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto a = hn::PromoteTo(dd, hn::LoadU(half, k + i));
    const auto b = hn::PromoteTo(dd, hn::LoadU(half, h + i));
    const auto w = hn::PromoteTo(dd, hn::LoadU(half, weight + i));
    kk = hn::MulAdd(a, a, kk);
    hh = hn::MulAdd(b, b, hh);
    khw = hn::MulAdd(hn::Mul(a, b), w, khw);
  }
  GateSums sums{hn::GetLane(hn::SumOfLanes(dd, kk)), hn::GetLane(hn::SumOfLanes(dd, hh)),
                hn::GetLane(hn::SumOfLanes(dd, khw))};
  for (; i < n; ++i) {
    const double a = k[i], b = h[i];
    sums.kk += a * a;
    sums.hh += b * b;
    sums.khw += a * b * weight[i];
  }
  return sums;
}

void value_n(float alpha, const float* v, int64_t n, float* y) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const V a = hn::Set(d, alpha);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(hn::Mul(a, hn::LoadU(d, v + i)), d, y + i);
  for (; i < n; ++i) y[i] = alpha * v[i];
}

// One vector of y at channel i. `at(row)` loads a vector of a row's channels.
template <class At>
HWY_INLINE V conv_at(std::span<const float* const> taps, const float* weight, const float* u,
                     int64_t channels, const At& at) {
  V sum = hn::Zero(d);
  for (size_t j = 0; j < taps.size(); ++j)
    if (taps[j] != nullptr)
      sum = hn::MulAdd(at(taps[j]), at(weight + static_cast<int64_t>(j) * channels), sum);
  const V e = hn::Exp(d, hn::Min(hn::Neg(sum), hn::Set(d, 88.0f)));
  return hn::Add(at(u), hn::Div(sum, hn::Add(hn::Set(d, 1.0f), e)));
}

void conv_n(std::span<const float* const> taps, const float* weight, const float* u, int64_t channels,
            float* y) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= channels; i += lanes) {
    const auto at = [i](const float* row) { return hn::LoadU(d, row + i); };
    hn::StoreU(conv_at(taps, weight, u, channels, at), d, y + i);
  }
  if (i == channels) return;
  const auto at = [i, channels](const float* row) {
    float padded[HWY_MAX_BYTES / 4] = {};
    for (int64_t c = i; c < channels; ++c) padded[c - i] = row[c];
    return hn::LoadU(d, padded);
  };
  float last[HWY_MAX_BYTES / 4];
  hn::StoreU(conv_at(taps, weight, u, channels, at), d, last);
  for (int64_t c = i; c < channels; ++c) y[c] = last[c - i];
}

}  // namespace HWY_NAMESPACE
}  // namespace mneme
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mneme {
namespace {

HWY_EXPORT(gate_sums);
HWY_EXPORT(value_n);
HWY_EXPORT(conv_n);

double alpha_of(const EngramGate& gate, double g) {
  if (gate.signed_sqrt) {
    const bool is_zero = g == 0 && gate.sign0 == EngramModuleConfig::SignOfZero::zero;
    // std::max keeps a NaN in its first argument
    g = is_zero ? 0.0 : std::copysign(std::sqrt(std::max(std::abs(g), 1e-6)), g);
  }
  return 1 / (1 + std::exp(-g));
}

}  // namespace

float engram_gate(const EngramGate& gate, const float* k, const float* h, const float* weight, int64_t d) {
  sync_highway_isa();
  const GateSums sums = HWY_DYNAMIC_DISPATCH(gate_sums)(k, h, weight, d);
  const auto n = static_cast<double>(d);
  const double norms = std::sqrt(sums.kk / n + gate.eps) * std::sqrt(sums.hh / n + gate.eps);
  return static_cast<float>(alpha_of(gate, sums.khw / (norms * std::sqrt(n))));
}

double engram_gate_plain(const EngramGate& gate, const float* k, const float* h, const float* weight,
                         int64_t d) {
  double kk = 0, hh = 0, g = 0;
  for (int64_t i = 0; i < d; ++i) {
    kk += double{k[i]} * k[i];
    hh += double{h[i]} * h[i];
  }
  const auto n = static_cast<double>(d);
  const double k_rms = std::sqrt(kk / n + gate.eps), h_rms = std::sqrt(hh / n + gate.eps);
  for (int64_t i = 0; i < d; ++i) g += k[i] / k_rms * (h[i] / h_rms) * weight[i];
  return alpha_of(gate, g / std::sqrt(n));
}

void engram_value(float alpha, const float* v, int64_t d, float* y) {
  sync_highway_isa();
  HWY_DYNAMIC_DISPATCH(value_n)(alpha, v, d, y);
}

void engram_conv(std::span<const float* const> taps, const float* weight, const float* u, int64_t channels,
                 float* y) {
  sync_highway_isa();
  HWY_DYNAMIC_DISPATCH(conv_n)(taps, weight, u, channels, y);
}

void engram_conv_plain(std::span<const float* const> taps, const float* weight, const float* u,
                       int64_t channels, double* y) {
  for (int64_t i = 0; i < channels; ++i) {
    double sum = 0;
    for (size_t j = 0; j < taps.size(); ++j)
      if (taps[j] != nullptr) sum += double{taps[j][i]} * weight[static_cast<int64_t>(j) * channels + i];
    y[i] = u[i] + sum / (1 + std::exp(-sum));
  }
}

}  // namespace mneme
#endif
