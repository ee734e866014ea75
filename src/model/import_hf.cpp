#include "model/import_hf.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

#include "core/fail.h"
#include "core/json_fields.h"
#include "model/config_limits.h"
#include "model/gla_swa.h"
#include "model/hf_rope.h"
#include "model/import_hf_experts.h"

namespace mneme {
namespace {

using namespace config_limits;

/// What a model type implies, and what `transformers` takes for fields that config.json leaves out (0: the
/// field must be there).
struct Family {
  const char* type;
  uint32_t hidden_size, intermediate_size, layers, heads, kv_heads, head_dim, vocab, context;
  bool tied;
  double rope_base, local_rope_base;  // local: of window layers; 0 = the same
  bool gemma;                         // four norms stored minus one, scaled embeddings, query_pre_attn_scalar
  bool qk_norm;
  enum class Bias { none, attention_bias, qkv_only } bias;
  // which layers slide if layer_types is not there. stated: all, but only if the file names a window
  enum class Window { none, all, upper, period, stated, tail } window;
  uint32_t period;
  double attn_softcap, logit_softcap;
  double eps = 1e-6;         // of the norms
  bool qk_norm_all = false;  // QK norm over all heads
};

constexpr const char* kGlaSwa = "gla_swa";  // too unlike the others for this table: model/gla_swa.h

using B = Family::Bias;
using W = Family::Window;
// type: hidden, intermediate, layers, heads, kv_heads, head_dim, vocab, context | tied | rope, local rope |
// gemma, qk_norm | bias | window, period | soft-caps. kv_heads 0: as heads. head_dim 0: hidden / heads.
constexpr std::array<Family, 15> kFamilies{{
    {"llama", 0, 0, 0, 0, 0, 0, 0, 2048, false, 1e4, 0, false, false, B::attention_bias, W::none, 0, 0, 0},
    {"mistral", 0, 0, 0, 0, 8, 0, 0, 131072, false, 1e4, 0, false, false, B::none, W::all, 0, 0, 0},
    {"qwen2", 0, 0, 0, 0, 32, 0, 0, 32768, false, 1e4, 0, false, false, B::qkv_only, W::upper, 0, 0, 0},
    {"qwen3", 0, 0, 0, 0, 32, 128, 0, 32768, false, 1e4, 0, false, true, B::attention_bias, W::upper, 0, 0,
     0},
    {"gemma2", 2304, 9216, 26, 8, 4, 256, 256000, 8192, true, 1e4, 0, true, false, B::attention_bias,
     W::period, 2, 50, 30},
    {"gemma3_text", 2304, 9216, 26, 8, 4, 256, 262208, 131072, true, 1e6, 1e4, true, true, B::attention_bias,
     W::period, 6, 0, 0},
    {"mixtral", 4096, 14336, 32,    32,      8,         0, 32000, 131072, false,
     1e6,       0,    false, false, B::none, W::stated, 0, 0,     0,      1e-5},
    {"qwen2_moe", 2048, 5632, 24, 16, 16, 0, 151936, 32768, false, 1e4, 0, false, false, B::qkv_only,
     W::upper, 0, 0, 0},
    {"qwen3_moe", 2048, 6144, 24, 32, 4, 0, 151936, 32768, false, 1e4, 0, false, true, B::attention_bias,
     W::upper, 0, 0, 0},
    {"olmoe",           2048,    2048, 16, 16, 0,    0,   50304, 4096, false, 1e4, 0, false, true,
     B::attention_bias, W::none, 0,    0,  0,  1e-5, true},
    {"granite", 4096, 11008, 32, 32, 0, 0, 32000, 2048, false, 1e4, 0, false, false, B::attention_bias,
     W::none, 0, 0, 0},
    {"granitemoe", 4096, 11008, 32, 32, 0, 0, 32000, 2048, false, 1e4, 0, false, false, B::attention_bias,
     W::none, 0, 0, 0},
    {"granitemoeshared", 4096, 11008, 32, 32, 0, 0, 32000, 2048, false, 1e4, 0, false, false,
     B::attention_bias, W::none, 0, 0, 0},
    {"deepseek", 4096, 11008, 30, 32, 0, 0, 102400, 2048, false, 1e4, 0, false, false, B::attention_bias,
     W::none, 0, 0, 0},
    {"dots1", 4608, 10944, 62, 32, 32, 0, 152064, 2048, false, 1e4, 0, false, true, B::attention_bias,
     W::tail, 0, 0, 0},
}};

std::optional<uint32_t> or_required(uint32_t fallback) {
  return fallback == 0 ? std::nullopt : std::optional<uint32_t>(fallback);
}

Act read_act(JsonFields& fields, const Family& family) {
  const std::string name = family.gemma ? fields.string("hidden_activation", "gelu_pytorch_tanh")
                                        : fields.string("hidden_act", "silu");
  if (name == "silu" || name == "swish") return Act::silu;
  if (name == "gelu") return Act::gelu;
  if (name == "gelu_pytorch_tanh" || name == "gelu_new" || name == "gelu_fast") return Act::gelu_tanh;
  fail(ErrorCode::unsupported, "{} is \"{}\"; this version knows silu, gelu and gelu_pytorch_tanh",
       fields.where(family.gemma ? "hidden_activation" : "hidden_act"), name.substr(0, 64));
}

/// 0 = no layer slides.
uint32_t read_window(JsonFields& fields, const Family& family) {
  switch (family.window) {
    case W::none:
      return 0;
    case W::upper:
      if (!fields.boolean("use_sliding_window", false)) return 0;
      return fields.u32("sliding_window", 1, kMaxContext, 4096);
    case W::all: {
      // null means none, a missing field the library's default
      const bool absent = fields.raw("sliding_window") == nullptr;
      if (!absent && !fields.has("sliding_window")) return 0;
      return fields.u32("sliding_window", 1, kMaxContext, 4096);
    }
    case W::stated:
      return fields.has("sliding_window") ? fields.u32("sliding_window", 1, kMaxContext) : 0;
    case W::tail: {
      const bool null = fields.raw("sliding_window") != nullptr && !fields.has("sliding_window");
      return null ? 0 : fields.u32("sliding_window", 1, kMaxContext, 4096);
    }
    case W::period:
      return fields.u32("sliding_window", 1, kMaxContext, 4096);
  }
  return 0;
}

/// Which layers slide.
std::vector<bool> window_layers(JsonFields& fields, const Family& family, uint32_t layers, uint32_t window) {
  std::vector<bool> out(layers, false);
  if (fields.has("layer_types")) {
    const std::vector<std::string> types = fields.strings("layer_types", kMaxLayers);
    require(types.size() == layers, ErrorCode::corrupt, "{} has {} entries, but num_hidden_layers is {}",
            fields.where("layer_types"), types.size(), layers);
    for (uint32_t i = 0; i < layers; ++i) {
      out[i] = types[i] == "sliding_attention";
      require(out[i] || types[i] == "full_attention", ErrorCode::unsupported,
              "{}[{}] is \"{}\"; this version knows full_attention and sliding_attention",
              fields.where("layer_types"), i, types[i].substr(0, 64));
      require(!out[i] || window > 0, ErrorCode::corrupt,
              "{}[{}] is sliding_attention, but there is no sliding_window", fields.where("layer_types"), i);
    }
    return out;
  }
  if (window == 0) return out;
  const bool tail = family.window == W::tail;
  const uint32_t upper =
      tail || family.window == W::upper ? fields.u32("max_window_layers", 0, kMaxContext, tail ? 62 : 28) : 0;
  const uint32_t period =
      family.window == W::period ? fields.u32("sliding_window_pattern", 1, kMaxLayers, family.period) : 0;
  for (uint32_t i = 0; i < layers; ++i) out[i] = period > 0 ? (i + 1) % period != 0 : i >= upper;
  return out;
}

MixerConfig read_mixer(JsonFields& fields, const Family& family, const ModelConfig& model) {
  MixerConfig mixer;
  mixer.heads = fields.u32("num_attention_heads", 1, kMaxHeads, or_required(family.heads));
  const uint32_t kv_default = family.kv_heads == 0 ? mixer.heads : family.kv_heads;
  // a null means what the library makes of it: one key-value head for each head
  const bool null_kv = fields.raw("num_key_value_heads") && !fields.has("num_key_value_heads");
  mixer.kv_heads = fields.u32("num_key_value_heads", 1, kMaxHeads, null_kv ? mixer.heads : kv_default);
  if (family.head_dim == 0 && !fields.has("head_dim"))
    require(model.d_model % mixer.heads == 0, ErrorCode::corrupt,
            "{} is {}, which num_attention_heads = {} does not divide, and there is no head_dim",
            fields.where("hidden_size"), model.d_model, mixer.heads);
  mixer.head_dim = fields.u32("head_dim", 1, kMaxHeadDim,
                              family.head_dim == 0 ? model.d_model / mixer.heads : family.head_dim);
  const bool bias = family.bias == B::attention_bias && fields.boolean("attention_bias", false);
  mixer.qkv_bias = bias || (family.bias == B::qkv_only && fields.boolean("qkv_bias", true));
  mixer.o_bias = bias;
  mixer.qk_norm = family.qk_norm;
  if (family.qk_norm_all) mixer.qk_norm_over = QkNormOver::all;
  if (family.gemma) {
    const double scalar = fields.number("query_pre_attn_scalar", 1e-6, 1e9, 256.0);
    if (scalar != mixer.head_dim) mixer.scale = 1 / std::sqrt(scalar);
    mixer.softcap = fields.raw("attn_logit_softcapping") && !fields.has("attn_logit_softcapping")
                        ? 0
                        : fields.number("attn_logit_softcapping", 0, kMaxScale, family.attn_softcap);
  }
  return mixer;
}

void read_layers(JsonFields& fields, const Family& family, ModelConfig& model) {
  const uint32_t n = fields.u32("num_hidden_layers", 1, kMaxLayers, or_required(family.layers));
  LayerConfig layer;
  layer.mixer = read_mixer(fields, family, model);
  layer.ffn.hidden = fields.u32("intermediate_size", 1, kMaxHidden, or_required(family.intermediate_size));
  layer.ffn.act = read_act(fields, family);
  const std::string_view type = family.type;
  layer.ffn.bias = (type == "llama" || type == "granite") && fields.boolean("mlp_bias", false);
  layer.post_norm = family.gemma;

  const HfRope ropes = read_hf_rope(fields, model.context, family.rope_base, family.local_rope_base);
  model.rope = ropes.full;
  const uint32_t window = read_window(fields, family);
  const std::vector<bool> slides = window_layers(fields, family, n, window);
  model.layers.assign(n, layer);
  for (uint32_t i = 0; i < n; ++i) {
    if (!slides[i]) continue;
    MixerConfig& mixer = model.layers[i].mixer;
    mixer.type = MixerType::window;
    mixer.window = std::min(window, model.context);  // beyond the context there is nothing to hide
    if (!(ropes.sliding == ropes.full)) mixer.rope = ropes.sliding;
  }
}

bool read_tied(JsonFields& text, JsonFields& whole, const Family& family, const TensorSource* tensors) {
  if (text.has("tie_word_embeddings")) return text.boolean("tie_word_embeddings");
  if (whole.has("tie_word_embeddings")) return whole.boolean("tie_word_embeddings");
  if (family.tied || !tensors) return family.tied;
  for (const TensorInfo& tensor : tensors->tensors())
    if (tensor.name.ends_with("lm_head.weight")) return false;
  return true;
}

const Family& find_family(const std::string& type) {
  require(
      !type.starts_with("deepseek_v"), ErrorCode::unsupported,
      "config.json: model_type \"{}\" has multi-head latent attention, which this version does not run; of "
      "DeepSeek's line it runs deepseek and dots1",
      type.substr(0, 64));
  for (const Family& family : kFamilies)
    if (type == family.type) return family;
  fail(ErrorCode::unsupported, "config.json: model_type \"{}\" is not supported; this version runs {}",
       type.substr(0, 64), fmt::join(hf_model_types(), ", "));
}

void check_runnable(JsonFields& fields) {
  if (fields.has("quantization_config")) {
    JsonFields quantization = fields.object("quantization_config");
    fail(
        ErrorCode::unsupported,
        "config.json: the weights are quantized by \"{}\"; this version reads F32, F16 and BF16 safetensors, "
        "and GGUF files for quantized weights",
        quantization.string("quant_method", "an unnamed method").substr(0, 64));
  }
  require(!fields.boolean("use_bidirectional_attention", false), ErrorCode::unsupported,
          "config.json: use_bidirectional_attention is true; this version runs causal models only");
  require(fields.number("partial_rotary_factor", 0, 1, 1.0) == 1.0, ErrorCode::unsupported,
          "config.json: partial_rotary_factor is not 1, which no supported model_type has");
  require(!fields.has("clip_qkv"), ErrorCode::unsupported,
          "config.json: clip_qkv is set; this version does not clip queries, keys and values");
}

ModelConfig from_fields(const Json& json, const TensorSource* tensors) {
  constexpr auto kNulls = JsonFields::Nulls::absent;
  JsonFields whole(json, "", ErrorCode::corrupt, kNulls);
  if (whole.string("model_type") == kGlaSwa) {
    check_runnable(whole);
    return gla_swa_config(whole, tensors);
  }
  const bool multimodal = whole.string("model_type") == "gemma3";
  JsonFields fields = multimodal ? whole.object("text_config") : whole;
  const Family& family = find_family(multimodal ? "gemma3_text" : whole.string("model_type"));
  check_runnable(whole);
  if (multimodal) check_runnable(fields);

  ModelConfig model;
  model.d_model = fields.u32("hidden_size", 1, kMaxWidth, or_required(family.hidden_size));
  model.vocab = fields.u32("vocab_size", 1, kMaxVocab, or_required(family.vocab));
  model.context = fields.u32("max_position_embeddings", 1, kMaxContext, family.context);
  model.tied = read_tied(fields, whole, family, tensors);
  model.norm.eps = fields.number("rms_norm_eps", 0, 1, family.eps);
  if (family.gemma) {
    model.norm.weight_offset = 1;
    model.embedding_scale = std::sqrt(static_cast<double>(model.d_model));
    model.logit_softcap = fields.raw("final_logit_softcapping") && !fields.has("final_logit_softcapping")
                              ? 0
                              : fields.number("final_logit_softcapping", 0, kMaxScale, family.logit_softcap);
  }
  read_layers(fields, family, model);
  read_hf_experts(fields, family.type, model);
  if (std::string_view(family.type).starts_with("granite")) read_granite_multipliers(fields, model);
  return model;
}

}  // namespace

const std::vector<std::string>& hf_model_types() {
  static const std::vector<std::string> types = [] {
    std::vector<std::string> out;
    for (const Family& family : kFamilies) out.emplace_back(family.type);
    out.emplace_back("gemma3");
    out.emplace_back(kGlaSwa);
    return out;
  }();
  return types;
}

ModelConfig config_from_hf(std::string_view config_json, const TensorSource* tensors) {
  const Json json = parse_json(config_json, "config.json", 32);
  const auto code = [](const Error& error) {
    return error.code() == ErrorCode::unsupported ? ErrorCode::unsupported : ErrorCode::corrupt;
  };
  if (json.is_object() && json.contains(kHfConfigField)) {
    try {
      return ModelConfig::from_json(json[kHfConfigField].dump());
    } catch (const Error& error) {
      fail(code(error), "config.json: {}: {}", kHfConfigField, error.what());
    }
  }
  try {
    ModelConfig model = from_fields(json, tensors);
    model.validate();
    return model;
  } catch (const Error& error) {
    const std::string message = error.what();
    if (message.starts_with("config.json")) throw;
    fail(code(error), "config.json: {}", message);
  }
}

}  // namespace mneme
