#include "train/blocks/recompute.h"

namespace mneme::train {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

struct Body : torch::CustomClassHolder {
  std::function<Tensor(const Tensor&)> run;
  std::vector<Tensor> others;
};

class Recomputed : public torch::autograd::Function<Recomputed> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x, at::TensorList others,
                        const std::function<Tensor(const Tensor&)>& run) {
    auto body = c10::make_intrusive<Body>();
    body->run = run;
    body->others = others.vec();
    ctx->saved_data["body"] = c10::IValue::make_capsule(body);
    ctx->save_for_backward({x});
    return run(x);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto capsule = ctx->saved_data["body"].toCapsule();
    const auto& body = static_cast<const Body&>(*capsule);
    const at::AutoGradMode with_grad(true);
    const Tensor saved = ctx->get_saved_variables()[0];
    const Tensor x = saved.detach().requires_grad_(true);
    std::vector<Tensor> inputs{x};
    inputs.insert(inputs.end(), body.others.begin(), body.others.end());
    variable_list out =
        torch::autograd::grad({body.run(x)}, inputs, {grads[0]}, /*retain_graph=*/c10::nullopt,
                              /*create_graph=*/false, /*allow_unused=*/true);
    out.emplace_back();  // of `run`
    return out;
  }
};

}  // namespace

Tensor recomputed(std::function<Tensor(const Tensor&)> body, const Tensor& x,
                  const std::vector<Tensor>& others) {
  if (!at::GradMode::is_enabled()) return body(x);
  return Recomputed::apply(x, at::TensorList(others), body);
}

}  // namespace mneme::train
