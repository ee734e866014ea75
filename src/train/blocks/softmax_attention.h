// Softmax attention over whole sequences with a backward of its own. Queries go by chunks of positions, each
// against the keys that it can see at all (a band, for windows), and the backward computes the probabilities
// again from queries and keys: memory grows with the length and not with its square.
#pragma once
#include <cstdint>

#include "train/tensor.h"

namespace mneme::train {

/// What a query at position i sees. Positions below `sink_tokens` see each other, in both directions, and
/// nothing else. Any other sees j <= i that is in its window (window > 0: the latest `window` keys, its own
/// included), in one of its chosen blocks (if `blocks` is defined), or below `sinks`.
struct Visibility {
  int64_t window = 0;
  int64_t sink_tokens = 0;
  int64_t sinks = 0;  // at least sink_tokens
  Tensor blocks;      // int64 [batch, heads, positions, any]: numbers of blocks, -1 for none
  int64_t block = 0;  // positions in a block
};

struct AttentionOptions {
  double scale = 1;       // of scores
  double softcap = 0;     // scores s become cap * tanh(s / cap); 0 = off
  bool bfloat16 = false;  // products in bf16
};

/// q [batch, kv_heads, group, positions, dim], k and v [batch, kv_heads, positions, dim]; sink_logits
/// [kv_heads
/// * group] or undefined: one more logit a head in the softmax, without a value. Any floating type. Returns
/// [batch, kv_heads, group, positions, dim]. Differentiable once in q, k, v and sink_logits.
Tensor softmax_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& sink_logits,
                         const Visibility& visible, const AttentionOptions& options);

}  // namespace mneme::train
