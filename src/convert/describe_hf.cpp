#include "convert/describe_hf.h"

#include <algorithm>
#include <cmath>

#include "convert/same_model.h"
#include "mneme/error.h"
#include "model/import_hf.h"

namespace mneme {
namespace {

using Ordered = nlohmann::ordered_json;

struct Kind {
  const char* model_type;
  const char* architecture;
  bool gemma;
};

Kind kind_of(const ModelConfig& config) {
  const LayerConfig& layer = config.layers.front();
  const bool all_windows = std::all_of(config.layers.begin(), config.layers.end(),
                                       [](auto& l) { return l.mixer.type == MixerType::window; });
  if (layer.ffn.moe()) {
    if (layer.mixer.qk_norm_over == QkNormOver::all) return {"olmoe", "OlmoeForCausalLM", false};
    return layer.mixer.qk_norm ? Kind{"qwen3_moe", "Qwen3MoeForCausalLM", false}
                               : Kind{"qwen2_moe", "Qwen2MoeForCausalLM", false};
  }
  if (layer.post_norm)
    return layer.mixer.qk_norm ? Kind{"gemma3_text", "Gemma3ForCausalLM", true}
                               : Kind{"gemma2", "Gemma2ForCausalLM", true};
  if (layer.mixer.qk_norm) return {"qwen3", "Qwen3ForCausalLM", false};
  if (layer.mixer.qkv_bias && !layer.mixer.o_bias) return {"qwen2", "Qwen2ForCausalLM", false};
  return all_windows ? Kind{"mistral", "MistralForCausalLM", false}
                     : Kind{"llama", "LlamaForCausalLM", false};
}

const char* act_name(Act act) {
  return act == Act::silu ? "silu" : act == Act::gelu ? "gelu" : "gelu_pytorch_tanh";
}

Ordered rope_scaling(const RopeScaling& scaling) {
  using Type = RopeScaling::Type;
  if (scaling.type == Type::linear) return {{"rope_type", "linear"}, {"factor", scaling.factor}};
  Ordered out;
  if (scaling.type == Type::llama3)
    out = {{"rope_type", "llama3"},
           {"factor", scaling.factor},
           {"low_freq_factor", scaling.low_freq_factor},
           {"high_freq_factor", scaling.high_freq_factor}};
  else if (scaling.type == Type::yarn)
    out = {{"rope_type", "yarn"},
           {"factor", scaling.factor},
           {"beta_fast", scaling.beta_fast},
           {"beta_slow", scaling.beta_slow}};
  else
    return nullptr;
  out["original_max_position_embeddings"] = static_cast<uint64_t>(scaling.original_context);
  if (scaling.attention_factor != 0) out["attention_factor"] = scaling.attention_factor;
  return out;
}

void put_gemma(const ModelConfig& config, Ordered& out) {
  const auto cap = [](double value) { return value == 0 ? Ordered(nullptr) : Ordered(value); };
  const MixerConfig& mixer = config.layers.front().mixer;
  const double scale = mixer.scale;
  out["query_pre_attn_scalar"] = scale == 0 ? static_cast<double>(mixer.head_dim) : 1 / (scale * scale);
  out["attn_logit_softcapping"] = cap(mixer.softcap);
  out["final_logit_softcapping"] = cap(config.logit_softcap);
}

void put_experts(const FfnConfig& ffn, const Kind& kind, Ordered& out) {
  const bool olmoe = std::string_view(kind.model_type) == "olmoe";
  out["num_experts"] = ffn.experts;
  out["num_experts_per_tok"] = ffn.top_k;
  out["norm_topk_prob"] = ffn.renormalise;
  if (!olmoe) out["moe_intermediate_size"] = ffn.hidden;
  if (std::string_view(kind.model_type) == "qwen2_moe")
    out["shared_expert_intermediate_size"] = ffn.shared_width();
}

void put_windows(const ModelConfig& config, const Kind& kind, Ordered& out) {
  const MixerConfig* window = nullptr;
  Ordered types = Ordered::array();
  for (const auto& layer : config.layers) {
    const bool slides = layer.mixer.type == MixerType::window;
    if (slides && window == nullptr) window = &layer.mixer;
    types.push_back(slides ? "sliding_attention" : "full_attention");
  }
  if (window == nullptr) {
    if (kind.gemma) out["layer_types"] = types;
    return;
  }
  out["sliding_window"] = window->window;
  const std::string type = kind.model_type;
  if (type.starts_with("qwen")) out["use_sliding_window"] = true;
  if (type != "mistral") out["layer_types"] = types;
  if (const auto& rope = window->rope) out["rope_local_base_freq"] = rope->base;
}

Ordered standard_fields(const ModelConfig& config, const Kind& kind, const std::string& dtype) {
  const LayerConfig& layer = config.layers.front();
  Ordered out = {{"architectures", {kind.architecture}},
                 {"model_type", kind.model_type},
                 {"hidden_size", config.d_model},
                 {"intermediate_size", layer.ffn.hidden},
                 {"num_hidden_layers", config.layers.size()},
                 {"num_attention_heads", layer.mixer.heads},
                 {"num_key_value_heads", layer.mixer.kv_heads},
                 {"head_dim", layer.mixer.head_dim},
                 {"vocab_size", config.vocab},
                 {"max_position_embeddings", config.context},
                 {"rms_norm_eps", config.norm.eps},
                 {"rope_theta", config.rope.base},
                 {"rope_scaling", rope_scaling(config.rope.scaling)},
                 {"tie_word_embeddings", config.tied},
                 {"attention_bias", layer.mixer.qkv_bias && layer.mixer.o_bias},
                 {"torch_dtype", dtype}};
  out[kind.gemma ? "hidden_activation" : "hidden_act"] = act_name(layer.ffn.act);
  if (layer.ffn.bias) out["mlp_bias"] = true;
  if (layer.ffn.moe()) put_experts(layer.ffn, kind, out);
  if (kind.gemma) put_gemma(config, out);
  put_windows(config, kind, out);
  return out;
}

bool reads_back(const HfDescription& description) {
  try {
    return same_model(config_from_hf(description.json.dump()), description.config);
  } catch (const Error&) {
    return false;
  }
}

}  // namespace

HfDescription describe_hf(const ModelConfig& config, const std::string& dtype) {
  HfDescription out;
  const Kind kind = kind_of(config);
  out.config = config;
  out.config.norm.weight_offset = kind.gemma ? 1 : 0;
  out.config.rope.style = RopeConfig::Style::half;
  for (auto& layer : out.config.layers)
    for (MixerConfig& mixer : layer.mixer.branches())
      if (mixer.rope) mixer.rope->style = RopeConfig::Style::half;
  if (has_standard_mixers(config)) {
    out.json = standard_fields(out.config, kind, dtype);
    out.standard = reads_back(out);
  }
  if (!out.standard)
    out.json = {{"model_type", "mneme"},
                {"torch_dtype", dtype},
                {kHfConfigField, Ordered::parse(out.config.to_json())}};
  return out;
}

}  // namespace mneme
