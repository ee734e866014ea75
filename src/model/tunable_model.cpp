#include "model/tunable_model.h"

#include "core/fail.h"
#include "model/activation_policy.h"
#include "model/config_names.h"
#include "model/load.h"

namespace mneme {
namespace {

void set_neuron(const ActivationConfig& activation, Linear& linear) {
  if (is_spiking(linear.input)) linear.neuron = neuron_of(activation);
}

void set_feed_forward(const ActivationPolicy& policy, Linear& gate, Linear& up, Linear& down) {
  set_neuron(policy[Projection::gate], gate);
  set_neuron(policy[Projection::up], up);
  set_neuron(policy[Projection::down], down);
  share_neurons({&gate, &up});
}

void set_layer(const ActivationPolicy& policy, LayerWeights& layer) {
  for (MixerWeights& mixer : layer.mixers) {
    set_neuron(policy[Projection::q], mixer.q);
    set_neuron(policy[Projection::k], mixer.k);
    set_neuron(policy[Projection::v], mixer.v);
    set_neuron(policy[Projection::o], mixer.o);
    for (Linear* linear : {&mixer.gate, &mixer.decay, &mixer.beta})
      set_neuron(policy[Projection::recurrence], *linear);
    share_neurons(mixer.inputs());
  }
  set_feed_forward(policy, layer.gate, layer.up, layer.down);
  if (layer.moe) {
    for (ExpertWeights& expert : layer.moe->experts)
      set_feed_forward(policy, expert.gate, expert.up, expert.down);
    ExpertWeights& shared = layer.moe->shared;
    set_feed_forward(policy, shared.gate, shared.up, shared.down);
  }
  if (!layer.memory) return;
  for (Linear* linear : {&layer.memory->k, &layer.memory->v}) set_neuron(policy[Projection::memory], *linear);
  share_neurons({&layer.memory->k, &layer.memory->v});
}

}  // namespace

TunableModel::TunableModel(const std::string& path, LoadOptions options,
                           std::vector<ActivationPolicy> layers) {
  require(!options.activation && !layers.empty(), ErrorCode::invalid_argument,
          "a model that is to be tuned has an activation for each layer, not one for all");
  kinds_ = layers.front();
  options.activation = kinds_;
  model_ = Model::load(path, options);
  set(layers);
}

void TunableModel::set(const std::vector<ActivationPolicy>& layers) {
  // Model::load made it without const, and this object alone may change it.
  auto& impl = const_cast<ModelImpl&>(model_->impl());
  require(layers.size() == impl.layers.size(), ErrorCode::invalid_argument,
          "{} activations for a model of {} layers", layers.size(), impl.layers.size());
  for (size_t i = 0; i < layers.size(); ++i) {
    validate(layers[i], fmt::format("layers[{}].activation", i));
    for (const auto& [projection, name] : config_names::kProjectionNames)
      require(
          layers[i][projection].type == kinds_[projection].type, ErrorCode::unsupported,
          "{} has another kind of activation in layer {} than in layer 0; only k and dead zone may differ",
          name, i);
  }
  for (size_t i = 0; i < layers.size(); ++i) set_layer(layers[i], impl.layers[i]);
  impl.plan = compile_plan(impl);  // stages hold the neurons of their inputs
}

}  // namespace mneme
