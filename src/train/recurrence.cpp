#include "train/recurrence.h"

#include "core/fail.h"

namespace mneme::train {
namespace {

void check(const Tensor& q, const Tensor& k, const Tensor& v) {
  require(
      q.dim() == 5 && k.dim() == 4 && v.dim() == 4 && q.size(0) == k.size(0) && q.size(1) == k.size(1) &&
          q.size(3) == k.size(2) && q.size(4) == k.size(3) && v.size(0) == k.size(0) &&
          v.size(1) == k.size(1) && v.size(2) == k.size(2),
      ErrorCode::invalid_argument,
      "recurrence: q [batch, kv_heads, group, length, dim], k and v [batch, kv_heads, length, dim] do not "
      "belong together");
}

}  // namespace

Tensor gated_linear_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& log_decay,
                              double scale) {
  check(q, k, v);
  require(log_decay.sizes() == k.sizes(), ErrorCode::invalid_argument,
          "gated_linear_attention: log_decay must have the shape of k");
  return gated_linear_attention_reference(q, k, v, log_decay, scale);
}

Tensor gated_delta_rule(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& log_decay,
                        const Tensor& beta, double scale) {
  check(q, k, v);
  require(log_decay.sizes() == k.sizes().slice(0, 3) && beta.sizes() == k.sizes().slice(0, 3),
          ErrorCode::invalid_argument,
          "gated_delta_rule: log_decay and beta must be [batch, kv_heads, length] as k");
  return gated_delta_rule_reference(q, k, v, log_decay, beta, scale);
}

}  // namespace mneme::train
