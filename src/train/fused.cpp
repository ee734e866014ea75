#include "train/fused.h"

#include "core/fail.h"

namespace mneme::train {

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps, double offset) {
  require(weight.dim() == 1 && x.dim() >= 1 && x.size(-1) == weight.size(0), ErrorCode::invalid_argument,
          "rms_norm: the weight must be [n] for x [..., n]");
  const Tensor normed = x * (x.square().mean(-1, true) + eps).rsqrt();
  return normed * (offset == 0 ? weight : weight + offset);
}

Tensor silu_times(const Tensor& gate, const Tensor& up) {
  return at::silu(gate) * up;
}

Tensor rotate(const Tensor& x, const Tensor& cos, const Tensor& sin, bool half) {
  const int64_t pairs = cos.size(1);
  require(x.dim() == 4 && cos.sizes() == sin.sizes() && cos.size(0) == x.size(2) && 2 * pairs <= x.size(3),
          ErrorCode::invalid_argument,
          "rotate: cos and sin must be [length, pairs] for x [batch, heads, length, head_dim >= 2 pairs]");
  const Tensor turned = x.narrow(-1, 0, 2 * pairs), rest = x.narrow(-1, 2 * pairs, x.size(3) - 2 * pairs);
  std::vector<int64_t> shape = turned.sizes().vec();
  shape.back() = half ? 2 : pairs;
  shape.push_back(half ? pairs : 2);
  const int64_t axis = half ? -2 : -1;
  const Tensor paired = turned.reshape(shape);
  const Tensor a = paired.select(axis, 0), b = paired.select(axis, 1);
  const Tensor out = at::stack({a * cos - b * sin, a * sin + b * cos}, axis).reshape(turned.sizes());
  return at::cat({out, rest}, -1);
}

Tensor product(const Tensor& x, const Tensor& weight, const Tensor& bias, bool bfloat16) {
  if (!bfloat16) return at::linear(x, weight, bias);
  const Tensor out = at::matmul(x.to(at::kBFloat16), weight.to(at::kBFloat16).t()).to(x.scalar_type());
  return bias.defined() ? out + bias : out;
}

Tensor cross_entropy(const Tensor& hidden, const Tensor& head, const Tensor& targets, double scale,
                     double cap, bool bfloat16) {
  require(hidden.dim() == 2 && head.dim() == 2 && hidden.size(1) == head.size(1) && targets.dim() == 1 &&
              targets.size(0) == hidden.size(0) && targets.scalar_type() == at::kLong,
          ErrorCode::invalid_argument,
          "cross_entropy: hidden [places, d_model], head [vocab, d_model], targets int64 [places]");
  Tensor logits = product(hidden, head, {}, bfloat16) * scale;
  if (cap > 0) logits = at::tanh(logits / cap) * cap;
  const Tensor all = at::log_softmax(logits, -1);
  const Tensor chosen = all.gather(1, targets.clamp_min(0).unsqueeze(1)).squeeze(1);
  const Tensor counts = targets.ge(0).to(hidden.scalar_type());
  return -(chosen * counts).sum() / counts.sum().clamp_min(1);
}

}  // namespace mneme::train
