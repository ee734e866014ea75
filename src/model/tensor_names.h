// The names and shapes of a model's tensors. The canonical name of a tensor is its GGUF standard name;
// Hugging Face checkpoints call the same tensors differently, and this file is the only one that knows how.
//
// clang-format off
//   canonical (GGUF)                 Hugging Face                                    shape
//   token_embd.weight                model.embed_tokens.weight                       [vocab, d_model]
//   sink_embd.weight                 model.sink_embeddings.weight                    [sink_tokens, d_model]
//   blk.N.attn_norm.weight           model.layers.N.input_layernorm.weight           [d_model]
//   blk.N.attn_q.weight (.bias)      model.layers.N.self_attn.q_proj.weight          [heads * head_dim, d_model]
//   blk.N.attn_k, attn_v             ... k_proj, v_proj                              [kv_heads * head_dim, d_model]
//   blk.N.attn_q_norm, attn_k_norm   ... q_norm, k_norm                              [head_dim]
//   blk.N.attn_sinks.weight          ... sinks                                       [heads]
//   blk.N.attn_gate_a.weight         ... gate_a_proj.weight   gla, low_rank          [gate_rank, d_model]
//   blk.N.attn_gate_b.weight, .bias  ... gate_b_proj          gla, low_rank          [kv_heads * head_dim, gate_rank]
//   blk.N.attn_gate_a.weight, .bias  ... gate_a_proj          gla, matrix            [kv_heads * head_dim, d_model]
//   blk.N.attn_decay, attn_beta      ... decay_proj, beta_proj   delta               [kv_heads, d_model]
//   blk.N.attn_a_log, attn_dt_bias   ... A_log, dt_bias          delta               [kv_heads]
//   blk.N.attn_out_norm.weight       ... out_norm.weight         gla, delta          [head_dim]
//   blk.N.attn_output.weight         ... o_proj.weight                               [d_model, heads * head_dim]
//   blk.N.mixB.attn_*                model.layers.N.mixers.B.*   branch B = 0, 1 of a parallel mixer
//   blk.N.mixB_norm.weight           model.layers.N.mixers.B.norm.weight             [d_model]
//   blk.N.mix_weights.weight         model.layers.N.mixer_weights                    [2]         if learned
//   blk.N.post_attention_norm.weight model.layers.N.post_attention_layernorm.weight  [d_model]   with post_norm
//   blk.N.ffn_norm.weight            ... post_attention_layernorm, or with post_norm
//                                        pre_feedforward_layernorm                   [d_model]
//   blk.N.ffn_gate, ffn_up           model.layers.N.mlp.gate_proj, up_proj           [hidden, d_model]
//   blk.N.ffn_down                   ... down_proj                                   [d_model, hidden]
//   blk.N.ffn_gate_inp.weight        model.layers.N.mlp.gate.weight              moe [experts + null_experts, d_model]
//   blk.N.exp_probs_b.bias           ... gate.e_score_correction_bias            moe [experts + null_experts] with selection_bias
//   blk.N.ffn_gate.E, ffn_up.E       ... experts.E.gate_proj, up_proj            moe [hidden, d_model]    one expert
//   blk.N.ffn_down.E                 ... experts.E.down_proj                     moe [d_model, hidden]
//   blk.N.ffn_gate_shexp, ffn_up_shexp ... shared_expert.gate_proj, up_proj      moe [shared width, d_model]
//   blk.N.ffn_down_shexp             ... shared_expert.down_proj                 moe [d_model, shared width]
//   blk.N.ffn_gate_inp_shexp.weight  ... shared_expert_gate.weight               moe [d_model] with shared_gate
//   blk.N.post_ffw_norm.weight       ... post_feedforward_layernorm                  [d_model]   with post_norm
//   output_norm.weight               model.norm.weight                               [d_model]
//   output.weight                    lm_head.weight                                  [vocab, d_model] unless tied
//   blk.N.engram_k, engram_v         model.layers.N.engram.k_proj, v_proj            [d_model, d_e]   with memory
//   blk.N.engram_k_norm, engram_q_norm ... k_norm, q_norm                            [d_model]
//   blk.N.engram_conv.weight         ... conv.weight   newest token last             [d_model, kernel]
//   blk.N.engram_conv_norm.weight    ... conv_norm                                   [d_model]
// clang-format on
//
// Files hold experts in several ways: stacked in one tensor (GGUF: ffn_gate_exps), gate above up, under a
// family's own names. expert_tensors.h lays all of them out as above, before anything is matched.
//
// The rows of attn_q and attn_k are ordered for RopeConfig::style: converting between an `interleaved` and a
// `half` checkpoint permutes them.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "files/tensor_source.h"
#include "mneme/model_config.h"

namespace mneme {

enum class NameStyle { gguf, hugging_face };

struct ExpectedTensor {
  std::string name;             // canonical
  std::vector<uint64_t> shape;  // outermost first
};

/// What stands before "attn_q.weight" and the other tensors of one mixer: "blk.N." (`blk`), or "blk.N.mixB."
/// in a parallel one.
std::string mixer_prefix(const std::string& blk, const MixerConfig& mixer, size_t branch);

/// "blk.3.attn_q.weight" taken apart; nothing of names that are not in a layer.
struct LayerTensorName {
  size_t layer = 0;
  std::string_view part;  // "attn_q.weight", "mix1.attn_q.weight"
};
std::optional<LayerTensorName> layer_tensor_name_of(std::string_view canonical);

/// The projection that a matrix is in an ActivationPolicy, by its name with or without what stands around it:
/// "attn_q", "ffn_gate.3" of an expert, "blk.0.ffn_gate_shexp.weight". Nothing of other tensors, nor of
/// matrices that always read floats, as routers and the second matrix of a low-rank gate do.
std::optional<Projection> projection_of(std::string_view matrix) noexcept;

/// "blk.N.ffn_gate.E.weight": a matrix of one expert; `projection` is "gate", "up" or "down".
std::string expert_tensor_name(const std::string& blk, std::string_view projection, uint32_t expert);

/// A canonical name taken apart, if it is that of an expert's matrix.
struct ExpertTensorName {
  std::string_view block;       // "blk.N.", or "" of a name without it
  std::string_view projection;  // "gate", "up", "down"
  uint32_t expert = 0;
  /// The name under which GGUF files stack the experts of a layer.
  std::string stacked() const;
};
std::optional<ExpertTensorName> expert_tensor_name_of(std::string_view canonical);

/// Every tensor that a checkpoint of this (valid) config holds, in the order of the forward pass.
std::vector<ExpectedTensor> expected_tensors(const ModelConfig& config);

/// The tensors of one Engram module, named as after "blk.N.": what a model's file or a memory pack holds for
/// it. d_e = embedding_dim.
std::vector<ExpectedTensor> expected_engram_tensors(const EngramModuleConfig& memory, uint64_t embedding_dim,
                                                    uint64_t d_model);

/// The Hugging Face name of a canonical one. `prefix` is what stands before "layers." and "embed_tokens."
/// ("model." in text models). Throws Error(not_found) for a name that is not in the table above.
std::string hf_tensor_name(const ModelConfig& config, std::string_view canonical,
                           std::string_view prefix = "model.");

/// The way back, for all tensors of a config at once: Hugging Face name -> canonical name.
std::map<std::string, std::string, std::less<>> hf_to_canonical(const ModelConfig& config,
                                                                std::string_view prefix = "model.");

/// What stands before "embed_tokens.weight" in a Hugging Face checkpoint: "model.", or longer in the text
/// part of a multimodal one. Throws Error(mismatch) if there is no such tensor.
std::string hf_prefix(const TensorSource& tensors);

/// A checkpoint seen through a config.
struct TensorMatch {
  std::map<std::string, const TensorInfo*, std::less<>> by_name;  // canonical name -> tensor of the source
  std::vector<std::string> leftovers;  // tensors of the source (its names) that the config does not use
};

/// Finds every expected tensor. Throws Error(mismatch) naming the first one that is missing or has another
/// shape than expected. The source must outlive the result.
TensorMatch match_tensors(const ModelConfig& config, const TensorSource& tensors, NameStyle style);

}  // namespace mneme
