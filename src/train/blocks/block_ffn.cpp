// The feed-forward block: dense, down(act(gate(x)) * up(x)), or a mixture (block_moe.cpp).
#include "core/fail.h"
#include "train/blocks/blocks.h"
#include "train/ops/fused.h"

namespace mneme::train {

Tensor activated(Act act, const Tensor& gate, const Tensor& up) {
  switch (act) {
    case Act::silu:
      return silu_times(gate, up);
    case Act::gelu_tanh:
      return at::gelu(gate, "tanh") * up;
    case Act::gelu:
      return at::gelu(gate) * up;
  }
  fail(ErrorCode::unsupported, "an activation of number {} cannot be trained", static_cast<int>(act));
}

Tensor feed_forward(const FfnConfig& ffn, const Weights& weights, const Tensor& x,
                    const PassContext& context) {
  if (ffn.moe()) return mixture_of_experts(ffn, weights, x, context);
  return weights.linear("ffn_down",
                        activated(ffn.act, weights.linear("ffn_gate", x), weights.linear("ffn_up", x)));
}

}  // namespace mneme::train
