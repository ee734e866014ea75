// SpikingBrain-7B's checkpoints, `model_type: gla_swa`: gated linear attention in even layers, softmax
// attention in a sliding window in odd ones, on the widths and biases of Qwen2. Two variants are published:
// the float model, whose gate is a product of two matrices (gk_proj.0, gk_proj.1), and W8ASpike, whose gate
// is one matrix (gk_proj) and whose projections carry `weight_quantizer.scales`. Its weights are rounded to
// these (rounded_weights.h), the inputs of its projections are spikes, those of down_proj excepted, and in
// window layers queries spike after RoPE and the cache is int8.
//
//   canonical                      gla_swa
//   token_embd.weight              model.embeddings.weight
//   blk.N.attn_norm, ffn_norm      model.layers.N.attn_norm, mlp_norm
//   blk.N.attn_q ... attn_output   model.layers.N.attn.q_proj ... o_proj
//   blk.N.attn_gate_a, attn_gate_b model.layers.N.attn.gk_proj.0, gk_proj.1; or the one matrix gk_proj
//   blk.N.attn_out_norm            model.layers.N.attn.g_norm
//   output_norm, output, ffn_*     as in other Hugging Face checkpoints
#pragma once
#include <string>
#include <string_view>

#include "core/json_fields.h"
#include "files/tensor_source.h"
#include "mneme/model_config.h"

namespace mneme {

/// The config of a gla_swa model. `tensors` tells which variant it is; without it, the float model.
///
/// Three facts are not in config.json and follow the published code: odd layers have the window, whatever
/// `attn_layers` says (the code overwrites that list); the window shows `sliding_window` + 1 keys, as in
/// training; gates have rank 16 and are divided by 16 unless the fields gate_low_rank_dim and
/// gate_logit_normalizer say otherwise. If `tensors` have scales, inputs spike with k = `dynamic_sfr` (3).
/// Throws Error(corrupt | unsupported).
ModelConfig gla_swa_config(JsonFields& fields, const TensorSource* tensors);

/// Whether a checkpoint names its tensors as gla_swa models do.
bool has_gla_swa_names(const TensorSource& tensors);

/// The name in such a checkpoint of a tensor. Throws Error(not_found) if the architecture has none such.
std::string gla_swa_tensor_name(const ModelConfig& config, std::string_view canonical);

/// The name of the scales that a weight of a W8ASpike checkpoint is rounded to; "" for one that keeps its
/// floats: down_proj, embeddings, norms, and what is no projection.
std::string gla_swa_scales_name(std::string_view weight);

/// Whether a tensor that the config does not use may be there: scales, of which those of down_proj are never
/// used.
bool gla_swa_may_ignore(std::string_view name);

}  // namespace mneme
