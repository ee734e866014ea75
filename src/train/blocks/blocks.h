// The blocks of a model, each one differentiable function over whole sequences and one file block_*.cpp. A
// block takes its tensors from Weights by their canonical names and everything else from the config; nothing
// here asks which model it is.
//
// Softmax attention is computed in the prefill form, all positions of a pass at once: a window with the edge
// "plus_one_prefill" sees one key more than its decode form does, in training as in the engine's prefill.
//
// To add a block: a function here, its file, a case in tests/train/blocks/parity_test.cpp and one in
// gradient_test.cpp; both find it by the config of the case.
#pragma once
#include <memory>
#include <vector>

#include "mneme/model_config.h"
#include "train/blocks/decoder.h"
#include "train/blocks/parameters.h"
#include "train/blocks/row_table.h"

namespace mneme::train {

/// What the blocks of one pass share. Copies share the rotations; the numbers of mixer and layer are each
/// copy's own.
class PassContext {
 public:
  struct Rotation {
    Tensor cos, sin;  // [positions, pairs]
    bool half = true;
  };

  PassContext(const ModelConfig& config, const PassOptions& options);
  const PassOptions& options() const noexcept { return options_; }
  /// The angles of positions 0 .. length - 1 for heads of `head_dim`, in the type and on the device of
  /// `like`; computed once a pass for each kind.
  const Rotation& rotation(const RopeConfig& rope, uint32_t head_dim, int64_t length,
                           const Tensor& like) const;
  /// This context for the mixer of that number, counted as in Choices.
  PassContext for_mixer(uint32_t number) const;
  /// This context for the layer of that number.
  PassContext for_layer(uint32_t number) const;
  /// This context for a layer that is computed again: its choices are recorded already.
  PassContext without_recording() const;
  /// The tensors of a layer under `prefix`, computed and read as this pass says.
  Weights weights(const Parameters& parameters, std::string prefix, const LayerConfig& layer) const;
  uint32_t mixer() const noexcept { return mixer_; }
  uint32_t layer() const noexcept { return layer_; }
  /// Positions before the first token.
  int64_t sink_tokens() const noexcept { return sink_tokens_; }

 private:
  struct Kind;
  PassOptions options_;
  int64_t sink_tokens_;
  uint32_t mixer_ = 0, layer_ = 0;
  uint64_t spiking_weights_ = 0;  // where they have a price
  std::shared_ptr<std::vector<Kind>> rotations_;
};

/// The RMS norm of the model: eps and weight offset are the config's.
Tensor norm(const ModelConfig& config, const Tensor& x, const Tensor& weight);

/// Any mixer: x, already normed, [batch, positions, d_model] -> what is added to the residual stream.
/// `weights` begin where mixer_prefix() says. Throws Error(unsupported) for a type that training does not
/// know.
Tensor mixer(const ModelConfig& config, const MixerConfig& mixer, const Weights& weights, const Tensor& x,
             const PassContext& context);

/// full, window and sparse.
Tensor softmax_mixer(const ModelConfig& config, const MixerConfig& mixer, const Weights& weights,
                     const Tensor& x, const PassContext& context);
Tensor gla_mixer(const ModelConfig& config, const MixerConfig& mixer, const Weights& weights,
                 const Tensor& x);
Tensor delta_mixer(const ModelConfig& config, const MixerConfig& mixer, const Weights& weights,
                   const Tensor& x);
Tensor parallel_mixer(const ModelConfig& config, const MixerConfig& mixer, const Weights& weights,
                      const Tensor& x, const PassContext& context);

/// Dense or a mixture of experts; x, already normed, [batch, positions, d_model] -> what is added to the
/// residual stream. The context must be that of its layer.
Tensor feed_forward(const FfnConfig& ffn, const Weights& weights, const Tensor& x,
                    const PassContext& context);
/// A mixture. Throws Error(corrupt) for a router whose scores are not finite: layer, expert and position.
Tensor mixture_of_experts(const FfnConfig& ffn, const Weights& weights, const Tensor& x,
                          const PassContext& context);
/// act(gate) * up.
Tensor activated(Act act, const Tensor& gate, const Tensor& up);

/// An Engram module: what is added to the residual stream x [batch, length, d_model] before the mixer (x is
/// not normed: the module norms inside). `rows` are those of its table and layer for the same tokens.
Tensor engram(const ModelConfig& config, const EngramModuleConfig& module, const Weights& weights,
              const Tensor& x, const TouchedRows& rows);

/// The blocks that each query of a sparse mixer sees: int64 [batch, heads, positions, top_k] as in Choices. q
/// [batch, kv_heads, group, positions, head_dim] and k [batch, kv_heads, positions, head_dim] after RoPE.
Tensor choose_blocks(const MixerConfig& mixer, const Tensor& q, const Tensor& k, int64_t sink_tokens);

/// Heads of a projection: [batch, positions, kv_heads * group * dim] -> [batch, kv_heads, group, positions,
/// dim], and back.
Tensor split_heads(const Tensor& x, int64_t kv_heads, int64_t group);
Tensor join_heads(const Tensor& heads);
/// The feature map of a recurrence.
Tensor feature_map(FeatureMap map, const Tensor& x);
/// MixerConfig::scale, or 1/sqrt(head_dim).
double mixer_scale(const MixerConfig& mixer);

}  // namespace mneme::train
