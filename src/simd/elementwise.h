// Operations between the matrix products, one row at a time: normalisation, gated activations, rotary
// embedding.
#pragma once
#include <cstdint>

namespace mneme {

/// out[i] = x[i] / sqrt(mean(x^2) + eps) * weight[i]. out may be x.
void rms_norm(const float* x, const float* weight, float eps, int64_t n, float* out);

/// 1 / sqrt(mean(x^2) + eps): what rms_norm multiplies by.
float rms_factor(const float* x, float eps, int64_t n);

enum class GateAct : uint8_t { silu, gelu_tanh, gelu };
/// out[i] = act(gate[i]) * up[i]. out may be gate or up. silu(x) = x sigmoid(x); gelu_tanh is the tanh
/// approximation (Hendrycks & Gimpel 2016), gelu the exact one.
void gated_act(GateAct act, const float* gate, const float* up, int64_t n, float* out);

/// x[i] += y[i]
void add_to(float* x, const float* y, int64_t n);

/// x[i] = fma(factor, y[i], x[i]) where the instruction set has it, the same for every i.
void add_scaled(float* x, float factor, const float* y, int64_t n);

/// x[i] = cap * tanh(x[i] / cap)
void softcap(float* x, float cap, int64_t n);

/// Rotates the first `dims` of one head by the angles of its position: pairs (i, i + dims/2) if `half`, else
/// (2i, 2i+1). cos, sin: [dims/2]. Source: Su et al. 2021, RoFormer.
void rope(float* head, const float* cos, const float* sin, int64_t dims, bool half);

}  // namespace mneme
