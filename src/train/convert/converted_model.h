// A model while it is converted: config, tensors and memory tables, and the surgery that gives layers another
// kind of mixer or a memory. Tensors that a conversion has not touched share their memory with the original,
// so that two models of which a few layers differ cost little more than one.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/file.h"
#include "train/blocks/blocks.h"
#include "train/blocks/decoder.h"
#include "train/blocks/engram_ids.h"

namespace mneme::train {

using NamedTensors = std::map<std::string, Tensor, std::less<>>;

struct ConvertedModel {
  ModelConfig config;
  Parameters parameters;
  RowTables tables;
  TableIds ids;

  /// The rows that a pass over these tokens reads.
  BatchRows rows(const Tensor& tokens) const { return touch_rows(config, ids, tables, tokens); }
};

/// A GGUF file or folder as the engine loads it, with the rows of its memories. Throws what load_model() and
/// load_table() throw, and Error(unsupported) for memories whose pack the config does not name.
ConvertedModel load_original(const fs::path& path);

/// The model with another config. A tensor of the same name and shape is the old one; a branch of a new
/// parallel mixer has the projections of the mixer that was there (`model` keeps its own); every other tensor
/// is new: gates, decays and betas by Xavier's uniform rule with a gain of 2^-2.5 and biases of 0, norms 1,
/// the rest as Parameters::create() makes it. So starts SpikingBrain-7B's code; decays are then about 0.958 a
/// token. Equal seeds give equal tensors.
ConvertedModel with_config(const ConvertedModel& model, const ModelConfig& config, uint64_t seed);

/// Biases of the gates of the gated linear attention in these layers, by name, for which channel c of every
/// key head forgets over pi / (2 f) tokens, where f is what RoPE of the `old` model's mixer turned c by a
/// token: beyond that distance rotated keys stop to agree, and that is what a decay can keep of the rotation.
/// From 1 token to the model's context.
NamedTensors rope_gates(const ModelConfig& old, const ModelConfig& config,
                        const std::vector<uint32_t>& layers);

/// `model` with the mixers of these layers taken from `donor`, config and tensors.
ConvertedModel with_mixers_of(const ConvertedModel& model, const ConvertedModel& donor,
                              const std::vector<uint32_t>& layers);

/// Makes these tensors the model's own (copies of what may be shared) and the only ones that need gradients.
void make_trainable(ConvertedModel& model, const std::function<bool(const std::string& name)>& trained);
/// Replaces tensors by name.
void replace(ConvertedModel& model, const NamedTensors& tensors);

/// The residual stream before layer 0: tokens int64 [batch, length] -> [batch, sink tokens + length,
/// d_model].
Tensor embed_tokens(const ConvertedModel& model, const Tensor& tokens);
/// What a layer's mixer reads and gives: both [batch, positions, d_model], before the post-norm.
using MixerTap = std::function<void(uint32_t layer, const Tensor& normed, const Tensor& mixed)>;
/// One layer; as Decoder does it.
Tensor run_layer(const ConvertedModel& model, uint32_t layer, Tensor x, const BatchRows& rows,
                 const PassContext& context, const MixerTap& tap = {});
/// The mixer of a layer alone: normed -> what is added to the residual stream, before the post-norm.
Tensor run_mixer(const ConvertedModel& model, uint32_t layer, const Tensor& normed,
                 const PassContext& context);

/// [vocab, d_model].
const Tensor& output_head(const ConvertedModel& model);

}  // namespace mneme::train
