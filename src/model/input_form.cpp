// What each matrix of a model reads: floats, int8 codes or spikes, by its type and the activation asked for.
// The loader and the cost model both ask here, so that what is counted is what runs.
#include "core/fail.h"
#include "model/config_names.h"
#include "model/model_impl.h"

namespace mneme {

Activation head_activation(const std::optional<ActivationPolicy>& forced) {
  if (!forced || *forced != ActivationPolicy(forced->of[0])) return Activation::automatic;
  const Activation type = forced->of[0].type;
  return type == Activation::spike || type == Activation::int4 ? Activation::automatic : type;
}

Linear::Input input_form(Activation activation, const PackedMatrix& w) {
  const bool quantized = packed_layout(w.type).scales != PackedLayout::Scales::none;
  if (activation == Activation::automatic) activation = quantized ? Activation::int8 : Activation::float_;
  if (activation == Activation::float_) return Linear::Input::floats;
  require(w.cols % kBlock == 0, ErrorCode::unsupported,
          "activation {} needs rows of a multiple of {} values; this model has {}",
          config_names::word(config_names::kActivations, activation), kBlock, w.cols);
  if (activation == Activation::int4) return Linear::Input::int4_floats;
  if (activation == Activation::spike)
    return w.stripe_lines > 0 ? Linear::Input::spikes : Linear::Input::spike_floats;
  return quantized ? Linear::Input::int8 : Linear::Input::rounded_floats;
}

}  // namespace mneme
