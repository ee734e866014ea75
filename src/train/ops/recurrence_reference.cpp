// The recurrences of recurrence.h written as they are defined, token after token, for autograd to
// differentiate: the specification of the fast forms, and their fallback for other types and devices.
#include <vector>

#include "train/ops/recurrence.h"

namespace mneme::train {
namespace {

Tensor read(const Tensor& q, const Tensor& state, int64_t t) {  // [batch, kv_heads, group, dim of v]
  return at::matmul(q.select(3, t), state);
}

Tensor start(const Tensor& k, const Tensor& v) {
  return at::zeros({k.size(0), k.size(1), k.size(3), v.size(3)}, k.options());
}

}  // namespace

Tensor gated_linear_attention_reference(const Tensor& q, const Tensor& k, const Tensor& v,
                                        const Tensor& log_decay, double scale) {
  Tensor state = start(k, v);
  const Tensor decay = log_decay.exp();
  std::vector<Tensor> out;
  for (int64_t t = 0; t < k.size(2); ++t) {
    state = decay.select(2, t).unsqueeze(-1) * state +
            k.select(2, t).unsqueeze(-1) * v.select(2, t).unsqueeze(-2);
    out.push_back(read(q, state, t) * scale);
  }
  return at::stack(out, 3);
}

Tensor gated_delta_rule_reference(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& log_decay,
                                  const Tensor& beta, double scale) {
  Tensor state = start(k, v);
  const Tensor decay = log_decay.exp();
  std::vector<Tensor> out;
  for (int64_t t = 0; t < k.size(2); ++t) {
    const Tensor key = k.select(2, t).unsqueeze(-1);  // [batch, kv_heads, dim, 1]
    state = decay.select(2, t).unsqueeze(-1).unsqueeze(-1) * state;
    const Tensor seen = at::matmul(key.transpose(-1, -2), state).squeeze(-2);
    const Tensor u = beta.select(2, t).unsqueeze(-1) * (v.select(2, t) - seen);
    state = state + key * u.unsqueeze(-2);
    out.push_back(read(q, state, t) * scale);
  }
  return at::stack(out, 3);
}

}  // namespace mneme::train
