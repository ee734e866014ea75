// The gated delta rule (arXiv 2412.06464): S <- e^g S, u = beta (v - S^T k), S <- S + k u^T, o = scale S^T q,
// with queries and keys of length one.
#include "train/blocks/blocks.h"
#include "train/ops/recurrence.h"

namespace mneme::train {
namespace {

Tensor l2_normalised(const Tensor& x) {
  return x * (x.square().sum(-1, true) + 1e-6).rsqrt();
}

}  // namespace

Tensor delta_mixer(const ModelConfig& config, const MixerConfig& mixer, const Weights& weights,
                   const Tensor& x) {
  const int64_t kv_heads = mixer.kv_heads, group = mixer.heads / mixer.kv_heads;
  const auto keys = [&](const Tensor& t) { return split_heads(t, kv_heads, 1).select(2, 0); };
  const auto mapped = [&](const char* name) { return feature_map(mixer.feature, weights.linear(name, x)); };
  const Tensor q = l2_normalised(split_heads(mapped("attn_q"), kv_heads, group));
  const Tensor k = l2_normalised(keys(mapped("attn_k")));
  const Tensor beta = at::sigmoid(weights.linear("attn_beta", x)).transpose(1, 2);
  const Tensor step = at::softplus(weights.linear("attn_decay", x) + weights["attn_dt_bias.weight"]);
  const Tensor log_decay = (-weights["attn_a_log.weight"].exp() * step).transpose(1, 2);
  Tensor out = gated_delta_rule(q, k, keys(weights.linear("attn_v", x)), log_decay, beta, mixer_scale(mixer));
  if (mixer.out_norm) out = norm(config, out, weights["attn_out_norm.weight"]);
  return weights.linear("attn_output", join_heads(out));
}

}  // namespace mneme::train
