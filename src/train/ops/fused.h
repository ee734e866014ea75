// Operations of a block that autograd would split into many small passes over memory, each as one function
// with a backward of its own: f32 on the CPU by kernels of ours, everything else by libtorch's own
// operations, so that the same code runs on a GPU. The plain form that each stands for is in its comment.
#pragma once
#include "train/ops/products.h"
#include "train/tensor.h"

namespace mneme::train {

/// x / sqrt(mean(x^2, last) + eps) * (weight + offset); x [..., n], weight [n].
Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps, double offset);

/// silu(gate) * up, element by element.
Tensor silu_times(const Tensor& gate, const Tensor& up);

/// Rotates the first 2 * pairs values of every head: x [batch, heads, length, head_dim]; cos, sin [length,
/// pairs]. half: pairs (i, i + pairs); otherwise (2i, 2i + 1).
Tensor rotate(const Tensor& x, const Tensor& cos, const Tensor& sin, bool half);

/// Mean over the places with target >= 0 of -log softmax(logits)[target], where logits = cap * tanh(scale *
/// hidden head^T / cap) (cap 0: none). hidden [places, d_model], head [vocab, d_model], targets int64
/// [places]. Logits are computed for a few hundred places at a time and never held for all. bfloat16: the
/// matrix products as in product(). Zero where no place has a target.
Tensor cross_entropy(const Tensor& hidden, const Tensor& head, const Tensor& targets, double scale,
                     double cap, bool bfloat16 = false);

}  // namespace mneme::train
