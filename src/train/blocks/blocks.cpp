#include "train/blocks/blocks.h"

#include <cmath>

#include "core/fail.h"
#include "model/rope_frequencies.h"
#include "train/ops/fused.h"

namespace mneme::train {

struct PassContext::Kind {
  RopeConfig rope;
  uint32_t head_dim = 0;
  int64_t length = 0;
  Rotation rotation;
};

PassContext::PassContext(const ModelConfig& config, const PassOptions& options)
    : options_(options),
      sink_tokens_(config.sink_tokens),
      spiking_weights_(options.spikes.penalty != 0 ? spiking_weights(config) : 0),
      rotations_(std::make_shared<std::vector<Kind>>()) {
  rotations_->reserve(2 * config.layers.size());  // references into it stay valid
}

const PassContext::Rotation& PassContext::rotation(const RopeConfig& rope, uint32_t head_dim, int64_t length,
                                                   const Tensor& like) const {
  for (const Kind& kind : *rotations_)
    if (kind.rope == rope && kind.head_dim == head_dim && kind.length == length &&
        kind.rotation.cos.scalar_type() == like.scalar_type())
      return kind.rotation;
  const std::vector<float> frequencies = rope_inverse_frequencies(rope, head_dim);
  const Tensor frequency = at::tensor(at::ArrayRef<float>(frequencies), at::kFloat).to(at::kDouble);
  const Tensor angle = at::arange(length, at::kDouble).unsqueeze(1) * frequency;
  const double factor = rope_attention_factor(rope);
  rotations_->push_back({rope,
                         head_dim,
                         length,
                         {(angle.cos() * factor).to(like.options()),
                          (angle.sin() * factor).to(like.options()), rope.style == RopeConfig::Style::half}});
  return rotations_->back().rotation;
}

PassContext PassContext::for_mixer(uint32_t number) const {
  PassContext out = *this;
  out.mixer_ = number;
  return out;
}

PassContext PassContext::for_layer(uint32_t number) const {
  PassContext out = *this;
  out.layer_ = number;
  return out;
}

PassContext PassContext::without_recording() const {
  PassContext out = *this;
  out.options_.record = nullptr;
  out.options_.spikes.tally = nullptr;
  out.options_.experts.tally = nullptr;
  return out;
}

Weights PassContext::weights(const Parameters& parameters, std::string prefix,
                             const LayerConfig& layer) const {
  return {parameters, std::move(prefix), options_.bfloat16,
          LayerInputs(layer.activation, options_.spikes, spiking_weights_)};
}

Tensor norm(const ModelConfig& config, const Tensor& x, const Tensor& weight) {
  return rms_norm(x, weight, config.norm.eps, config.norm.weight_offset);
}

Tensor mixer(const ModelConfig& config, const MixerConfig& mixer, const Weights& weights, const Tensor& x,
             const PassContext& context) {
  switch (mixer.type) {
    case MixerType::full:
    case MixerType::window:
    case MixerType::sparse:
      return softmax_mixer(config, mixer, weights, x, context);
    case MixerType::gla:
      return gla_mixer(config, mixer, weights, x);
    case MixerType::delta:
      return delta_mixer(config, mixer, weights, x);
    case MixerType::parallel:
      return parallel_mixer(config, mixer, weights, x, context);
  }
  fail(ErrorCode::unsupported, "a mixer of type number {} cannot be trained", static_cast<int>(mixer.type));
}

Tensor split_heads(const Tensor& x, int64_t kv_heads, int64_t group) {
  return x.view({x.size(0), x.size(1), kv_heads, group, x.size(2) / (kv_heads * group)})
      .permute({0, 2, 3, 1, 4});
}

Tensor join_heads(const Tensor& heads) {
  return heads.permute({0, 3, 1, 2, 4}).flatten(2);
}

Tensor feature_map(FeatureMap map, const Tensor& x) {
  switch (map) {
    case FeatureMap::relu:
      return at::relu(x);
    case FeatureMap::sigmoid:
      return at::sigmoid(x);
    case FeatureMap::silu:
      return at::silu(x);
    case FeatureMap::identity:
      return x;
  }
  fail(ErrorCode::unsupported, "a feature map of number {} cannot be trained", static_cast<int>(map));
}

double mixer_scale(const MixerConfig& mixer) {
  return mixer.scale > 0 ? mixer.scale : 1.0 / std::sqrt(static_cast<double>(mixer.head_dim));
}

}  // namespace mneme::train
