#include "train/convert/tuner.h"

#include <algorithm>
#include <cmath>

#include "core/fail.h"
#include "model/tensor_names.h"
#include "train/optimise/optimiser.h"
#include "train/run/run_config.h"

namespace mneme::train {
namespace {

bool of_mixer(std::string_view group) {
  return group == "gate" || group == "norm" || group == "qk" || group == "v" || group == "o";
}

}  // namespace

bool is_trained(const std::string& name, const std::vector<std::string>& groups,
                const std::vector<uint32_t>& layers) {
  const auto at = layer_tensor_name_of(name);
  if (at && std::find(layers.begin(), layers.end(), at->layer) == layers.end()) return false;
  const std::string_view group = tensor_group(name);
  return std::any_of(groups.begin(), groups.end(), [&](const std::string& wanted) {
    return wanted == "all" || wanted == group || (wanted == "mixer" && of_mixer(group));
  });
}

Tuner::Tuner(const ConvertedModel& model, const std::vector<uint32_t>& layers, const TuneSettings& settings)
    : settings_(settings) {
  for (const std::string& name : model.parameters.names()) {
    const Tensor& leaf = model.parameters.at(name);
    if (!leaf.requires_grad()) continue;
    const auto at = layer_tensor_name_of(name);
    if (!layers.empty() && (!at || std::find(layers.begin(), layers.end(), at->layer) == layers.end()))
      continue;
    const Tensor value = leaf.detach();
    slots_.push_back({name, leaf, value, at::zeros_like(value), at::zeros_like(value)});
  }
}

uint64_t Tuner::values() const noexcept {
  uint64_t sum = 0;
  for (const Slot& slot : slots_) sum += static_cast<uint64_t>(slot.value.numel());
  return sum;
}

void Tuner::zero_gradients() {
  for (Slot& slot : slots_) slot.leaf.mutable_grad() = Tensor();
}

double Tuner::lr(uint64_t step) const {
  ScheduleConfig schedule;
  schedule.warmup = settings_.warmup;
  return settings_.lr * schedule_factor(schedule, step, settings_.steps);
}

double Tuner::step(uint64_t step, const std::vector<Tensor>& others) {
  const at::NoGradGuard no_grad;
  std::vector<Tensor> gradients = others;
  for (const Slot& slot : slots_)
    if (slot.leaf.grad().defined()) gradients.push_back(slot.leaf.grad());
  const double size = gradient_norm(gradients);
  require(std::isfinite(size), ErrorCode::corrupt,
          "gradients became infinite at step {} of this stage; a smaller lr or clip helps, and what is saved "
          "goes on from before",
          step);
  AdamSettings adam;
  adam.lr = lr(step);
  adam.gradient_scale = settings_.clip > 0 && size > settings_.clip ? settings_.clip / size : 1.0;
  for (Slot& slot : slots_) {
    const Tensor& gradient = slot.leaf.grad();
    if (!gradient.defined()) continue;
    adam.weight_decay = slot.value.dim() == 2 ? settings_.weight_decay : 0.0;
    adamw_step(slot.value, gradient.contiguous(), slot.first, slot.second, adam, step);
  }
  return adam.gradient_scale;
}

NamedTensors Tuner::state() const {
  NamedTensors out;
  for (const Slot& slot : slots_) {
    out.emplace("m." + slot.name, slot.first);
    out.emplace("v." + slot.name, slot.second);
  }
  return out;
}

void Tuner::restore(const NamedTensors& state) {
  const at::NoGradGuard no_grad;
  for (auto& [name, tensor] : this->state()) {
    const auto saved = state.find(name);
    require(saved != state.end() && saved->second.sizes() == tensor.sizes(), ErrorCode::corrupt,
            "the saved state of the conversion holds no tensor {} of the right shape", name);
    Tensor(tensor).copy_(saved->second);
  }
}

}  // namespace mneme::train
