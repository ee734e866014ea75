#include "train/optimise/optimiser.h"

#include <algorithm>
#include <cmath>

#include "core/fail.h"
#include "train/optimise/update_kernels.h"

namespace mneme::train {
namespace {

constexpr int64_t kBlock = 1 << 14;  // values: long arrays are divided here, on any number of threads

bool plain(const Tensor& tensor) {
  return tensor.device().is_cpu() && tensor.scalar_type() == at::kFloat && tensor.is_contiguous();
}

/// body(first, count) for every block of `n` values, on all threads.
template <class Body>
void for_blocks(int64_t n, const Body& body) {
  const int64_t blocks = (n + kBlock - 1) / kBlock;
  at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block)
      body(block * kBlock, std::min(kBlock, n - block * kBlock));
  });
}

double squares(const Tensor& gradient) {
  if (!plain(gradient)) return gradient.to(at::kFloat).square().sum(at::kDouble).item<double>();
  const int64_t n = gradient.numel();
  std::vector<double> sums(static_cast<size_t>((n + kBlock - 1) / kBlock));
  const float* const values = gradient.data_ptr<float>();
  for_blocks(n, [&](int64_t first, int64_t count) {
    sums[static_cast<size_t>(first / kBlock)] = sum_of_squares(values + first, count);
  });
  double sum = 0;
  for (const double part : sums) sum += part;
  return sum;
}

}  // namespace

double gradient_norm(std::span<const Tensor> gradients) {
  double sum = 0;
  for (const Tensor& gradient : gradients)
    if (gradient.defined()) sum += squares(gradient);
  return std::sqrt(sum);
}

UpdateRule update_rule(const OptimiserConfig& config, bool tied, const std::string& name,
                       const Tensor& value) {
  const bool looked_up = (name == "token_embd.weight" && !tied) || name == "sink_embd.weight";
  const bool multiplies = value.dim() == 2 && !looked_up && !name.ends_with("engram_conv.weight");
  const bool router = name.ends_with("ffn_gate_inp.weight");
  const bool hidden =
      multiplies && !router && name.starts_with("blk.") && std::min(value.size(0), value.size(1)) >= 16;
  return {config.type == OptimiserConfig::Type::muon && hidden, multiplies};
}

Optimiser::Optimiser(const OptimiserConfig& config, const Parameters& parameters, bool tied)
    : config_(config) {
  for (const std::string& name : parameters.names()) {
    const Tensor& value = parameters.at(name);
    Slot slot{name, value, update_rule(config, tied, name, value), at::zeros_like(value.detach()), {}};
    if (!slot.rule.muon) slot.second = at::zeros_like(value.detach());
    slots_.push_back(std::move(slot));
  }
}

void Optimiser::step(double lr, double gradient_scale) {
  const at::NoGradGuard no_graph;
  ++steps_;
  for (Slot& slot : slots_) {
    const Tensor& gradient = slot.value.grad();
    if (!gradient.defined()) continue;
    if (slot.rule.muon)
      muon(slot, gradient, lr, gradient_scale);
    else
      adamw(slot, gradient, lr, gradient_scale);
  }
}

void Optimiser::adamw(Slot& slot, const Tensor& gradient, double lr, double scale) const {
  adamw_step(slot.value.detach(), gradient, slot.first, slot.second,
             {lr, config_.betas[0], config_.betas[1], config_.eps,
              slot.rule.decay ? config_.weight_decay : 0.0, scale},
             steps_);
}

void adamw_step(const Tensor& value, const Tensor& gradient, const Tensor& first, const Tensor& second,
                const AdamSettings& s, uint64_t step) {
  require(
      value.sizes() == gradient.sizes() && value.sizes() == first.sizes() && value.sizes() == second.sizes(),
      ErrorCode::invalid_argument, "AdamW: value, gradient and moments differ in shape");
  const double t = static_cast<double>(step);
  const double correction1 = 1 - std::pow(s.beta1, t), correction2 = 1 - std::pow(s.beta2, t);
  if (plain(value) && plain(first) && plain(second) && gradient.scalar_type() == at::kFloat) {
    const Tensor g = gradient.contiguous();
    AdamStep fused;
    fused.scale = static_cast<float>(s.gradient_scale);
    fused.keep1 = static_cast<float>(s.beta1);
    fused.keep2 = static_cast<float>(s.beta2);
    fused.decay = static_cast<float>(1 - s.lr * s.weight_decay);
    fused.rate = static_cast<float>(s.lr / correction1);
    fused.root = static_cast<float>(1 / std::sqrt(correction2));
    fused.eps = static_cast<float>(s.eps);
    float *const p = value.data_ptr<float>(), *const m = first.data_ptr<float>(),
                 *const v = second.data_ptr<float>();
    const float* const gradients = g.data_ptr<float>();
    for_blocks(value.numel(), [&](int64_t from, int64_t count) {
      adam_update(p + from, gradients + from, m + from, v + from, fused, count);
    });
    return;
  }
  const Tensor g = gradient * s.gradient_scale;
  first.mul_(s.beta1).add_(g, 1 - s.beta1);
  second.mul_(s.beta2).addcmul_(g, g, 1 - s.beta2);
  value.mul_(1 - s.lr * s.weight_decay);
  value.addcdiv_(first, second.sqrt().div_(std::sqrt(correction2)).add_(s.eps), -s.lr / correction1);
}

NamedTensors Optimiser::state() const {
  NamedTensors out;
  for (const Slot& slot : slots_) {
    out[(slot.rule.muon ? "momentum." : "m.") + slot.name] = slot.first;
    if (!slot.rule.muon) out["v." + slot.name] = slot.second;
  }
  return out;
}

void Optimiser::restore(const NamedTensors& saved, uint64_t steps) {
  const at::NoGradGuard no_graph;
  for (auto& [name, tensor] : state()) {
    const auto found = saved.find(name);
    require(found != saved.end(), ErrorCode::mismatch, "the optimiser's state has no tensor \"{}\"", name);
    require(found->second.sizes() == tensor.sizes(), ErrorCode::mismatch,
            "the optimiser's state has a tensor \"{}\" of another shape", name);
    tensor.copy_(found->second);
  }
  steps_ = steps;
}

}  // namespace mneme::train
