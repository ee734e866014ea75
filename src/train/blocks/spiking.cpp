#include "train/blocks/spiking.h"

#include <algorithm>
#include <map>
#include <utility>

#include "core/fail.h"
#include "model/activation_policy.h"
#include "model/config_names.h"
#include "model/tensor_names.h"

namespace mneme::train {
namespace {

double ratio(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole);
}

}  // namespace

void SpikeTally::add(Projection projection, const SpikeCount& count, uint64_t outputs) {
  Kind& kind = of_[static_cast<size_t>(projection)];
  kind.count.inputs += count.inputs;
  kind.count.fired += count.fired;
  kind.count.spikes += count.spikes;
  kind.weights += count.inputs * outputs;
  kind.read += count.fired * outputs;
}

bool SpikeTally::empty() const noexcept {
  return std::all_of(of_.begin(), of_.end(), [](const Kind& kind) { return kind.count.inputs == 0; });
}

double SpikeTally::silent() const noexcept {
  uint64_t weights = 0, read = 0;
  for (const Kind& kind : of_) weights += kind.weights, read += kind.read;
  return 1.0 - ratio(read, weights);
}

Json SpikeTally::report() const {
  Json projections = Json::object();
  double spikes = 0, weights = 0;
  for (const auto& [projection, name] : config_names::kProjectionNames) {
    const Kind& kind = of_[static_cast<size_t>(projection)];
    if (kind.count.inputs == 0) continue;
    const double mean = ratio(kind.count.spikes, kind.count.inputs);
    projections[std::string(name)] = {{"silent", 1.0 - ratio(kind.count.fired, kind.count.inputs)},
                                      {"mean_abs", mean}};
    spikes += mean * static_cast<double>(kind.weights);
    weights += static_cast<double>(kind.weights);
  }
  return {{"silent", silent()},
          {"mean_abs", weights > 0 ? spikes / weights : 0.0},
          {"projections", std::move(projections)}};
}

Json SpikeTally::state() const {
  Json out = Json::array();
  for (const Kind& kind : of_)
    out.push_back({kind.count.inputs, kind.count.fired, kind.count.spikes, kind.weights, kind.read});
  return out;
}

SpikeTally SpikeTally::restore(const Json& state) {
  SpikeTally out;
  try {
    for (size_t i = 0; i < kProjections; ++i) {
      const auto numbers = state.at(i).get<std::array<uint64_t, 5>>();
      out.of_[i] = {{numbers[0], numbers[1], numbers[2]}, numbers[3], numbers[4]};
    }
  } catch (const Json::exception&) {
    fail(ErrorCode::corrupt, "the saved tally of spikes is not one");
  }
  return out;
}

uint64_t spiking_weights(const ModelConfig& config) {
  uint64_t sum = 0;
  std::map<size_t, uint64_t> of_experts;
  for (const ExpectedTensor& tensor : expected_tensors(config)) {
    const auto projection = projection_of(tensor.name);
    const auto at = layer_tensor_name_of(tensor.name);
    if (!projection || !at || tensor.shape.size() != 2) continue;
    const size_t layer = at->layer;
    if (config.layers[layer].activation[*projection].type != Activation::spike) continue;
    require(tensor.shape[1] % kBlock == 0, ErrorCode::invalid_argument,
            "layers[{}].activation.{} is \"spike\", which needs rows of a multiple of {} values; {} has {}",
            layer, config_names::word(config_names::kProjectionNames, *projection), kBlock, tensor.name,
            tensor.shape[1]);
    const FfnConfig& ffn = config.layers[layer].ffn;
    const uint64_t size = tensor.shape[0] * tensor.shape[1];
    if (expert_tensor_name_of(tensor.name))
      of_experts[layer] += size * std::min(ffn.top_k, ffn.experts);
    else
      sum += size;
  }
  for (const auto& [layer, weights] : of_experts) sum += weights / config.layers[layer].ffn.experts;
  return sum;
}

Tensor LayerInputs::of(std::string_view linear, const Tensor& x, int64_t outputs, double share) const {
  if (policy_ == nullptr) return x;
  const auto projection = projection_of(linear);
  if (!projection || (*policy_)[*projection].type != Activation::spike) return x;
  const ActivationConfig& activation = (*policy_)[*projection];
  FiringPenalty price{0, options_.width};
  if (options_.penalty != 0 && all_weights_ > 0)
    price.weight = share * options_.penalty * static_cast<double>(x.size(-1) * outputs) /
                   static_cast<double>(all_weights_);
  SpikeCount count;
  Tensor out = spiked(x, neuron_of(activation), price, options_.tally ? &count : nullptr);
  if (options_.tally) options_.tally->add(*projection, count, static_cast<uint64_t>(outputs));
  return out;
}

}  // namespace mneme::train
