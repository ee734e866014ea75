#include "train/ops/recurrence.h"

#include "core/fail.h"
#include "train/ops/recurrence_kernels.h"

namespace mneme::train {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

void check(const Tensor& q, const Tensor& k, const Tensor& v) {
  require(
      q.dim() == 5 && k.dim() == 4 && v.dim() == 4 && q.size(0) == k.size(0) && q.size(1) == k.size(1) &&
          q.size(3) == k.size(2) && q.size(4) == k.size(3) && v.size(0) == k.size(0) &&
          v.size(1) == k.size(1) && v.size(2) == k.size(2),
      ErrorCode::invalid_argument,
      "recurrence: q [batch, kv_heads, group, length, dim], k and v [batch, kv_heads, length, dim] do not "
      "belong together");
}

bool has_kernels(std::initializer_list<Tensor> inputs) {
  for (const Tensor& x : inputs)
    if (!x.device().is_cpu() || x.scalar_type() != at::kFloat || x.numel() == 0) return false;
  return true;
}

/// With values of the last dimension next to each other; other dimensions may lie anyhow.
Tensor with_rows(const Tensor& x) {
  return x.stride(-1) == 1 ? x : x.contiguous();
}

/// An empty [batch, kv_heads, ..., length, dim] that lies in memory as [batch, length, kv_heads, ..., dim],
/// so that joining heads afterwards, or splitting them before, costs no copy.
Tensor empty_by_token(at::IntArrayRef sizes, const at::TensorOptions& options) {
  if (sizes.size() == 3) return at::empty({sizes[0], sizes[2], sizes[1]}, options).permute({0, 2, 1});
  if (sizes.size() == 4)
    return at::empty({sizes[0], sizes[2], sizes[1], sizes[3]}, options).permute({0, 2, 1, 3});
  return at::empty({sizes[0], sizes[3], sizes[1], sizes[2], sizes[4]}, options).permute({0, 2, 3, 1, 4});
}

/// A key-value head of x [batch, kv_heads, length(, dim)] or, its first query head, [batch, kv_heads, group,
/// length, dim].
template <class AnyRows>
AnyRows rows_of(const Tensor& x, int64_t batch, int64_t kv_head) {
  const int64_t length = x.dim() == 5 ? 3 : 2;
  return {x.data_ptr<float>() + batch * x.stride(0) + kv_head * x.stride(1), x.stride(length)};
}

/// Inputs of either rule; beta is undefined for gla.
struct Inputs {
  Tensor q, k, v, log_decay, beta;
  double scale;

  RecurrenceHead head(int64_t batch, int64_t kv_head) const {
    RecurrenceHead out;
    out.delta = beta.defined();
    out.length = k.size(2);
    out.group = q.size(2);
    out.k_dim = k.size(3);
    out.v_dim = v.size(3);
    out.scale = static_cast<float>(scale);
    out.q = rows_of<ConstRows>(q, batch, kv_head);
    out.q_head = q.stride(2);
    out.k = rows_of<ConstRows>(k, batch, kv_head);
    out.v = rows_of<ConstRows>(v, batch, kv_head);
    out.log_decay = rows_of<ConstRows>(log_decay, batch, kv_head);
    if (out.delta) out.beta = rows_of<ConstRows>(beta, batch, kv_head);
    return out;
  }

  /// f(batch, kv head) for all heads, over threads. Heads do not meet, so results do not depend on threads.
  template <class F>
  void for_heads(const F& f) const {
    const int64_t kv_heads = k.size(1);
    at::parallel_for(0, k.size(0) * kv_heads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) f(i / kv_heads, i % kv_heads);
    });
  }

  /// `unseen` [batch, kv_heads, length, dim], delta only: see recurrence_kernels.h.
  Tensor forward(const Tensor& unseen) const {
    std::vector<int64_t> sizes = q.sizes().vec();
    sizes.back() = v.size(3);
    const Tensor out = empty_by_token(sizes, q.options());
    for_heads([&](int64_t batch, int64_t kv_head) {
      recurrence_forward(head(batch, kv_head), rows_of<Rows>(out, batch, kv_head), out.stride(2),
                         unseen.defined() ? rows_of<Rows>(unseen, batch, kv_head).data : nullptr);
    });
    return out;
  }

  variable_list backward(const Tensor& unseen, const Tensor& grad) const {
    const Tensor upper = with_rows(grad);
    variable_list out;
    for (const Tensor& x : {q, k, v, log_decay}) out.push_back(empty_by_token(x.sizes(), x.options()));
    if (beta.defined()) out.push_back(empty_by_token(beta.sizes(), beta.options()));
    for_heads([&](int64_t batch, int64_t kv_head) {
      RecurrenceGradients gradients;
      gradients.out = rows_of<ConstRows>(upper, batch, kv_head);
      gradients.out_head = upper.stride(2);
      gradients.q = rows_of<Rows>(out[0], batch, kv_head);
      gradients.q_head = out[0].stride(2);
      gradients.k = rows_of<Rows>(out[1], batch, kv_head);
      gradients.v = rows_of<Rows>(out[2], batch, kv_head);
      gradients.log_decay = rows_of<Rows>(out[3], batch, kv_head);
      if (beta.defined()) gradients.beta = rows_of<Rows>(out[4], batch, kv_head);
      recurrence_backward(head(batch, kv_head),
                          unseen.defined() ? rows_of<ConstRows>(unseen, batch, kv_head).data : nullptr,
                          gradients);
    });
    return out;
  }
};

class GatedLinearAttention : public torch::autograd::Function<GatedLinearAttention> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& q, const Tensor& k, const Tensor& v,
                        const Tensor& log_decay, double scale) {
    const Inputs inputs{with_rows(q), with_rows(k), with_rows(v), with_rows(log_decay), {}, scale};
    ctx->save_for_backward({inputs.q, inputs.k, inputs.v, inputs.log_decay});
    ctx->saved_data["scale"] = scale;
    return inputs.forward({});
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Inputs inputs{saved[0], saved[1], saved[2], saved[3], {}, ctx->saved_data["scale"].toDouble()};
    variable_list out = inputs.backward({}, grads[0]);
    out.emplace_back();
    return out;
  }
};

class GatedDeltaRule : public torch::autograd::Function<GatedDeltaRule> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& q, const Tensor& k, const Tensor& v,
                        const Tensor& log_decay, const Tensor& beta, double scale) {
    const Inputs inputs{with_rows(q), with_rows(k), with_rows(v), log_decay, beta, scale};
    const Tensor unseen = at::empty(v.sizes(), v.options());
    ctx->save_for_backward({inputs.q, inputs.k, inputs.v, log_decay, beta, unseen});
    ctx->saved_data["scale"] = scale;
    return inputs.forward(unseen);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Inputs inputs{saved[0], saved[1], saved[2],
                        saved[3], saved[4], ctx->saved_data["scale"].toDouble()};
    variable_list out = inputs.backward(saved[5], grads[0]);
    out.emplace_back();
    return out;
  }
};

}  // namespace

Tensor gated_linear_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& log_decay,
                              double scale) {
  check(q, k, v);
  require(log_decay.sizes() == k.sizes(), ErrorCode::invalid_argument,
          "gated_linear_attention: log_decay must have the shape of k");
  if (!has_kernels({q, k, v, log_decay})) return gated_linear_attention_reference(q, k, v, log_decay, scale);
  return GatedLinearAttention::apply(q, k, v, log_decay, scale);
}

Tensor gated_delta_rule(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& log_decay,
                        const Tensor& beta, double scale) {
  check(q, k, v);
  require(log_decay.sizes() == k.sizes().slice(0, 3) && beta.sizes() == k.sizes().slice(0, 3),
          ErrorCode::invalid_argument,
          "gated_delta_rule: log_decay and beta must be [batch, kv_heads, length] as k");
  if (!has_kernels({q, k, v, log_decay, beta}))
    return gated_delta_rule_reference(q, k, v, log_decay, beta, scale);
  return GatedDeltaRule::apply(q, k, v, log_decay, beta, scale);
}

}  // namespace mneme::train
