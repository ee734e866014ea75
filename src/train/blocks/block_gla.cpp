// Gated linear attention: S <- diag(e^a) S + k v^T, o = scale S^T q (arXiv 2312.06635), with the gates and
// feature maps of docs/config.md. Log-decays stay logarithms here, unlike in the engine: their gradient is
// that of a sum.
#include "core/fail.h"
#include "train/blocks/blocks.h"
#include "train/ops/recurrence.h"

namespace mneme::train {
namespace {

/// a [batch, positions, kv_heads * head_dim], at most 0; `k` are the keys before their feature map.
Tensor log_decay(const MixerConfig& mixer, const Weights& weights, const Tensor& x, const Tensor& k) {
  switch (mixer.gate) {
    case GateType::tied:  // log(1 - sigmoid(k))
      return at::log_sigmoid(-k);
    case GateType::low_rank:
      return at::log_sigmoid(weights.linear("attn_gate_b", weights.linear("attn_gate_a", x))) /
             mixer.gate_normalizer;
    case GateType::matrix:
      return at::log_sigmoid(weights.linear("attn_gate_a", x)) / mixer.gate_normalizer;
  }
  fail(ErrorCode::unsupported, "a gate of type number {} cannot be trained", static_cast<int>(mixer.gate));
}

}  // namespace

Tensor gla_mixer(const ModelConfig& config, const MixerConfig& mixer, const Weights& weights,
                 const Tensor& x) {
  const int64_t kv_heads = mixer.kv_heads, group = mixer.heads / mixer.kv_heads;
  const auto keys = [&](const Tensor& t) { return split_heads(t, kv_heads, 1).select(2, 0); };
  const Tensor q = feature_map(mixer.feature, weights.linear("attn_q", x));
  const Tensor raw_k = weights.linear("attn_k", x), k = feature_map(mixer.feature, raw_k);
  const Tensor decay = log_decay(mixer, weights, x, raw_k);
  Tensor out = gated_linear_attention(split_heads(q, kv_heads, group), keys(k),
                                      keys(weights.linear("attn_v", x)), keys(decay), mixer_scale(mixer));
  if (mixer.out_norm) out = norm(config, out, weights["attn_out_norm.weight"]);
  return weights.linear("attn_output", join_heads(out));
}

}  // namespace mneme::train
