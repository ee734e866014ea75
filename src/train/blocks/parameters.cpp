#include "train/blocks/parameters.h"

#include <cmath>
#include <numeric>

#include "core/fail.h"
#include "model/tensor_names.h"
#include "train/ops/fused.h"

namespace mneme::train {
namespace {

bool ends_with_any(std::string_view name, std::initializer_list<std::string_view> ends) {
  return std::any_of(ends.begin(), ends.end(), [&](std::string_view end) { return name.ends_with(end); });
}

/// What is added to a norm's weight: the model's offset, or that of a layer's memory module.
double norm_offset(const ModelConfig& config, std::string_view name) {
  for (size_t i = 0; i < config.layers.size(); ++i)
    if (config.layers[i].memory && name.starts_with(fmt::format("blk.{}.engram_", i)))
      return config.layers[i].memory->norm_offset;
  return config.norm.weight_offset;
}

/// The first value of a tensor whose meaning decides it; docs/training.md gives the reasons.
Tensor initial(const ModelConfig& config, const ExpectedTensor& tensor, at::Generator& generator) {
  std::vector<int64_t> shape(tensor.shape.begin(), tensor.shape.end());
  const std::string_view name = tensor.name;
  const auto normal = [&](double deviation) { return at::normal(0.0, deviation, shape, generator); };
  if (name.ends_with(".bias") || ends_with_any(name, {"attn_sinks.weight", "engram_conv.weight"}))
    return at::zeros(shape);
  if (name.ends_with("mix_weights.weight")) return at::full(shape, 0.5);
  // Delta rule: A in [1, 16) and time steps in [0.001, 0.1), as state-space models start.
  if (name.ends_with("attn_a_log.weight")) return at::log(at::rand(shape, generator) * 15 + 1);
  if (name.ends_with("attn_dt_bias.weight")) {
    const Tensor step = at::exp(at::rand(shape, generator) * std::log(100.0) + std::log(0.001));
    return step + at::log(-at::expm1(-step));  // the inverse of softplus
  }
  const double deviation = 0.02;
  if (name.ends_with("ffn_gate_inp_shexp.weight")) return normal(deviation);
  if (shape.size() == 1) return at::full(shape, 1.0 - norm_offset(config, name));
  const auto of_expert = expert_tensor_name_of(name);
  if (ends_with_any(name,
                    {"attn_output.weight", "ffn_down.weight", "ffn_down_shexp.weight", "engram_v.weight"}) ||
      (of_expert && of_expert->projection == "down"))
    return normal(deviation / std::sqrt(2.0 * static_cast<double>(config.layers.size())));
  return normal(deviation);
}

}  // namespace

Parameters Parameters::create(const ModelConfig& config, uint64_t seed, at::Device device) {
  Parameters out;
  at::Generator generator = at::detail::createCPUGenerator(seed);
  for (const ExpectedTensor& tensor : expected_tensors(config))
    out.add(tensor.name, initial(config, tensor, generator).to(device));
  return out;
}

const Tensor& Parameters::at(std::string_view name) const {
  const auto found = by_name_.find(name);
  require(found != by_name_.end(), ErrorCode::not_found, "the parameters hold no tensor \"{}\"", name);
  return found->second;
}

void Parameters::add(std::string name, Tensor value) {
  require(!has(name), ErrorCode::invalid_argument, "there are two tensors \"{}\"", name);
  const auto type = value.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  value = value.detach().to(type).contiguous().requires_grad_(true);
  names_.push_back(name);
  by_name_.emplace(std::move(name), std::move(value));
}

Parameters Parameters::to(at::ScalarType type) const {
  Parameters out;
  for (const std::string& name : names_) out.add(name, at(name).detach().to(type, false, /*copy=*/true));
  return out;
}

uint64_t Parameters::count() const {
  return std::accumulate(by_name_.begin(), by_name_.end(), uint64_t{0}, [](uint64_t sum, const auto& entry) {
    return sum + static_cast<uint64_t>(entry.second.numel());
  });
}

Tensor Weights::linear(std::string_view name, const Tensor& x, double share) const {
  const std::string stem(name);
  const Tensor bias = has(stem + ".bias") ? (*this)[stem + ".bias"] : Tensor();
  const Tensor& weight = (*this)[stem + ".weight"];
  return product(inputs_.of(name, x, weight.size(0), share), weight, bias, bfloat16_);
}

}  // namespace mneme::train
