// Cross-entropy with its gradients in the forward pass: a slice of logits is computed, turned into gradients
// in place, multiplied into both factors' gradients and overwritten by the next slice. With a large
// vocabulary that saves the memory of all logits and three passes over it.
#include <algorithm>
#include <vector>

#include "core/fail.h"
#include "train/ops/fused.h"
#include "train/ops/fused_kernels.h"

namespace mneme::train {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kPlaces = 256;  // logits of so many places at a time

struct Slices {
  Tensor hidden, head, targets;
  double scale, cap;
  bool bfloat16;
  Tensor dhidden, dhead;  // undefined: no gradients

  /// Adds to the gradients of this slice, whose logits' gradients are `slope`.
  void add_gradients(int64_t begin, const Tensor& slope) const {
    const Tensor x = hidden.narrow(0, begin, slope.size(0)), to = dhidden.narrow(0, begin, slope.size(0));
    const auto alpha = static_cast<float>(scale);
    if (!bfloat16) {
      multiply_into(slope, head, to, alpha, 0);
      multiply_into(slope.t(), x, dhead, alpha, 1);
      return;
    }
    to.copy_(batched_product(slope.unsqueeze(0), head.unsqueeze(0), true).squeeze(0).mul_(scale));
    dhead.add_(batched_product(slope.t().unsqueeze(0), x.unsqueeze(0), true).squeeze(0), scale);
  }

  /// The mean loss. Sums in the order of places, whatever the number of threads.
  double run() const {
    const int64_t places = hidden.size(0), vocab = head.size(0);
    const int64_t* target = targets.data_ptr<int64_t>();
    const int64_t counted = std::count_if(target, target + places, [](int64_t t) { return t >= 0; });
    const float factor = dhidden.defined() && counted > 0 ? 1.0f / static_cast<float>(counted) : 0.0f;
    std::vector<float> losses(static_cast<size_t>(places));
    Tensor logits = at::empty({std::min(kPlaces, places), vocab}, hidden.options());
    for (int64_t begin = 0; begin < places; begin += kPlaces) {
      const int64_t count = std::min(kPlaces, places - begin);
      Tensor slice = logits.narrow(0, 0, count);
      const Tensor x = hidden.narrow(0, begin, count);
      if (bfloat16)
        slice = batched_product(x.unsqueeze(0), head.t().unsqueeze(0), true).squeeze(0).mul_(scale);
      else
        multiply_into(x, head.t(), slice, static_cast<float>(scale));
      float* rows = slice.data_ptr<float>();
      at::parallel_for(0, count, 4, [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) {
          if (target[begin + i] >= 0)
            losses[static_cast<size_t>(begin + i)] = cross_entropy_row(
                rows + i * vocab, vocab, target[begin + i], static_cast<float>(cap), factor);
          else
            std::fill_n(rows + i * vocab, vocab, 0.0f);
        }
      });
      if (dhidden.defined()) add_gradients(begin, slice);
    }
    double sum = 0;
    for (const float loss : losses) sum += loss;
    return counted > 0 ? sum / static_cast<double>(counted) : 0.0;
  }
};

class CrossEntropy : public torch::autograd::Function<CrossEntropy> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& hidden, const Tensor& head, const Tensor& targets,
                        double scale, double cap, bool bfloat16, bool gradients) {
    Slices slices{hidden.contiguous(), head.contiguous(), targets.contiguous(), scale, cap, bfloat16, {}, {}};
    if (gradients) {
      slices.dhidden = at::empty(hidden.sizes(), hidden.options());
      slices.dhead = at::zeros(head.sizes(), head.options());
    }
    const Tensor loss = at::full({}, slices.run(), hidden.options());
    ctx->save_for_backward({slices.dhidden, slices.dhead});
    return loss;
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    if (grads[0].item<float>() == 1.0f) return {saved[0], saved[1], {}, {}, {}, {}, {}};
    return {saved[0] * grads[0], saved[1] * grads[0], {}, {}, {}, {}, {}};
  }
};

}  // namespace

Tensor cross_entropy(const Tensor& hidden, const Tensor& head, const Tensor& targets, double scale,
                     double cap, bool bfloat16) {
  require(hidden.dim() == 2 && head.dim() == 2 && hidden.size(1) == head.size(1) && targets.dim() == 1 &&
              targets.size(0) == hidden.size(0) && targets.scalar_type() == at::kLong,
          ErrorCode::invalid_argument,
          "cross_entropy: hidden [places, d_model], head [vocab, d_model], targets int64 [places]");
  if (targets.numel() > 0) {
    const int64_t most = targets.max().item<int64_t>();
    require(most < head.size(0), ErrorCode::invalid_argument,
            "cross_entropy: target {} is outside the vocabulary of {}", most, head.size(0));
  }
  const bool on_cpu = hidden.device().is_cpu() && hidden.scalar_type() == at::kFloat &&
                      head.scalar_type() == at::kFloat && hidden.numel() > 0;
  if (on_cpu) {
    const bool gradients = at::GradMode::is_enabled() && (hidden.requires_grad() || head.requires_grad());
    return CrossEntropy::apply(hidden, head, targets, scale, cap, bfloat16, gradients);
  }
  Tensor logits = product(hidden, head, {}, bfloat16) * scale;
  if (cap > 0) logits = at::tanh(logits / cap) * cap;
  const Tensor all = at::log_softmax(logits, -1);
  const Tensor chosen = all.gather(1, targets.clamp_min(0).unsqueeze(1)).squeeze(1);
  const Tensor counted = targets.ge(0);
  return -at::where(counted, chosen, at::zeros_like(chosen)).sum() / counted.sum().clamp_min(1);
}

}  // namespace mneme::train
