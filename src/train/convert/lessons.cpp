#include "train/convert/lessons.h"

#include <algorithm>

#include "core/fail.h"
#include "train/ops/fused.h"
#include "train/ops/products.h"

namespace mneme::train {
namespace {

constexpr int64_t kLessonPlaces = 256;  // of two sets of logits held at once

/// Logits of some places, and d logits / d (hidden head^T) where that is not the scale alone.
struct Logits {
  Tensor values, slope;
};

Logits logits_of(const Tensor& hidden, const Head& head, bool bfloat16) {
  Logits out{product(hidden, head.weight, {}, bfloat16) * head.scale, {}};
  if (head.cap > 0) {
    const Tensor bent = at::tanh(out.values / head.cap);
    out.slope = 1 - bent.square();
    out.values = bent * head.cap;
  }
  return out;
}

struct DistillationLoss : torch::autograd::Function<DistillationLoss> {
  struct Inputs {
    Head student, teacher;
    Tensor teacher_hidden, targets;
    double temperature, share;
    bool bfloat16;
  };

  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& hidden, const Tensor& weight,
                        const Inputs* in) {
    const at::NoGradGuard no_grad;
    const bool head_learns = weight.requires_grad();
    const auto places = hidden.size(0);
    Tensor d_hidden = at::empty_like(hidden), d_head = head_learns ? at::zeros_like(weight) : Tensor();
    const double t = in->temperature;
    const Tensor back = weight.detach().unsqueeze(0);
    double sum = 0;
    for (int64_t at = 0; at < places; at += kLessonPlaces) {
      const int64_t count = std::min(kLessonPlaces, places - at);
      const Tensor h = hidden.narrow(0, at, count);
      const Logits student = logits_of(h, in->student, in->bfloat16);
      const Tensor teacher =
          logits_of(in->teacher_hidden.narrow(0, at, count), in->teacher, in->bfloat16).values;
      const Tensor wanted = at::log_softmax(teacher / t, 1), given = at::log_softmax(student.values / t, 1);
      const Tensor p = wanted.exp();
      sum += (1 - in->share) * t * t * (p * (wanted - given)).sum().to(at::kDouble).item<double>();
      Tensor d = (given.exp() - p) * ((1 - in->share) * t);
      if (in->share > 0) {
        const Tensor target = in->targets.narrow(0, at, count).unsqueeze(1);
        Tensor own = t == 1 ? given : at::log_softmax(student.values, 1);
        sum -= in->share * own.gather(1, target).sum().to(at::kDouble).item<double>();
        d = d + own.exp().scatter_add(1, target, at::full_like(target, -1.0, own.options())) * in->share;
      }
      if (student.slope.defined()) d = d * student.slope;
      d = d * (in->student.scale / static_cast<double>(places));
      d_hidden.narrow(0, at, count).copy_(batched_product(d.unsqueeze(0), back, in->bfloat16).squeeze(0));
      if (head_learns) d_head += batched_product(d.t().unsqueeze(0), h.unsqueeze(0), false).squeeze(0);
    }
    context->save_for_backward({d_hidden, d_head});
    return at::full({}, sum / static_cast<double>(places), hidden.options());
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list grads) {
    const auto saved = context->get_saved_variables();
    return {saved[0] * grads[0], saved[1].defined() ? saved[1] * grads[0] : Tensor(), Tensor()};
  }
};

}  // namespace

void teach_mixers(const ConvertedModel& teacher, const Tensor& tokens, const std::vector<uint32_t>& layers,
                  const PassOptions& options, const MixerTap& tap) {
  if (layers.empty()) return;
  const uint32_t last = *std::max_element(layers.begin(), layers.end());
  const PassContext context(teacher.config, options);
  Tensor x;
  BatchRows rows;
  {
    const at::NoGradGuard no_grad;
    rows = teacher.rows(tokens);
    x = embed_tokens(teacher, tokens);
  }
  for (uint32_t i = 0; i <= last; ++i) {
    Tensor normed, mixed;
    {
      const at::NoGradGuard no_grad;
      x = run_layer(teacher, i, x, rows, context,
                    [&](uint32_t, const Tensor& in, const Tensor& out) { normed = in, mixed = out; });
    }
    if (std::find(layers.begin(), layers.end(), i) != layers.end()) tap(i, normed, mixed);
  }
}

Tensor mixer_error(const ConvertedModel& student, uint32_t layer, const Tensor& normed, const Tensor& target,
                   const PassOptions& options) {
  const Tensor y = run_mixer(student, layer, normed, PassContext(student.config, options));
  return (y - target).square().sum() / target.square().sum().clamp_min(1e-30);
}

OutputSolver::OutputSolver(const ConvertedModel& student, uint32_t layer)
    : features_(student), layer_(layer) {
  const std::string stem = fmt::format("blk.{}.attn_output.", layer);
  const Tensor& weight = student.parameters.at(stem + "weight");
  require(possible(student.config.layers[layer].mixer), ErrorCode::internal,
          "layer {} has no single output projection", layer);
  NamedTensors identity{{stem + "weight", at::eye(weight.size(1))}};
  if (student.parameters.has(stem + "bias")) {
    bias_ = student.parameters.at(stem + "bias").detach();
    identity.emplace(stem + "bias", at::zeros(weight.size(1)));
  }
  replace(features_, identity);
  xx_ = at::zeros({weight.size(1), weight.size(1)}, at::kDouble);
  xy_ = at::zeros({weight.size(1), weight.size(0)}, at::kDouble);
}

bool OutputSolver::possible(const MixerConfig& mixer) {
  return mixer.type != MixerType::parallel;
}

void OutputSolver::add(const Tensor& normed, const Tensor& target) {
  const at::NoGradGuard no_grad;
  const Tensor x = run_mixer(features_, layer_, normed, PassContext(features_.config, {})).flatten(0, 1);
  const Tensor y = (bias_.defined() ? target - bias_ : target).flatten(0, 1);
  const Tensor transposed = x.t().unsqueeze(0);
  xx_ += batched_product(transposed, x.unsqueeze(0), false).squeeze(0).to(at::kDouble);
  xy_ += batched_product(transposed, y.unsqueeze(0), false).squeeze(0).to(at::kDouble);
}

Tensor OutputSolver::solution() const {
  const at::NoGradGuard no_grad;
  const double ridge = 1e-4 * xx_.diagonal().mean().item<double>() + 1e-30;
  const Tensor a = xx_ + at::eye(xx_.size(0), at::kDouble) * ridge;
  return at::cholesky_solve(xy_, at::linalg_cholesky(a)).t().to(at::kFloat).contiguous();
}

Head head_of(const ConvertedModel& model) {
  return {output_head(model), model.config.logit_scale, model.config.logit_softcap};
}

Tensor distillation_loss(const Tensor& student, const Head& student_head, const Tensor& teacher,
                         const Head& teacher_head, const Tensor& targets, double temperature, double share,
                         bool bfloat16) {
  require(student.dim() == 2 && teacher.dim() == 2 && student.size(0) == teacher.size(0) &&
              targets.dim() == 1 && targets.size(0) == student.size(0),
          ErrorCode::invalid_argument,
          "distillation_loss: student and teacher [places, d_model], targets [places]");
  const DistillationLoss::Inputs in{{student_head.weight.detach(), student_head.scale, student_head.cap},
                                    {teacher_head.weight.detach(), teacher_head.scale, teacher_head.cap},
                                    teacher.detach(),
                                    targets,
                                    temperature,
                                    share,
                                    bfloat16};
  return DistillationLoss::apply(student, student_head.weight, &in);
}

}  // namespace mneme::train
