// The two recurrences of linear attention over whole sequences, with gradients.
//
// Shapes: q [batch, kv_heads, group, length, dim] (the `group` query heads that share a key-value head),
// k, v [batch, kv_heads, length, dim]. The state of a key-value head is S [dim (of k), dim (of v)], f32.
#pragma once
#include "train/tensor.h"

namespace mneme::train {

/// Gated linear attention (SpikingBrain technical report, eq. of gated linear attention; Yang et al. 2024):
/// S_t = diag(exp(a_t)) S_{t-1} + k_t v_t^T, o_t = scale * S_t^T q_t; a_t = log_decay <= 0,
/// [batch, kv_heads, length, dim]. Returns o [batch, kv_heads, group, length, dim].
Tensor gated_linear_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& log_decay,
                              double scale);

/// The gated delta rule (Yang, Kautz, Hatamizadeh 2025): S <- e^g S, u = beta (v - S^T k), S <- S + k u^T,
/// o = scale * S^T q; log_decay g <= 0 and beta in (0, 1), each [batch, kv_heads, length].
Tensor gated_delta_rule(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& log_decay,
                        const Tensor& beta, double scale);

/// The same two, token after token with autograd alone: the specification, slow. Any floating type (double in
/// tests).
Tensor gated_linear_attention_reference(const Tensor& q, const Tensor& k, const Tensor& v,
                                        const Tensor& log_decay, double scale);
Tensor gated_delta_rule_reference(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& log_decay,
                                  const Tensor& beta, double scale);

}  // namespace mneme::train
