#include "train/ops/products.h"

#include <algorithm>
#include <oneapi/dnnl/dnnl.hpp>

#include "core/fail.h"

namespace mneme::train {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

bool on_cpu(const Tensor& x) {
  return x.device().is_cpu() && x.scalar_type() == at::kFloat;
}

/// A matrix as BLAS wants it: rows `step` apart, or the transposed of one.
struct Factor {
  explicit Factor(const Tensor& x) : held(x) {
    const bool row_major = x.stride(1) == 1 || x.size(1) == 1,
               column_major = x.stride(0) == 1 || x.size(0) == 1;
    if (row_major && (x.stride(0) >= x.size(1) || x.size(0) == 1)) {
      step = std::max(x.stride(0), x.size(1));
    } else if (column_major && (x.stride(1) >= x.size(0) || x.size(1) == 1)) {
      transposed = 'T';
      step = std::max(x.stride(1), x.size(0));
    } else {
      held = x.contiguous();
      step = x.size(1);
    }
  }
  const float* data() const { return held.data_ptr<float>(); }
  Tensor held;
  char transposed = 'N';
  int64_t step = 0;
};

dnnl::memory memory_of(const Tensor& x, dnnl::memory::data_type type, const dnnl::engine& engine) {
  return {dnnl::memory::desc(x.sizes().vec(), type, x.strides().vec()), engine, x.data_ptr()};
}

/// out (+)= a b of f32 matrices, 2 dimensions, or as many matrices as the first of 3 says, divided among
/// threads.
void multiply_floats(const Tensor& a, const Tensor& b, const Tensor& out, bool sum) {
  const float beta = sum ? 1.0f : 0.0f;
  if (a.dim() == 2) {
    multiply_into(a, b, out, 1.0f, beta);
    return;
  }
  at::parallel_for(0, a.size(0), 1, [&](int64_t begin, int64_t end) {
    const at::NoGradGuard no_grad;
    for (int64_t i = begin; i < end; ++i)
      multiply_into(a.select(0, i), b.select(0, i), out.select(0, i), 1.0f, beta);
  });
}

/// a b in f32 of bf16 factors with equally many dimensions, 2 or 3. `sum`: added to out instead. Where bf16
/// has no kernels the factors are widened, which changes no product: slower than f32, never wrong.
void multiply_rounded(const Tensor& a, const Tensor& b, const Tensor& out, bool sum) {
  if (out.numel() == 0) return;
  if (a.numel() == 0) {
    if (!sum) out.zero_();
    return;
  }
  if (!has_bf16_kernels()) {
    multiply_floats(a.to(at::kFloat), b.to(at::kFloat), out, sum);
    return;
  }
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  using Type = dnnl::memory::data_type;
  const auto x = memory_of(a, Type::bf16, engine), y = memory_of(b, Type::bf16, engine),
             z = memory_of(out, Type::f32, engine);
  dnnl::primitive_attr attributes;
  if (sum) {
    dnnl::post_ops after;
    after.append_sum(1.0f);
    attributes.set_post_ops(after);
  }
  const dnnl::matmul::primitive_desc description({x.get_desc(), y.get_desc(), z.get_desc()}, attributes,
                                                 engine);
  dnnl::matmul(description).execute(stream, {{DNNL_ARG_SRC, x}, {DNNL_ARG_WEIGHTS, y}, {DNNL_ARG_DST, z}});
  stream.wait();
}

/// out (+)= a b of f32 or bf16 matrices, as multiply_floats().
void multiply(const Tensor& a, const Tensor& b, const Tensor& out, bool sum) {
  if (a.scalar_type() == at::kBFloat16)
    multiply_rounded(a, b, out, sum);
  else
    multiply_floats(a, b, out, sum);
}

Tensor rounded(const Tensor& x, bool bfloat16) {
  return bfloat16 ? x.to(at::kBFloat16) : x;
}

Tensor as_matrix(const Tensor& x) {
  return x.reshape({-1, x.size(-1)});
}

Tensor with_last(const Tensor& x, const Tensor& shape_of) {
  std::vector<int64_t> sizes = shape_of.sizes().vec();
  sizes.back() = x.size(-1);
  return x.view(sizes);
}

/// What one call of products() multiplies. inputs: x, the weights, the biases that there are.
struct Plan {
  std::vector<bool> has_bias;  // a weight
  bool bfloat16 = false;
  bool for_x = false;  // the gradient of x is wanted
};

class Products : public torch::autograd::Function<Products> {
 public:
  static variable_list forward(AutogradContext* ctx, at::TensorList inputs, const Plan& plan) {
    const Tensor &x = inputs[0], factor = rounded(as_matrix(x), plan.bfloat16);
    const size_t weights = plan.has_bias.size();
    variable_list saved = {factor}, out;
    size_t bias = 1 + weights;
    for (size_t i = 0; i < weights; ++i) {
      const Tensor& weight = inputs[1 + i];
      const Tensor y = at::empty({factor.size(0), weight.size(0)}, x.options());
      if (plan.has_bias[i]) y.copy_(inputs[bias++].expand_as(y));
      multiply(factor, rounded(weight, plan.bfloat16).t(), y, plan.has_bias[i]);
      out.push_back(with_last(y, x));
      saved.push_back(weight);
    }
    ctx->save_for_backward(saved);
    ctx->saved_data["sizes"] = x.sizes().vec();
    ctx->saved_data["bfloat16"] = plan.bfloat16;
    ctx->saved_data["for_x"] = plan.for_x;
    c10::List<bool> has_bias;
    for (const bool one : plan.has_bias) has_bias.push_back(one);
    ctx->saved_data["has_bias"] = has_bias;
    ctx->set_materialize_grads(false);
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const bool bfloat16 = ctx->saved_data["bfloat16"].toBool(), for_x = ctx->saved_data["for_x"].toBool();
    const c10::List<bool> has_bias = ctx->saved_data["has_bias"].toBoolList();
    const Tensor& factor = saved[0];
    Tensor of_x;
    variable_list of_weights, of_biases;
    for (size_t i = 0; i + 1 < saved.size(); ++i) {
      const Tensor& weight = saved[i + 1];
      Tensor of_weight, of_bias;
      if (grads[i].defined()) {
        const Tensor plain = as_matrix(grads[i]), upper = rounded(plain, bfloat16);
        if (for_x) {
          const bool sum = of_x.defined();
          if (!sum) of_x = at::empty({factor.size(0), factor.size(1)}, plain.options());
          multiply(upper, rounded(weight, bfloat16), of_x, sum);
        }
        if (weight.requires_grad()) {
          of_weight = at::empty(weight.sizes(), plain.options());
          multiply(upper.t(), factor, of_weight, false);
        }
        if (has_bias[i]) of_bias = plain.sum(0);
      }
      of_weights.push_back(of_weight);
      if (has_bias[i]) of_biases.push_back(of_bias);
    }
    variable_list out = {of_x.defined() ? of_x.view(ctx->saved_data["sizes"].toIntVector()) : of_x};
    out.insert(out.end(), of_weights.begin(), of_weights.end());
    out.insert(out.end(), of_biases.begin(), of_biases.end());
    out.emplace_back();
    return out;
  }
};

void check(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  require(weight.dim() == 2 && x.dim() >= 1 && x.size(-1) == weight.size(1) &&
              (!bias.defined() || (bias.dim() == 1 && bias.size(0) == weight.size(0))),
          ErrorCode::invalid_argument, "product: weight [out, in] and bias [out] for x [..., in]");
}

/// The same by libtorch alone, for other types and devices.
Tensor plain_product(const Tensor& x, const Tensor& weight, const Tensor& bias, bool bfloat16) {
  if (!bfloat16) return at::linear(x, weight, bias);
  const Tensor out = at::matmul(rounded(x, true), rounded(weight, true).t()).to(x.scalar_type());
  return bias.defined() ? out + bias : out;
}

}  // namespace

std::vector<Tensor> products(const Tensor& x, const std::vector<Tensor>& weights,
                             const std::vector<Tensor>& biases, bool bfloat16) {
  require(!weights.empty() && weights.size() == biases.size(), ErrorCode::invalid_argument,
          "products: there must be as many biases as weights, at least one");
  variable_list inputs = {x};
  Plan plan{{}, bfloat16, x.requires_grad() && at::GradMode::is_enabled()};
  bool fast = on_cpu(x);
  for (size_t i = 0; i < weights.size(); ++i) {
    check(x, weights[i], biases[i]);
    fast = fast && on_cpu(weights[i]) && (!biases[i].defined() || on_cpu(biases[i]));
    inputs.push_back(weights[i]);
    plan.has_bias.push_back(biases[i].defined());
  }
  if (!fast) {
    variable_list out;
    for (size_t i = 0; i < weights.size(); ++i)
      out.push_back(plain_product(x, weights[i], biases[i], bfloat16));
    return out;
  }
  for (const Tensor& bias : biases)
    if (bias.defined()) inputs.push_back(bias);
  return Products::apply(at::TensorList(inputs), plan);
}

bool has_bf16_kernels() {
  constexpr auto kLeast = static_cast<unsigned>(dnnl::cpu_isa::avx512_core);
  static const bool has = (static_cast<unsigned>(dnnl::get_effective_cpu_isa()) & kLeast) == kLeast;
  return has;
}

Tensor product(const Tensor& x, const Tensor& weight, const Tensor& bias, bool bfloat16) {
  return products(x, {weight}, {bias}, bfloat16)[0];
}

Tensor batched_product(const Tensor& a, const Tensor& b, bool bfloat16) {
  require(a.dim() == 3 && b.dim() == 3 && a.size(0) == b.size(0) && a.size(2) == b.size(1),
          ErrorCode::invalid_argument, "batched_product: a [n, rows, inner], b [n, inner, columns]");
  if (!on_cpu(a) || !on_cpu(b))
    return bfloat16 ? at::bmm(rounded(a, true), rounded(b, true)).to(a.scalar_type()) : at::bmm(a, b);
  Tensor out = at::empty({a.size(0), a.size(1), b.size(2)}, a.options());
  multiply(rounded(a, bfloat16), rounded(b, bfloat16), out, false);
  return out;
}

void multiply_into(const Tensor& a, const Tensor& b, const Tensor& c, float alpha, float beta) {
  const int64_t rows = a.size(0), inner = a.size(1), columns = b.size(1);
  require(
      b.size(0) == inner && c.size(0) == rows && c.size(1) == columns && (c.stride(1) == 1 || columns <= 1),
      ErrorCode::invalid_argument, "multiply_into: [{}, {}] times [{}, {}] is not [{}, {}]", rows, inner,
      b.size(0), columns, c.size(0), c.size(1));
  if (rows == 0 || columns == 0) return;
  if (inner == 0) {
    c.mul_(beta);
    return;
  }
  const Factor x(a), y(b);
  dnnl::sgemm(x.transposed, y.transposed, rows, columns, inner, alpha, x.data(), x.step, y.data(), y.step,
              beta, c.data_ptr<float>(), std::max(c.stride(0), columns));
}

}  // namespace mneme::train
