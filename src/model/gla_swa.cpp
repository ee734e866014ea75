#include "model/gla_swa.h"

#include <array>

#include "core/fail.h"
#include "model/config_limits.h"
#include "model/hf_rope.h"
#include "model/rounded_weights.h"
#include "model/tensor_names.h"

namespace mneme {
namespace {

using namespace config_limits;

struct Name {
  std::string_view canonical, hf;  // after "blk.N." and "model.layers.N."
};

constexpr std::array<Name, 16> kNames{{
    {"attn_norm.weight", "attn_norm.weight"},
    {"attn_q.weight", "attn.q_proj.weight"},
    {"attn_q.bias", "attn.q_proj.bias"},
    {"attn_k.weight", "attn.k_proj.weight"},
    {"attn_k.bias", "attn.k_proj.bias"},
    {"attn_v.weight", "attn.v_proj.weight"},
    {"attn_v.bias", "attn.v_proj.bias"},
    {"attn_gate_a.bias", "attn.gk_proj.bias"},
    {"attn_gate_b.weight", "attn.gk_proj.1.weight"},
    {"attn_gate_b.bias", "attn.gk_proj.1.bias"},
    {"attn_out_norm.weight", "attn.g_norm.weight"},
    {"attn_output.weight", "attn.o_proj.weight"},
    {"ffn_norm.weight", "mlp_norm.weight"},
    {"ffn_gate.weight", "mlp.gate_proj.weight"},
    {"ffn_up.weight", "mlp.up_proj.weight"},
    {"ffn_down.weight", "mlp.down_proj.weight"},
}};

/// Fields whose other values name parts that the published checkpoints do not have.
void check_variant(JsonFields& fields) {
  require(!fields.boolean("use_short_conv", false), ErrorCode::unsupported,
          "{} is true; this version runs gla_swa models without short convolutions",
          fields.where("use_short_conv"));
  require(fields.boolean("elementwise_affine", true), ErrorCode::unsupported,
          "{} is false; this version runs gla_swa models whose head norms have weights",
          fields.where("elementwise_affine"));
  const std::string act = fields.string("hidden_act", "swish");
  require(act == "swish" || act == "silu", ErrorCode::unsupported, "{} is \"{}\"; gla_swa models have swish",
          fields.where("hidden_act"), act.substr(0, 64));
}

MixerConfig read_window_mixer(JsonFields& fields, uint32_t d_model) {
  MixerConfig mixer;
  mixer.type = MixerType::window;
  mixer.heads = fields.u32("num_attention_heads", 1, kMaxHeads, 28);
  mixer.kv_heads = fields.u32("num_key_value_heads", 1, kMaxHeads, 4);
  require(d_model % mixer.heads == 0, ErrorCode::corrupt,
          "{} is {}, which num_attention_heads = {} does not divide", fields.where("hidden_size"), d_model,
          mixer.heads);
  mixer.head_dim = d_model / mixer.heads;
  mixer.window = fields.u32("sliding_window", 1, kMaxContext, 4096);
  mixer.edge = WindowEdge::plus_one;
  mixer.qkv_bias = true;
  return mixer;
}

MixerConfig read_linear_mixer(JsonFields& fields, const MixerConfig& window, const TensorSource* tensors) {
  MixerConfig mixer;
  mixer.type = MixerType::gla;
  mixer.heads = window.heads;
  mixer.kv_heads = window.kv_heads;
  mixer.head_dim = window.head_dim;
  mixer.qkv_bias = true;
  mixer.feature = FeatureMap::relu;
  mixer.gate_normalizer = fields.number("gate_logit_normalizer", 1e-3, 1e6, 16.0);
  const bool fused = tensors != nullptr && tensors->find("model.layers.0.attn.gk_proj.weight") != nullptr;
  mixer.gate = fused ? GateType::matrix : GateType::low_rank;
  if (!fused) mixer.gate_rank = fields.u32("gate_low_rank_dim", 1, kMaxWidth, 16);
  return mixer;
}

/// What W8ASpike's code does beside rounding the weights.
void make_spiking(double k, ModelConfig& model) {
  const ActivationConfig spike(Activation::spike, k);
  for (LayerConfig& layer : model.layers) {
    layer.activation = ActivationPolicy(spike);
    layer.activation[Projection::down] = Activation::float_;
    if (layer.mixer.type != MixerType::window) continue;
    layer.mixer.query = spike;
    layer.mixer.kv_int8 = true;
  }
}

}  // namespace

ModelConfig gla_swa_config(JsonFields& fields, const TensorSource* tensors) {
  check_variant(fields);
  ModelConfig model;
  model.d_model = fields.u32("hidden_size", 1, kMaxWidth, 3584);
  model.vocab = fields.u32("vocab_size", 1, kMaxVocab, 152064);
  model.context = fields.u32("max_position_embeddings", 1, kMaxContext, 131072);
  model.tied = fields.boolean("tie_word_embeddings", false);
  model.norm.eps = fields.number("norm_eps", 0, 1, 1e-6);
  model.rope = read_hf_rope(fields, model.context, 1e6, 0).full;
  LayerConfig odd, even;
  odd.ffn.hidden = even.ffn.hidden = fields.u32("intermediate_size", 1, kMaxHidden, 18944);
  odd.mixer = read_window_mixer(fields, model.d_model);
  even.mixer = read_linear_mixer(fields, odd.mixer, tensors);
  const uint32_t layers = fields.u32("num_hidden_layers", 1, kMaxLayers, 28);
  for (uint32_t i = 0; i < layers; ++i) model.layers.push_back(i % 2 == 1 ? odd : even);
  if (tensors != nullptr && has_weight_scales(*tensors))
    make_spiking(fields.number("dynamic_sfr", kMinFiringK, kMaxFiringK, 3.0), model);
  return model;
}

bool has_gla_swa_names(const TensorSource& tensors) {
  return tensors.find("model.embeddings.weight") != nullptr ||
         tensors.find("model.layers.0.attn.q_proj.weight") != nullptr;
}

std::string gla_swa_tensor_name(const ModelConfig& config, std::string_view canonical) {
  if (canonical == "token_embd.weight") return "model.embeddings.weight";
  if (canonical == "output_norm.weight") return "model.norm.weight";
  if (canonical == "output.weight") return "lm_head.weight";
  if (const auto at = layer_tensor_name_of(canonical); at && at->layer < config.layers.size()) {
    const std::string block = fmt::format("model.layers.{}.", at->layer);
    if (at->part == "attn_gate_a.weight") {
      const bool fused = config.layers[at->layer].mixer.gate == GateType::matrix;
      return block + (fused ? "attn.gk_proj.weight" : "attn.gk_proj.0.weight");
    }
    for (const Name& name : kNames)
      if (name.canonical == at->part) return block + std::string(name.hf);
  }
  fail(ErrorCode::not_found, "tensor \"{}\" has no name in a gla_swa checkpoint", canonical);
}

std::string gla_swa_scales_name(std::string_view weight) {
  if (!weight.starts_with("model.layers.") || !weight.ends_with("_proj.weight") ||
      weight.ends_with(".down_proj.weight"))
    return {};
  weight.remove_suffix(std::string_view("weight").size());
  return std::string(weight) + "weight_quantizer.scales";
}

bool gla_swa_may_ignore(std::string_view name) {
  return name.ends_with(".weight_quantizer.scales");
}

}  // namespace mneme
