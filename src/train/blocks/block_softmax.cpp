// Softmax attention: projections, head norms, RoPE, and which keys a query sees. The choice of blocks of a
// sparse mixer is made here and is no part of the gradient (MoBA, arXiv 2502.13189: keys and values of chosen
// blocks get gradients, the scores that chose do not).
#include "core/fail.h"
#include "model/activation_policy.h"
#include "simd/attention.h"
#include "train/blocks/blocks.h"
#include "train/blocks/softmax_attention.h"
#include "train/ops/fused.h"
#include "train/ops/spikes.h"

namespace mneme::train {
namespace {

/// Heads after norm and rotation: x [batch, positions, heads * head_dim] -> [batch, heads, positions,
/// head_dim].
Tensor prepare_heads(const ModelConfig& config, const MixerConfig& mixer, const Tensor& x, int64_t heads,
                     const Tensor& head_norm, const PassContext& context) {
  const bool together = mixer.qk_norm_over == QkNormOver::all;
  Tensor out = head_norm.defined() && together ? norm(config, x, head_norm) : x;
  out = out.view({x.size(0), x.size(1), heads, mixer.head_dim});
  if (head_norm.defined() && !together) out = norm(config, out, head_norm);
  out = out.transpose(1, 2);
  const PassContext::Rotation& turn =
      context.rotation(mixer.rope ? *mixer.rope : config.rope, mixer.head_dim, x.size(1), x);
  return turn.cos.size(1) == 0 ? out : rotate(out, turn.cos, turn.sin, turn.half);
}

// To whole numbers of steps, one step a head; the gradient goes straight through (SpikingBrain, arXiv
// 2509.05276, section 3.3).
Tensor rounded_through(const Tensor& x, const Tensor& steps) {
  return x + (at::round(x / steps) * steps - x).detach();
}

// What an int8 cache makes of keys or values [..., head_dim].
Tensor int8_heads(const Tensor& x) {
  return rounded_through(x, at::clamp_min(x.detach().abs().amax(-1, true) / 127, kLeastKvScale));
}

Visibility visibility(const MixerConfig& mixer, const PassContext& context) {
  Visibility out;
  out.sink_tokens = context.sink_tokens();
  out.sinks = out.sink_tokens + mixer.sinks;
  if (mixer.type == MixerType::window)
    out.window = int64_t{mixer.window} + (mixer.edge == WindowEdge::exact ? 0 : 1);
  return out;
}

Tensor blocks_of_pass(const MixerConfig& mixer, const Tensor& q, const Tensor& k,
                      const PassContext& context) {
  Tensor chosen;
  if (const Choices* forced = context.options().forced) {
    const auto found = forced->blocks.find(context.mixer());
    require(found != forced->blocks.end() && found->second.dim() == 4 && found->second.size(0) == q.size(0) &&
                found->second.size(1) == q.size(1) * q.size(2) && found->second.size(2) == q.size(3),
            ErrorCode::invalid_argument, "there are no forced choices for the sparse mixer {} of this batch",
            context.mixer());
    chosen = found->second;
  } else {
    chosen = choose_blocks(mixer, q, k, context.sink_tokens());
  }
  if (Choices* record = context.options().record) record->blocks[context.mixer()] = chosen;
  return chosen;
}

}  // namespace

Tensor choose_blocks(const MixerConfig& mixer, const Tensor& q5, const Tensor& k4, int64_t sink_tokens) {
  const at::NoGradGuard no_grad;
  const Tensor k = k4.detach(), q = mixer.shared ? q5.detach().sum(2, true) : q5.detach();
  const int64_t positions = q.size(3), block = mixer.block, wanted = int64_t{mixer.top_k} - 1;
  const int64_t complete = (positions - 1) / block;  // blocks that lie wholly before some query's own
  const int64_t found = std::min(wanted, complete);
  const auto index = at::TensorOptions().dtype(at::kLong).device(q.device());
  const Tensor position = at::arange(positions, index).unsqueeze(1);
  const Tensor own = at::div(position, block, "floor");
  std::vector<int64_t> shape = q.sizes().vec();
  shape.back() = 1;
  std::vector<Tensor> parts;
  if (found > 0) {
    const Tensor means = k.narrow(2, 0, complete * block)
                             .reshape({k.size(0), k.size(1), complete, block, k.size(3)})
                             .mean(3)
                             .unsqueeze(2);
    Tensor scores = at::matmul(q * mixer_scale(mixer), means.transpose(3, 4));
    const Tensor later = at::arange(complete, index).ge(own);
    scores.masked_fill_(later, -std::numeric_limits<double>::infinity());
    // Stable: of equals, the first.
    auto [sorted, order] = at::sort(scores, c10::optional<bool>(true), -1, true);
    Tensor best = order.narrow(4, 0, found).clone();
    best.masked_fill_(at::arange(found, index).ge(own), -1);
    parts.push_back(best);
  }
  parts.push_back(own.expand(shape));
  Tensor chosen = at::cat(parts, 4);
  if (found < wanted) chosen = at::constant_pad_nd(chosen, {wanted - found, 0}, -1);
  if (sink_tokens > 0) chosen.narrow(3, 0, std::min(sink_tokens, positions)).fill_(-1);
  chosen = std::get<0>(at::sort(chosen, -1));
  shape = q5.sizes().vec();
  shape.back() = mixer.top_k;
  return chosen.expand(shape).reshape({q5.size(0), q5.size(1) * q5.size(2), positions, shape.back()});
}

Tensor softmax_mixer(const ModelConfig& config, const MixerConfig& mixer, const Weights& weights,
                     const Tensor& x, const PassContext& context) {
  const int64_t kv_heads = mixer.kv_heads, group = mixer.heads / mixer.kv_heads;
  const Tensor q_norm = mixer.qk_norm ? weights["attn_q_norm.weight"] : Tensor();
  const Tensor k_norm = mixer.qk_norm ? weights["attn_k_norm.weight"] : Tensor();
  Tensor q = prepare_heads(config, mixer, weights.linear("attn_q", x), mixer.heads, q_norm, context)
                 .unflatten(1, {kv_heads, group});
  if (mixer.query.type == Activation::spike) q = spiked_queries(q, neuron_of(mixer.query));
  Tensor k = prepare_heads(config, mixer, weights.linear("attn_k", x), kv_heads, k_norm, context);
  Tensor v =
      weights.linear("attn_v", x).view({x.size(0), x.size(1), kv_heads, mixer.head_dim}).transpose(1, 2);
  if (mixer.kv_int8) {
    k = int8_heads(k);
    v = int8_heads(v);
  }
  Visibility visible = visibility(mixer, context);
  if (mixer.type == MixerType::sparse) {
    visible.block = mixer.block;
    visible.blocks = blocks_of_pass(mixer, q, k, context);
  }
  const Tensor sinks = mixer.sink_logits ? weights["attn_sinks.weight"] : Tensor();
  const AttentionOptions options{mixer_scale(mixer), mixer.softcap, context.options().bfloat16};
  return weights.linear("attn_output",
                        join_heads(softmax_attention(q, k, v.contiguous(), sinks, visible, options)));
}

}  // namespace mneme::train
