#include "model/tunable_model.h"

#include <algorithm>

#include "core/fail.h"
#include "model/activation_policy.h"
#include "model/load.h"

namespace mneme {
namespace {

bool spikes(const Linear& linear) {
  return linear.input == Linear::Input::spikes || linear.input == Linear::Input::spike_floats;
}

void set_neuron(const ActivationConfig& activation, Linear& linear) {
  if (spikes(linear))
    linear.neuron = {static_cast<float>(activation.k), static_cast<float>(activation.dead_zone)};
}

void set_layer(const ActivationPolicy& policy, LayerWeights& layer) {
  for (MixerWeights& mixer : layer.mixers) {
    set_neuron(policy[Projection::q], mixer.q);
    set_neuron(policy[Projection::k], mixer.k);
    set_neuron(policy[Projection::v], mixer.v);
    set_neuron(policy[Projection::o], mixer.o);
    for (Linear* linear : {&mixer.gate, &mixer.decay, &mixer.beta})
      if (linear->w.rows > 0) set_neuron(policy[Projection::recurrence], *linear);
    share_neurons(mixer.inputs());
  }
  set_neuron(policy[Projection::gate], layer.gate);
  set_neuron(policy[Projection::up], layer.up);
  set_neuron(policy[Projection::down], layer.down);
  share_neurons({&layer.gate, &layer.up});
  if (!layer.memory) return;
  for (Linear* linear : {&layer.memory->k, &layer.memory->v}) set_neuron(policy[Projection::memory], *linear);
  share_neurons({&layer.memory->k, &layer.memory->v});
}

}  // namespace

void share_neurons(const std::vector<Linear*>& readers) {
  std::vector<NeuronSetting> neurons;
  for (Linear* linear : readers) {
    if (!spikes(*linear)) continue;
    const auto at = std::find(neurons.begin(), neurons.end(), linear->neuron);
    linear->spike_slot = static_cast<size_t>(at - neurons.begin());
    if (at == neurons.end()) neurons.push_back(linear->neuron);
  }
}

TunableModel::TunableModel(const std::string& path, const LoadOptions& options,
                           std::vector<ActivationPolicy> layers)
    : impl_(nullptr), layers_(std::move(layers)) {
  require(!options.activation, ErrorCode::invalid_argument,
          "a model that is to be tuned has an activation for each layer, not one for all");
  std::unique_ptr<ModelImpl> impl = load_model(path, options, open_memories(options), &layers_);
  impl_ = impl.get();
  model_ = std::shared_ptr<const Model>(new Model(std::move(impl)));
}

void TunableModel::set(std::vector<ActivationPolicy> layers) {
  require(layers.size() == layers_.size(), ErrorCode::invalid_argument,
          "{} activations for a model of {} layers", layers.size(), layers_.size());
  for (size_t i = 0; i < layers.size(); ++i) {
    validate(layers[i], fmt::format("layers[{}].activation", i));
    for (size_t p = 0; p < kProjections; ++p)
      require(layers[i].of[p].type == layers_[i].of[p].type, ErrorCode::invalid_argument,
              "layers[{}]: the kind of an activation cannot change after loading", i);
  }
  layers_ = std::move(layers);
  for (size_t i = 0; i < layers_.size(); ++i) set_layer(layers_[i], impl_->layers[i]);
  impl_->plan = compile_plan(*impl_);  // stages hold the neurons of their inputs
}

}  // namespace mneme
