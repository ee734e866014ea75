#include "model/tensor_names.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <set>

#include "core/fail.h"
#include "files/printable.h"
#include "model/gla_swa.h"

namespace mneme {
namespace {

struct NamePair {
  std::string_view canonical;  // after "blk.N."
  std::string_view hf;         // after "layers.N."
};

constexpr std::array<NamePair, 43> kLayerNames{{
    {"attn_norm.weight", "input_layernorm.weight"},
    {"attn_q.weight", "self_attn.q_proj.weight"},
    {"attn_q.bias", "self_attn.q_proj.bias"},
    {"attn_k.weight", "self_attn.k_proj.weight"},
    {"attn_k.bias", "self_attn.k_proj.bias"},
    {"attn_v.weight", "self_attn.v_proj.weight"},
    {"attn_v.bias", "self_attn.v_proj.bias"},
    {"attn_q_norm.weight", "self_attn.q_norm.weight"},
    {"attn_k_norm.weight", "self_attn.k_norm.weight"},
    {"attn_sinks.weight", "self_attn.sinks"},
    {"attn_gate_a.weight", "self_attn.gate_a_proj.weight"},
    {"attn_gate_a.bias", "self_attn.gate_a_proj.bias"},
    {"attn_gate_b.weight", "self_attn.gate_b_proj.weight"},
    {"attn_gate_b.bias", "self_attn.gate_b_proj.bias"},
    {"attn_decay.weight", "self_attn.decay_proj.weight"},
    {"attn_beta.weight", "self_attn.beta_proj.weight"},
    {"attn_a_log.weight", "self_attn.A_log"},
    {"attn_dt_bias.weight", "self_attn.dt_bias"},
    {"attn_out_norm.weight", "self_attn.out_norm.weight"},
    {"attn_output.weight", "self_attn.o_proj.weight"},
    {"attn_output.bias", "self_attn.o_proj.bias"},
    {"post_attention_norm.weight", "post_attention_layernorm.weight"},
    {"ffn_gate.weight", "mlp.gate_proj.weight"},
    {"ffn_gate.bias", "mlp.gate_proj.bias"},
    {"ffn_up.weight", "mlp.up_proj.weight"},
    {"ffn_up.bias", "mlp.up_proj.bias"},
    {"ffn_down.weight", "mlp.down_proj.weight"},
    {"ffn_down.bias", "mlp.down_proj.bias"},
    {"ffn_gate_inp.weight", "mlp.gate.weight"},
    {"exp_probs_b.bias", "mlp.gate.e_score_correction_bias"},
    {"ffn_gate_shexp.weight", "mlp.shared_expert.gate_proj.weight"},
    {"ffn_up_shexp.weight", "mlp.shared_expert.up_proj.weight"},
    {"ffn_down_shexp.weight", "mlp.shared_expert.down_proj.weight"},
    {"ffn_gate_inp_shexp.weight", "mlp.shared_expert_gate.weight"},
    {"post_ffw_norm.weight", "post_feedforward_layernorm.weight"},
    {"engram_k.weight", "engram.k_proj.weight"},
    {"engram_k.bias", "engram.k_proj.bias"},
    {"engram_v.weight", "engram.v_proj.weight"},
    {"engram_v.bias", "engram.v_proj.bias"},
    {"engram_k_norm.weight", "engram.k_norm.weight"},
    {"engram_q_norm.weight", "engram.q_norm.weight"},
    {"engram_conv.weight", "engram.conv.weight"},
    {"engram_conv_norm.weight", "engram.conv_norm.weight"},
}};

constexpr std::string_view kAttention = "self_attn.";

/// Where the text model may stand in a Hugging Face checkpoint.
constexpr std::array<std::string_view, 4> kPrefixes{"model.", "language_model.model.",
                                                    "model.language_model.", ""};

/// Name of the output head beside a prefix: a multimodal file may nest it too.
std::string head_name(std::string_view prefix) {
  return prefix == "language_model.model." ? "language_model.lm_head.weight" : "lm_head.weight";
}

std::string shape_text(const std::vector<uint64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

/// Tensors that checkpoints carry beside the weights and that the config already accounts for.
bool derived(std::string_view name) {
  return name == "rope_freqs.weight" || name.ends_with("rotary_emb.inv_freq");
}

void append_memory(const ModelConfig& config, const EngramModuleConfig& memory, const std::string& blk,
                   std::vector<ExpectedTensor>& out) {
  for (ExpectedTensor& tensor :
       expected_engram_tensors(memory, config.tables.at(memory.table).embedding_dim(), config.d_model))
    out.push_back({blk + tensor.name, std::move(tensor.shape)});
}

void append_gate(const MixerConfig& mixer, uint64_t d, uint64_t kv, const std::string& blk,
                 std::vector<ExpectedTensor>& out) {
  if (mixer.gate == GateType::low_rank) {
    out.push_back({blk + "attn_gate_a.weight", {mixer.gate_rank, d}});
    out.push_back({blk + "attn_gate_b.weight", {kv, mixer.gate_rank}});
    out.push_back({blk + "attn_gate_b.bias", {kv}});
  } else if (mixer.gate == GateType::matrix) {
    out.push_back({blk + "attn_gate_a.weight", {kv, d}});
    out.push_back({blk + "attn_gate_a.bias", {kv}});
  }
}

/// One mixer; `blk` ends in "mix0." or "mix1." for a branch.
void append_projections(uint64_t d, const MixerConfig& mixer, const std::string& blk,
                        std::vector<ExpectedTensor>& out) {
  const uint64_t q = uint64_t{mixer.heads} * mixer.head_dim;
  const uint64_t kv = uint64_t{mixer.kv_heads} * mixer.head_dim;
  out.push_back({blk + "attn_q.weight", {q, d}});
  out.push_back({blk + "attn_k.weight", {kv, d}});
  out.push_back({blk + "attn_v.weight", {kv, d}});
  if (mixer.qkv_bias) {
    out.push_back({blk + "attn_q.bias", {q}});
    out.push_back({blk + "attn_k.bias", {kv}});
    out.push_back({blk + "attn_v.bias", {kv}});
  }
  if (mixer.qk_norm) {
    const bool all = mixer.qk_norm_over == QkNormOver::all;
    out.push_back({blk + "attn_q_norm.weight", {all ? q : mixer.head_dim}});
    out.push_back({blk + "attn_k_norm.weight", {all ? kv : mixer.head_dim}});
  }
  if (mixer.sink_logits) out.push_back({blk + "attn_sinks.weight", {mixer.heads}});
  if (mixer.type == MixerType::gla) append_gate(mixer, d, kv, blk, out);
  if (mixer.type == MixerType::delta) {
    out.push_back({blk + "attn_decay.weight", {mixer.kv_heads, d}});
    out.push_back({blk + "attn_beta.weight", {mixer.kv_heads, d}});
    out.push_back({blk + "attn_a_log.weight", {mixer.kv_heads}});
    out.push_back({blk + "attn_dt_bias.weight", {mixer.kv_heads}});
  }
  if (mixer.recurrent() && mixer.out_norm) out.push_back({blk + "attn_out_norm.weight", {mixer.head_dim}});
  out.push_back({blk + "attn_output.weight", {d, q}});
  if (mixer.o_bias) out.push_back({blk + "attn_output.bias", {d}});
}

void append_mixer(const ModelConfig& config, const MixerConfig& mixer, const std::string& blk,
                  std::vector<ExpectedTensor>& out) {
  const uint64_t d = config.d_model;
  if (mixer.type != MixerType::parallel) return append_projections(d, mixer, blk, out);
  for (size_t b = 0; b < mixer.of.size(); ++b) {
    append_projections(d, mixer.of[b], mixer_prefix(blk, mixer, b), out);
    out.push_back({fmt::format("{}mix{}_norm.weight", blk, b), {d}});
  }
  if (mixer.learned) out.push_back({blk + "mix_weights.weight", {mixer.of.size()}});
}

/// The name after "layers.N." of a tensor of a parallel mixer, or "" if `part` is none.
std::string branch_hf_name(std::string_view part) {
  if (part == "mix_weights.weight") return "mixer_weights";
  if (!part.starts_with("mix") || part.size() < 5 || (part[3] != '0' && part[3] != '1')) return "";
  const char branch = part[3];
  part.remove_prefix(4);
  if (part == "_norm.weight") return fmt::format("mixers.{}.norm.weight", branch);
  if (!part.starts_with('.')) return "";
  for (const NamePair& pair : kLayerNames)
    if (pair.canonical == part.substr(1) && pair.hf.starts_with(kAttention))
      return fmt::format("mixers.{}.{}", branch, pair.hf.substr(kAttention.size()));
  return "";
}

void append_moe(const FfnConfig& ffn, uint64_t d, const std::string& blk, std::vector<ExpectedTensor>& out) {
  out.push_back({blk + "ffn_gate_inp.weight", {ffn.choices(), d}});
  if (ffn.selection_bias) out.push_back({blk + "exp_probs_b.bias", {ffn.choices()}});
  for (uint32_t e = 0; e < ffn.experts; ++e) {
    out.push_back({expert_tensor_name(blk, "gate", e), {ffn.hidden, d}});
    out.push_back({expert_tensor_name(blk, "up", e), {ffn.hidden, d}});
    out.push_back({expert_tensor_name(blk, "down", e), {d, ffn.hidden}});
  }
  if (ffn.shared == 0) return;
  const uint64_t width = ffn.shared_width();
  out.push_back({blk + "ffn_gate_shexp.weight", {width, d}});
  out.push_back({blk + "ffn_up_shexp.weight", {width, d}});
  out.push_back({blk + "ffn_down_shexp.weight", {d, width}});
  if (ffn.shared_gate) out.push_back({blk + "ffn_gate_inp_shexp.weight", {d}});
}

/// The name after "layers.N." of an expert's matrix, "ffn_up.7.weight", or "" if `part` is none.
std::string expert_hf_name(std::string_view part) {
  const auto name = expert_tensor_name_of(part);
  return name ? fmt::format("mlp.experts.{}.{}_proj.weight", name->expert, name->projection) : "";
}

void append_ffn(const ModelConfig& config, const FfnConfig& ffn, const std::string& blk,
                std::vector<ExpectedTensor>& out) {
  const uint64_t d = config.d_model;
  if (ffn.moe()) return append_moe(ffn, d, blk, out);
  out.push_back({blk + "ffn_gate.weight", {ffn.hidden, d}});
  out.push_back({blk + "ffn_up.weight", {ffn.hidden, d}});
  out.push_back({blk + "ffn_down.weight", {d, ffn.hidden}});
  if (ffn.bias) {
    out.push_back({blk + "ffn_gate.bias", {ffn.hidden}});
    out.push_back({blk + "ffn_up.bias", {ffn.hidden}});
    out.push_back({blk + "ffn_down.bias", {d}});
  }
}

constexpr std::array<std::pair<std::string_view, Projection>, 12> kMatrixProjections{
    {{"attn_q", Projection::q},
     {"attn_k", Projection::k},
     {"attn_v", Projection::v},
     {"attn_output", Projection::o},
     {"ffn_gate", Projection::gate},
     {"ffn_up", Projection::up},
     {"ffn_down", Projection::down},
     {"attn_gate_a", Projection::recurrence},
     {"attn_decay", Projection::recurrence},
     {"attn_beta", Projection::recurrence},
     {"engram_k", Projection::memory},
     {"engram_v", Projection::memory}}};

}  // namespace

std::optional<LayerTensorName> layer_tensor_name_of(std::string_view canonical) {
  constexpr std::string_view kBegin = "blk.";
  if (!canonical.starts_with(kBegin)) return {};
  LayerTensorName out;
  const char* const end = canonical.data() + canonical.size();
  const auto [after, error] = std::from_chars(canonical.data() + kBegin.size(), end, out.layer);
  if (error != std::errc() || after == end || *after != '.') return {};
  out.part = canonical.substr(static_cast<size_t>(after + 1 - canonical.data()));
  return out;
}

std::optional<Projection> projection_of(std::string_view matrix) noexcept {
  constexpr std::string_view kWeight = ".weight", kShared = "_shexp";
  if (matrix.ends_with(kWeight)) matrix.remove_suffix(kWeight.size());
  const size_t dot = matrix.find_last_not_of("0123456789");  // before an expert's number
  if (dot != std::string_view::npos && matrix[dot] == '.' && dot + 1 < matrix.size())
    matrix.remove_suffix(matrix.size() - dot);
  matrix.remove_prefix(matrix.rfind('.') + 1);  // npos + 1: nothing stands before it
  if (matrix.starts_with("ffn_") && matrix.ends_with(kShared)) matrix.remove_suffix(kShared.size());
  for (const auto& [name, projection] : kMatrixProjections)
    if (name == matrix) return projection;
  return {};
}

std::string expert_tensor_name(const std::string& blk, std::string_view projection, uint32_t expert) {
  return fmt::format("{}ffn_{}.{}.weight", blk, projection, expert);
}

std::string ExpertTensorName::stacked() const {
  return fmt::format("{}ffn_{}_exps.weight", block, projection);
}

std::optional<ExpertTensorName> expert_tensor_name_of(std::string_view canonical) {
  constexpr std::string_view kBegin = "ffn_", kEnd = ".weight";
  const size_t at = canonical.rfind(kBegin);
  if (at == std::string_view::npos || !canonical.ends_with(kEnd)) return {};
  ExpertTensorName out;
  out.block = canonical.substr(0, at);
  std::string_view rest = canonical.substr(at + kBegin.size());
  rest.remove_suffix(std::min(rest.size(), kEnd.size()));
  const size_t dot = rest.find('.');
  if (dot == std::string_view::npos || dot + 1 == rest.size()) return {};
  out.projection = rest.substr(0, dot);
  if (out.projection != "gate" && out.projection != "up" && out.projection != "down") return {};
  const char* const end = rest.data() + rest.size();
  const auto [after, error] = std::from_chars(rest.data() + dot + 1, end, out.expert);
  if (error != std::errc() || after != end) return {};
  return out;
}

std::string mixer_prefix(const std::string& blk, const MixerConfig& mixer, size_t branch) {
  return mixer.type == MixerType::parallel ? fmt::format("{}mix{}.", blk, branch) : blk;
}

std::vector<ExpectedTensor> expected_engram_tensors(const EngramModuleConfig& memory, uint64_t embedding_dim,
                                                    uint64_t d) {
  std::vector<ExpectedTensor> out{{"engram_k.weight", {d, embedding_dim}},
                                  {"engram_v.weight", {d, embedding_dim}}};
  if (memory.bias) {
    out.push_back({"engram_k.bias", {d}});
    out.push_back({"engram_v.bias", {d}});
  }
  out.push_back({"engram_k_norm.weight", {d}});
  out.push_back({"engram_q_norm.weight", {d}});
  if (memory.conv) {
    out.push_back({"engram_conv.weight", {d, memory.conv->kernel}});
    out.push_back({"engram_conv_norm.weight", {d}});
  }
  return out;
}

std::vector<ExpectedTensor> expected_tensors(const ModelConfig& config) {
  const uint64_t d = config.d_model;
  std::vector<ExpectedTensor> out;
  out.push_back({"token_embd.weight", {config.vocab, d}});
  if (config.sink_tokens > 0) out.push_back({"sink_embd.weight", {config.sink_tokens, d}});
  for (size_t i = 0; i < config.layers.size(); ++i) {
    const LayerConfig& layer = config.layers[i];
    const std::string blk = fmt::format("blk.{}.", i);
    if (layer.memory) append_memory(config, *layer.memory, blk, out);
    out.push_back({blk + "attn_norm.weight", {d}});
    append_mixer(config, layer.mixer, blk, out);
    if (layer.post_norm) out.push_back({blk + "post_attention_norm.weight", {d}});
    out.push_back({blk + "ffn_norm.weight", {d}});
    append_ffn(config, layer.ffn, blk, out);
    if (layer.post_norm) out.push_back({blk + "post_ffw_norm.weight", {d}});
  }
  out.push_back({"output_norm.weight", {d}});
  if (!config.tied) out.push_back({"output.weight", {config.vocab, d}});
  return out;
}

std::string hf_tensor_name(const ModelConfig& config, std::string_view canonical, std::string_view prefix) {
  if (canonical == "token_embd.weight") return fmt::format("{}embed_tokens.weight", prefix);
  if (canonical == "output_norm.weight") return fmt::format("{}norm.weight", prefix);
  if (canonical == "output.weight") return head_name(prefix);
  if (canonical == "sink_embd.weight") return fmt::format("{}sink_embeddings.weight", prefix);
  if (const auto at = layer_tensor_name_of(canonical); at && at->layer < config.layers.size()) {
    const std::string block = fmt::format("{}layers.{}.", prefix, at->layer);
    if (at->part == "ffn_norm.weight")
      return block + (config.layers[at->layer].post_norm ? "pre_feedforward_layernorm.weight"
                                                         : "post_attention_layernorm.weight");
    for (const NamePair& pair : kLayerNames)
      if (pair.canonical == at->part) return block + std::string(pair.hf);
    if (const std::string name = branch_hf_name(at->part); !name.empty()) return block + name;
    if (const std::string name = expert_hf_name(at->part); !name.empty()) return block + name;
  }
  fail(ErrorCode::not_found, "tensor \"{}\" has no Hugging Face name", canonical);
}

std::map<std::string, std::string, std::less<>> hf_to_canonical(const ModelConfig& config,
                                                                std::string_view prefix) {
  std::map<std::string, std::string, std::less<>> out;
  for (const ExpectedTensor& tensor : expected_tensors(config))
    out.emplace(hf_tensor_name(config, tensor.name, prefix), tensor.name);
  return out;
}

std::string hf_prefix(const TensorSource& tensors) {
  for (const std::string_view prefix : kPrefixes)
    if (tensors.find(fmt::format("{}embed_tokens.weight", prefix))) return std::string(prefix);
  fail(ErrorCode::mismatch, "no tensor model.embed_tokens.weight: this is not a text model's checkpoint");
}

TensorMatch match_tensors(const ModelConfig& config, const TensorSource& tensors, NameStyle style) {
  const bool hf = style == NameStyle::hugging_face, gla_swa = hf && has_gla_swa_names(tensors);
  const std::string prefix = hf && !gla_swa ? hf_prefix(tensors) : std::string();
  TensorMatch out;
  std::set<const TensorInfo*> used;
  for (const ExpectedTensor& expected : expected_tensors(config)) {
    const std::string name = gla_swa ? gla_swa_tensor_name(config, expected.name)
                             : hf    ? hf_tensor_name(config, expected.name, prefix)
                                     : expected.name;
    const TensorInfo* found = tensors.find(name);
    require(found != nullptr, ErrorCode::mismatch,
            "tensor {} is missing; the config asks for it with shape {}", name, shape_text(expected.shape));
    require(found->shape == expected.shape, ErrorCode::mismatch,
            "tensor {} has shape {}, but the config asks for {}", name, shape_text(found->shape),
            shape_text(expected.shape));
    out.by_name.emplace(expected.name, found);
    used.insert(found);
    if (gla_swa) used.insert(tensors.find(gla_swa_scales_name(name)));  // or null
  }
  for (const TensorInfo& tensor : tensors.tensors())
    if (!used.contains(&tensor) && !derived(tensor.name)) out.leftovers.push_back(tensor.name);
  // Other checkpoints may carry parts that are not the text model's; of this one every tensor is known.
  for (const std::string& name : out.leftovers)
    require(!gla_swa || gla_swa_may_ignore(name), ErrorCode::mismatch,
            "tensor {} does not belong to a gla_swa model of this config", printable(name));
  return out;
}

}  // namespace mneme
