#include "train/ops/fused.h"

#include <algorithm>
#include <vector>

#include "core/fail.h"
#include "train/ops/fused_kernels.h"

namespace mneme::train {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kRowsAtOnce = 64;       // a block of rows whose weight gradients are one sum
constexpr int64_t kValuesAtOnce = 16384;  // element by element: the least that is worth a thread

bool has_kernels(std::initializer_list<Tensor> inputs) {
  for (const Tensor& x : inputs)
    if (!x.device().is_cpu() || x.scalar_type() != at::kFloat || x.numel() == 0) return false;
  return true;
}

/// Values without gaps, rows of the last dimension in one piece; the other dimensions in any order.
Tensor dense_rows(const Tensor& x) {
  return x.is_non_overlapping_and_dense() && (x.stride(-1) == 1 || x.size(-1) == 1) ? x : x.contiguous();
}

/// With the strides of `model`, which is dense.
Tensor lying_as(const Tensor& x, const Tensor& model) {
  if (x.strides() == model.strides()) return x;
  Tensor out = at::empty_strided(model.sizes(), model.strides(), model.options());
  out.copy_(x);
  return out;
}
Tensor empty_as(const Tensor& model) {
  return at::empty_strided(model.sizes(), model.strides(), model.options());
}

class RmsNorm : public torch::autograd::Function<RmsNorm> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& any, const Tensor& weight, double eps,
                        double offset) {
    const Tensor x = dense_rows(any), w = weight.contiguous(), out = empty_as(x);
    const int64_t n = x.size(-1), rows = x.numel() / n;
    const Tensor factors = at::empty({rows}, x.options());
    at::parallel_for(0, rows, kRowsAtOnce, [&](int64_t begin, int64_t end) {
      rms_norm_rows(x.data_ptr<float>() + begin * n, w.data_ptr<float>(), static_cast<float>(eps),
                    static_cast<float>(offset), end - begin, n, out.data_ptr<float>() + begin * n,
                    factors.data_ptr<float>() + begin);
    });
    ctx->save_for_backward({x, w, factors});
    ctx->saved_data["offset"] = offset;
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &w = saved[1], &factors = saved[2], upper = lying_as(grads[0], x);
    const auto offset = static_cast<float>(ctx->saved_data["offset"].toDouble());
    const int64_t n = x.size(-1), rows = x.numel() / n, blocks = (rows + kRowsAtOnce - 1) / kRowsAtOnce;
    const Tensor out = empty_as(x), parts = at::zeros({blocks, n}, w.options());
    at::parallel_for(0, blocks, 1, [&](int64_t first, int64_t last) {
      for (int64_t block = first; block < last; ++block) {
        const int64_t begin = block * kRowsAtOnce, count = std::min(kRowsAtOnce, rows - begin);
        rms_norm_rows_back(x.data_ptr<float>() + begin * n, w.data_ptr<float>(),
                           factors.data_ptr<float>() + begin, upper.data_ptr<float>() + begin * n, offset,
                           count, n, out.data_ptr<float>() + begin * n, parts.data_ptr<float>() + block * n);
      }
    });
    return {out, parts.sum(0), {}, {}};
  }
};

class SiluTimes : public torch::autograd::Function<SiluTimes> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& any, const Tensor& up) {
    const Tensor gate = dense_rows(any), other = lying_as(up, gate), out = empty_as(gate);
    at::parallel_for(0, gate.numel(), kValuesAtOnce, [&](int64_t begin, int64_t end) {
      silu_times_n(gate.data_ptr<float>() + begin, other.data_ptr<float>() + begin, end - begin,
                   out.data_ptr<float>() + begin);
    });
    ctx->save_for_backward({gate, other});
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &gate = saved[0], &up = saved[1], upper = lying_as(grads[0], gate);
    const Tensor dgate = empty_as(gate), dup = empty_as(gate);
    at::parallel_for(0, gate.numel(), kValuesAtOnce, [&](int64_t begin, int64_t end) {
      silu_times_back_n(gate.data_ptr<float>() + begin, up.data_ptr<float>() + begin,
                        upper.data_ptr<float>() + begin, end - begin, dgate.data_ptr<float>() + begin,
                        dup.data_ptr<float>() + begin);
    });
    return {dgate, dup};
  }
};

/// Every row of x [batch, heads, length, dim] turned by the angles of its place; lies as x.
Tensor turned(const Tensor& any, const Tensor& cos, const Tensor& sin, float sign, bool half) {
  const Tensor x = dense_rows(any), out = empty_as(x);
  const int64_t length = x.size(2), dim = x.size(3), pairs = cos.size(1);
  at::parallel_for(0, x.size(0) * length, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t batch = i / length, t = i % length;
      for (int64_t h = 0; h < x.size(1); ++h) {
        const int64_t at = batch * x.stride(0) + h * x.stride(1) + t * x.stride(2);
        rotate_row(x.data_ptr<float>() + at, cos.data_ptr<float>() + t * pairs,
                   sin.data_ptr<float>() + t * pairs, sign, pairs, dim, half, out.data_ptr<float>() + at);
      }
    }
  });
  return out;
}

class Rotate : public torch::autograd::Function<Rotate> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& cos, const Tensor& sin,
                        bool half) {
    ctx->save_for_backward({cos, sin});
    ctx->saved_data["half"] = half;
    return turned(x, cos, sin, 1.0f, half);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    return {turned(grads[0], saved[0], saved[1], -1.0f, ctx->saved_data["half"].toBool()), {}, {}, {}};
  }
};

/// The same by libtorch's own operations.
Tensor plain_rotate(const Tensor& x, const Tensor& cos, const Tensor& sin, bool half) {
  const int64_t pairs = cos.size(1);
  const Tensor moving = x.narrow(-1, 0, 2 * pairs), rest = x.narrow(-1, 2 * pairs, x.size(3) - 2 * pairs);
  std::vector<int64_t> shape = moving.sizes().vec();
  shape.back() = half ? 2 : pairs;
  shape.push_back(half ? pairs : 2);
  const int64_t axis = half ? -2 : -1;
  const Tensor paired = moving.reshape(shape);
  const Tensor a = paired.select(axis, 0), b = paired.select(axis, 1);
  const Tensor out = at::stack({a * cos - b * sin, a * sin + b * cos}, axis).reshape(moving.sizes());
  return at::cat({out, rest}, -1);
}

}  // namespace

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps, double offset) {
  require(weight.dim() == 1 && x.dim() >= 1 && x.size(-1) == weight.size(0), ErrorCode::invalid_argument,
          "rms_norm: the weight must be [n] for x [..., n]");
  if (has_kernels({x, weight})) return RmsNorm::apply(x, weight, eps, offset);
  const Tensor normed = x * (x.square().mean(-1, true) + eps).rsqrt();
  return normed * (offset == 0 ? weight : weight + offset);
}

Tensor silu_times(const Tensor& gate, const Tensor& up) {
  require(gate.sizes() == up.sizes(), ErrorCode::invalid_argument, "silu_times: gate and up differ in shape");
  if (gate.dim() > 0 && has_kernels({gate, up})) return SiluTimes::apply(gate, up);
  return at::silu(gate) * up;
}

Tensor rotate(const Tensor& x, const Tensor& cos, const Tensor& sin, bool half) {
  require(x.dim() == 4 && cos.sizes() == sin.sizes() && cos.dim() == 2 && cos.size(0) == x.size(2) &&
              2 * cos.size(1) <= x.size(3),
          ErrorCode::invalid_argument,
          "rotate: cos and sin must be [length, pairs] for x [batch, heads, length, head_dim >= 2 pairs]");
  if (has_kernels({x, cos, sin}) && cos.is_contiguous() && sin.is_contiguous())
    return Rotate::apply(x, cos, sin, half);
  return plain_rotate(x, cos, sin, half);
}

}  // namespace mneme::train
