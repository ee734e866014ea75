// What goes into a recurrence (recurrence.h): maps of queries and keys, decays, the L2 norm of the delta
// rule.
//
//   gla     log-decay = logsigmoid(z) / normaliser, z: the gate's logits, one a key channel
//   tied    decay = 1 - k, for keys in (0, 1)
//   delta   log-decay = -exp(a_log) softplus(a + dt_bias), one number a head
//
// Decays are handed on as factors in [0, 1], never as logarithms: a closed gate is a factor near or at 0, and
// nothing can overflow. Sources: Gated Linear Attention (arXiv 2312.06635), section 4; Gated Delta Networks
// (arXiv 2412.06464).
#pragma once
#include <cstdint>

namespace mneme {

enum class ElementMap : uint8_t { identity, relu, sigmoid, silu };

/// x[i] = map(x[i]) * scale
void map_elements(ElementMap map, float scale, int64_t n, float* x);
/// The same for one value in double precision: the specification.
double map_element_plain(ElementMap map, double x);

/// x[i] *= scale / sqrt(sum(x^2) + eps): zeros stay zeros.
void l2_normalise(float eps, float scale, int64_t n, float* x);

/// decay[i] = sigmoid(z[i])^(1 / normaliser); decay may be z. 0 where the power underflows, 1 where z is
/// large.
void gla_decays(const float* z, float normaliser, int64_t n, float* decay);
double gla_decay_plain(double z, double normaliser);

/// decay[i] = 1 - k[i]
void tied_decays(const float* k, int64_t n, float* decay);

/// exp(-exp(a_log) softplus(a + dt_bias))
float delta_decay(float a, float a_log, float dt_bias);
/// sigmoid(b)
float delta_beta(float b);

/// z[i] = bias[i] + sum_r y[r] up[r * stride + i]: the second factor of a low-rank gate, stored rank by rank.
/// bias may be null.
void low_rank_gate(const float* y, const float* up, int64_t stride, const float* bias, int64_t rank,
                   int64_t n, float* z);

}  // namespace mneme
