#include "train/blocks/decoder.h"

#include <fmt/format.h>

#include "core/fail.h"
#include "model/tensor_names.h"
#include "train/blocks/blocks.h"
#include "train/blocks/recompute.h"
#include "train/ops/fused.h"

namespace mneme::train {
namespace {

const TouchedRows& rows_of(const BatchRows& rows, const std::string& table, size_t layer) {
  const auto found = rows.find(table);
  require(found != rows.end() && found->second.contains(static_cast<uint32_t>(layer)),
          ErrorCode::invalid_argument, "layer {} reads table \"{}\", whose rows were not given", layer,
          table);
  return found->second.at(static_cast<uint32_t>(layer));
}

}  // namespace

Decoder::Decoder(ModelConfig config, const Parameters& parameters) : parameters_(&parameters) {
  config.validate();
  spiking_weights(config);  // that all of them can fire
  for (const ExpectedTensor& expected : expected_tensors(config)) {
    require(parameters.has(expected.name), ErrorCode::mismatch, "the parameters lack the tensor {}",
            expected.name);
    const auto sizes = parameters.at(expected.name).sizes();
    require(std::equal(sizes.begin(), sizes.end(), expected.shape.begin(), expected.shape.end()),
            ErrorCode::mismatch, "tensor {} has shape [{}], but the config asks for [{}]", expected.name,
            fmt::join(sizes, ", "), fmt::join(expected.shape, ", "));
  }
  std::vector<uint32_t> first_mixer;
  uint32_t mixers = 0;
  for (const LayerConfig& layer : config.layers) {
    first_mixer.push_back(mixers);
    mixers += static_cast<uint32_t>(layer.mixer.branches().size());
  }
  shape_ = std::make_shared<const Shape>(Shape{std::move(config), std::move(first_mixer)});
}

Tensor Decoder::embed(const Tensor& tokens) const {
  Tensor x = at::embedding(parameters_->at("token_embd.weight"), tokens);
  if (config().embedding_scale != 1) x = x * config().embedding_scale;
  if (config().sink_tokens == 0) return x;
  const Tensor sinks = parameters_->at("sink_embd.weight");
  return at::cat({sinks.unsqueeze(0).expand({tokens.size(0), sinks.size(0), sinks.size(1)}), x}, 1);
}

Tensor Decoder::layer(size_t number, Tensor x, const BatchRows& rows, const PassContext& context) const {
  const LayerConfig& layer = config().layers[number];
  const Weights weights = context.weights(*parameters_, fmt::format("blk.{}.", number), layer);
  if (layer.memory)
    x = x + engram(config(), *layer.memory, weights, x, rows_of(rows, layer.memory->table, number));
  Tensor out = mixer(config(), layer.mixer, weights, norm(config(), x, weights["attn_norm.weight"]),
                     context.for_mixer(shape_->first_mixer[number]));
  if (layer.post_norm) out = norm(config(), out, weights["post_attention_norm.weight"]);
  x = x + out;
  out = feed_forward(layer.ffn, weights, norm(config(), x, weights["ffn_norm.weight"]),
                     context.for_layer(static_cast<uint32_t>(number)));
  if (layer.post_norm) out = norm(config(), out, weights["post_ffw_norm.weight"]);
  return x + out;
}

Tensor Decoder::hidden(const Tensor& tokens, const BatchRows& rows, const PassOptions& options) const {
  require(tokens.dim() == 2 && tokens.scalar_type() == at::kLong && tokens.numel() > 0,
          ErrorCode::invalid_argument, "tokens must be int64 [batch, length], and at least one");
  const PassContext context(config(), options);
  Tensor x = embed(tokens);
  for (size_t i = 0; i < config().layers.size(); ++i) {
    if (!options.checkpoint_layers) {
      x = layer(i, x, rows, context);
      continue;
    }
    std::vector<Tensor> others;
    const std::string prefix = fmt::format("blk.{}.", i);
    for (const std::string& name : parameters_->names())
      if (name.starts_with(prefix) && parameters_->at(name).requires_grad())
        others.push_back(parameters_->at(name));
    BatchRows mine;  // a copy: the caller's may be gone when the layer is computed again
    if (const auto& memory = config().layers[i].memory) {
      const TouchedRows& touched = rows_of(rows, memory->table, i);
      mine[memory->table][static_cast<uint32_t>(i)] = touched;
      if (touched.rows.requires_grad()) others.push_back(touched.rows);
    }
    auto first = std::make_shared<bool>(true);
    x = recomputed(
        [self = *this, i, mine, context, first](const Tensor& in) {
          const bool again = !std::exchange(*first, false);
          return self.layer(i, in, mine, again ? context.without_recording() : context);
        },
        x, others);
  }
  if (config().sink_tokens > 0) x = x.narrow(1, config().sink_tokens, tokens.size(1));
  return norm(config(), x, parameters_->at("output_norm.weight"));
}

Tensor Decoder::head() const {
  return parameters_->at(config().tied ? "token_embd.weight" : "output.weight");
}

Tensor Decoder::logits(const Tensor& tokens, const BatchRows& rows, const PassOptions& options) const {
  Tensor out = product(hidden(tokens, rows, options), head(), {}, options.bfloat16);
  if (config().logit_scale != 1) out = out * config().logit_scale;
  return config().logit_softcap > 0 ? at::tanh(out / config().logit_softcap) * config().logit_softcap : out;
}

Tensor Decoder::loss(const Tensor& tokens, const Tensor& targets, const BatchRows& rows,
                     const PassOptions& options) const {
  require(targets.sizes() == tokens.sizes() && targets.scalar_type() == at::kLong,
          ErrorCode::invalid_argument, "targets must be int64 of the shape of the tokens");
  return cross_entropy(hidden(tokens, rows, options).flatten(0, 1), head(), targets.flatten(),
                       config().logit_scale, config().logit_softcap, options.bfloat16);
}

}  // namespace mneme::train
