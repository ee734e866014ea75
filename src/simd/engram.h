// What an Engram module does with one token once its rows are gathered and projected: the gate, the gated
// value, the short convolution. Every function handles one token of one branch (gate) or all channels
// (convolution) and reads nothing but its arguments, so results cannot depend on how a sequence is cut into
// chunks.
//
//   g     = <rms(k) * wk, rms(h) * wq> / sqrt(d)            k, h: [d]
//   alpha = sigmoid(f(g))       f(g) = g, or sign(g) * sqrt(max(|g|, 1e-6))
//   u     = alpha * v                                       v: [d]
//   y     = u + silu(sum_j weight[j] * normed[t - (w-1-j) * dilation])    if there is a convolution
//   h    += y                                               before the mixer of the layer
//
// Source: Engram (arXiv 2601.07372), section 2; the fields of EngramModuleConfig name the versions.
#pragma once
#include <cstdint>
#include <span>

#include "mneme/engram_config.h"

namespace mneme {

/// f of the gate.
struct EngramGate {
  bool signed_sqrt = true;
  EngramModuleConfig::SignOfZero sign0 = EngramModuleConfig::SignOfZero::copysign;
  double eps = 1e-6;  // of both norms
};

/// alpha of one token and branch. weight: [d], the product wk * wq (offsets added). Sums in double precision:
/// the signed square root is steep at 0.
float engram_gate(const EngramGate& gate, const float* k, const float* h, const float* weight, int64_t d);
/// The same in plain loops: the specification.
double engram_gate_plain(const EngramGate& gate, const float* k, const float* h, const float* weight,
                         int64_t d);

/// y[i] = alpha * v[i]. y may be v.
void engram_value(float alpha, const float* v, int64_t d, float* y);

/// y[i] = u[i] + silu(sum_j taps[j][i] * weight[j * channels + i]). taps: [w] rows of normed values, oldest
/// first, the token itself last; null for a position before the start of the sequence. weight: [w, channels],
/// tap by tap. y may be u.
void engram_conv(std::span<const float* const> taps, const float* weight, const float* u, int64_t channels,
                 float* y);
/// The same in plain loops and double precision: the specification.
void engram_conv_plain(std::span<const float* const> taps, const float* weight, const float* u,
                       int64_t channels, double* y);

}  // namespace mneme
