#include "model/import_gguf.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <optional>

#include "core/fail.h"
#include "model/config_limits.h"
#include "model/import_hf_experts.h"
#include "model/rope_frequencies.h"

namespace mneme {
namespace {

using namespace config_limits;

/// What an architecture's name implies beyond its metadata keys. Sources: the keys and graphs that llama.cpp
/// documents for these architectures, and the families' own configs.
struct Family {
  const char* name;
  RopeConfig::Style style;
  Act act;
  bool gemma;           // norms after the blocks, embeddings scaled by sqrt(d_model)
  bool qkv_bias;        // always there (other families: where the file has the tensors)
  bool qk_norm;         // the same
  uint32_t period;      // every period-th layer is full, the others are windows; 0: no pattern
  uint32_t window;      // if the file does not say
  bool honours_window;  // a window without a pattern holds for all layers
  double local_base;    // RoPE base of window layers if the file does not say; 0 = as the other layers
  double attn_softcap, logit_softcap;  // if the file does not say
  uint32_t layers_27b;       // number of layers of the size whose scores are scaled by sqrt(d_model / heads)
  bool qk_norm_all = false;  // QK norm over all heads
  // of mixtures of experts
  bool renormalise = false;  // the weights of the chosen experts sum to 1
  bool divided = false;      // without a width of its own an expert has feed_forward_length / experts used
  bool multipliers = false;  // Granite's: of embeddings, residual branches and logits
};

constexpr auto kHalf = RopeConfig::Style::half, kNeighbours = RopeConfig::Style::interleaved;
constexpr Family kFamilies[] = {
    {"llama", kNeighbours, Act::silu, false, false, false, 0, 0, true, 0, 0, 0, 0, false, true},
    {"qwen2", kHalf, Act::silu, false, true, false, 0, 0, false, 0, 0, 0, 0},
    {"qwen3", kHalf, Act::silu, false, false, true, 0, 0, false, 0, 0, 0, 0},
    {"gemma2", kHalf, Act::gelu_tanh, true, false, false, 2, 4096, true, 0, 50, 30, 46},
    {"gemma3", kHalf, Act::gelu_tanh, true, false, true, 6, 0, true, 10000, 0, 0, 62},
    {"qwen2moe", kHalf, Act::silu, false, true, false, 0, 0, false, 0, 0, 0, 0, false, false, true},
    {"qwen3moe", kHalf, Act::silu, false, false, true, 0, 0, false, 0, 0, 0, 0, false, true, true},
    {"olmoe", kHalf, Act::silu, false, false, true, 0, 0, false, 0, 0, 0, 0, true},
    {"granite", kNeighbours, Act::silu, false, false, false, 0, 0, false, 0, 0, 0, 0, false, true, false,
     true},
    {"granitemoe", kNeighbours, Act::silu, false, false, false, 0, 0, false, 0, 0, 0, 0, false, true, false,
     true},
    {"deepseek", kNeighbours, Act::silu, false, false, false, 0, 0, false, 0, 0, 0, 0},
    {"dots1", kHalf, Act::silu, false, false, true, 0, 0, false, 0, 0, 0, 0},
};

/// Files hold f32; 1e-5f widened to double is 9.99999974e-06. Returns the shortest decimal that means the
/// same f32, which is the number people wrote.
double tidy(double value) {
  const float narrow = static_cast<float>(value);
  if (!std::isfinite(narrow) || static_cast<double>(narrow) != value) return value;
  char text[32];
  const auto end = std::to_chars(text, text + sizeof text, narrow).ptr;
  double out = value;
  std::from_chars(text, end, out);
  return out;
}

/// Metadata keys of one architecture, range-checked.
class Keys {
 public:
  Keys(const GgufMetadata& metadata, std::string arch) : metadata_(metadata), arch_(std::move(arch)) {}

  std::string name(std::string_view key) const { return fmt::format("{}.{}", arch_, key); }
  bool has(std::string_view key) const { return metadata_.has(name(key)); }
  std::string string(std::string_view key, std::string_view fallback) const {
    return metadata_.get_string(name(key), fallback);
  }

  uint32_t u32(std::string_view key, uint32_t least, uint32_t most,
               std::optional<uint32_t> fallback = {}) const {
    if (fallback && !has(key)) return *fallback;
    return checked(name(key), metadata_.get_uint(name(key)), least, most);
  }

  double real(std::string_view key, double least, double most, std::optional<double> fallback = {}) const {
    if (fallback && !has(key)) return *fallback;
    const double value = metadata_.get_float(name(key));
    require(std::isfinite(value) && value >= least && value <= most, ErrorCode::corrupt,
            "GGUF metadata: {} is {}, but must be a number from {} to {}", name(key), value, least, most);
    return tidy(value);
  }

  bool boolean(std::string_view key, bool fallback) const { return metadata_.get_bool(name(key), fallback); }

  /// A number for all layers, or an array with one for each.
  std::vector<uint32_t> per_layer(std::string_view key, uint32_t layers, uint32_t most,
                                  const std::vector<uint32_t>& fallback = {}) const {
    if (!fallback.empty() && !has(key)) return fallback;
    if (!is_array(key)) return std::vector<uint32_t>(layers, u32(key, 1, most));
    const std::vector<int64_t> values = metadata_.get_ints(name(key));
    require(values.size() == layers, ErrorCode::corrupt,
            "GGUF metadata: {} has {} numbers, but there are {} layers", name(key), values.size(), layers);
    std::vector<uint32_t> out;
    for (const int64_t value : values)
      out.push_back(checked(name(key), value < 0 ? UINT64_MAX : static_cast<uint64_t>(value), 1, most));
    return out;
  }

  bool is_array(std::string_view key) const {
    const GgufValue* value = metadata_.find(name(key));
    return value && (std::holds_alternative<std::vector<uint64_t>>(*value) ||
                     std::holds_alternative<std::vector<int64_t>>(*value) ||
                     std::holds_alternative<std::vector<bool>>(*value));
  }
  std::vector<int64_t> ints(std::string_view key) const { return metadata_.get_ints(name(key)); }

 private:
  const GgufMetadata& metadata_;
  std::string arch_;

  static uint32_t checked(const std::string& name, uint64_t value, uint32_t least, uint32_t most) {
    require(value >= least && value <= most, ErrorCode::corrupt,
            "GGUF metadata: {} is {}, but must be a whole number from {} to {}", name,
            static_cast<int64_t>(value), least, most);
    return static_cast<uint32_t>(value);
  }
};

/// The tensor rope_freqs.weight: one divisor a pair. Files of Llama 3.1 and later hold it instead of the
/// numbers it was computed from; those are found again where they are the published ones.
RopeScaling scaling_from_factors(const TensorSource& tensors, const TensorInfo& tensor,
                                 const RopeConfig& rope, uint32_t head_dim) {
  const uint32_t pairs = (rope.dims == 0 ? head_dim : rope.dims) / 2;
  require(tensor.type == DType::f32 && tensor.values() == pairs, ErrorCode::corrupt,
          "tensor {} must hold {} numbers of type F32, one for each pair of a head", tensor.name, pairs);
  const Bytes bytes = tensors.data(tensor);
  require(bytes.size() == pairs * sizeof(float), ErrorCode::corrupt, "tensor {} has {} bytes instead of {}",
          tensor.name, bytes.size(), pairs * sizeof(float));
  std::vector<float> values(pairs);
  std::memcpy(values.data(), bytes.data(), pairs * sizeof(float));
  RopeScaling out;
  double largest = 1;
  bool all_one = true;
  for (const float value : values) {
    require(std::isfinite(value) && value > 0 && value <= kMaxRopeFactor, ErrorCode::corrupt,
            "tensor {} holds {}, but a divisor of a frequency must be above 0 and at most {}", tensor.name,
            value, kMaxRopeFactor);
    out.factors.push_back(tidy(value));
    largest = std::max(largest, tidy(value));
    all_one = all_one && value == 1.0f;
  }
  if (all_one) return {};

  RopeConfig candidate = rope;
  candidate.scaling = {};
  candidate.scaling.type = RopeScaling::Type::llama3;
  candidate.scaling.factor = largest;
  candidate.scaling.original_context = 8192;
  RopeConfig plain = rope;
  plain.scaling = {};
  const std::vector<float> scaled = rope_inverse_frequencies(candidate, head_dim);
  const std::vector<float> unscaled = rope_inverse_frequencies(plain, head_dim);
  bool same = true;
  for (uint32_t i = 0; i < pairs; ++i)
    same = same && std::abs(unscaled[i] / scaled[i] - values[i]) <= 1e-4f * values[i];
  if (same) return candidate.scaling;
  out.type = RopeScaling::Type::factors;
  return out;
}

RopeScaling read_scaling(const Keys& keys, uint32_t context) {
  RopeScaling out;
  const std::string type = keys.string("rope.scaling.type", "linear");
  double factor = keys.real("rope.scaling.factor", 0, kMaxRopeFactor, 0.0);
  if (factor == 0) factor = keys.real("rope.scale_linear", 0, kMaxRopeFactor, 0.0);
  if (type == "none" || (type == "linear" && (factor == 0 || factor == 1))) return out;
  require(type == "linear" || type == "yarn", ErrorCode::unsupported,
          "GGUF metadata: {} is \"{}\"; this version knows none, linear, yarn and the tensor "
          "rope_freqs.weight of Llama 3",
          keys.name("rope.scaling.type"), type);
  out.factor = factor == 0 ? 1 : factor;
  out.type = RopeScaling::Type::linear;
  if (type == "linear") return out;

  out.type = RopeScaling::Type::yarn;
  out.original_context = keys.u32("rope.scaling.original_context_length", 1, kMaxContext, context);
  out.beta_fast = keys.real("rope.scaling.yarn_beta_fast", 0, kMaxRopeFactor, out.beta_fast);
  out.beta_slow = keys.real("rope.scaling.yarn_beta_slow", 0, kMaxRopeFactor, out.beta_slow);
  const double extra = keys.real("rope.scaling.attn_factor", 0, kMaxScale, 1.0);  // on top of YaRN's own
  if (extra != 1) out.attention_factor = extra * (0.1 * std::log(out.factor) + 1);
  return out;
}

RopeConfig read_rope(const Keys& keys, const Family& family, const TensorSource& tensors, uint32_t context,
                     uint32_t head_dim) {
  RopeConfig rope;
  rope.style = family.style;
  rope.base = keys.real("rope.freq_base", 1, kMaxRopeBase, 10000.0);
  rope.dims = keys.u32("rope.dimension_count", 2, head_dim, head_dim);
  require(rope.dims % 2 == 0, ErrorCode::corrupt, "GGUF metadata: {} is {}, but must be even",
          keys.name("rope.dimension_count"), rope.dims);
  if (rope.dims == head_dim) rope.dims = 0;
  require(!tensors.find("rope_factors_long.weight"), ErrorCode::unsupported,
          "tensor rope_factors_long.weight: this version does not know LongRoPE");
  if (const TensorInfo* factors = tensors.find("rope_freqs.weight"))
    rope.scaling = scaling_from_factors(tensors, *factors, rope, head_dim);
  else
    rope.scaling = read_scaling(keys, context);
  return rope;
}

/// Which layers are windows.
std::vector<bool> window_layers(const Keys& keys, const Family& family, uint32_t layers, uint32_t window) {
  std::vector<bool> out(layers, false);
  if (window == 0) return out;
  if (keys.is_array("attention.sliding_window_pattern")) {
    const std::vector<int64_t> pattern = keys.ints("attention.sliding_window_pattern");
    require(pattern.size() >= layers, ErrorCode::corrupt,
            "GGUF metadata: {} has {} values, but there are {} layers",
            keys.name("attention.sliding_window_pattern"), pattern.size(), layers);
    for (uint32_t i = 0; i < layers; ++i) out[i] = pattern[i] != 0;
    return out;
  }
  const uint32_t period = keys.u32("attention.sliding_window_pattern", 1, kMaxLayers, family.period);
  for (uint32_t i = 0; i < layers; ++i)
    out[i] = period == 0 ? family.honours_window : i % period < period - 1;
  return out;
}

void read_layer_tensors(const TensorSource& tensors, const Family& family, uint32_t index,
                        LayerConfig& layer) {
  const auto has = [&](const char* part) {
    return tensors.find(fmt::format("blk.{}.{}", index, part)) != nullptr;
  };
  layer.mixer.qkv_bias = family.qkv_bias || has("attn_q.bias") || has("attn_k.bias") || has("attn_v.bias");
  layer.mixer.o_bias = has("attn_output.bias");
  layer.mixer.qk_norm = family.qk_norm || has("attn_q_norm.weight") || has("attn_k_norm.weight");
  layer.mixer.sink_logits = has("attn_sinks.weight");
  if (layer.mixer.qk_norm && family.qk_norm_all) layer.mixer.qk_norm_over = QkNormOver::all;
  layer.ffn.bias = has("ffn_gate.bias") || has("ffn_up.bias") || has("ffn_down.bias");
  layer.post_norm = family.gemma || has("post_attention_norm.weight") || has("post_ffw_norm.weight");
}

/// Multiplier of attention scores; 0 = 1/sqrt(head_dim).
double read_scale(const Keys& keys, const Family& family, uint32_t layers, uint32_t d_model, uint32_t heads,
                  uint32_t head_dim) {
  const double given = keys.real("attention.scale", 0, kMaxScale, 0.0);
  if (given != 0) return given;
  // Gemma's 27B sizes divide by sqrt(d_model / heads), and their files do not say so
  if (family.layers_27b != 0 && layers == family.layers_27b && d_model / heads != head_dim)
    return 1.0 / std::sqrt(static_cast<double>(d_model) / heads);
  return 0;
}

uint32_t read_vocab(const GgufMetadata& metadata, const TensorSource& tensors) {
  const TensorInfo* embedding = tensors.find("token_embd.weight");
  require(embedding != nullptr, ErrorCode::mismatch, "tensor token_embd.weight is missing");
  require(embedding->shape.size() == 2 && embedding->shape[0] >= 1 && embedding->shape[0] <= kMaxVocab,
          ErrorCode::corrupt,
          "tensor token_embd.weight has {} dimensions and {} rows; it must be [vocab, d_model]",
          embedding->shape.size(), embedding->shape.empty() ? 0 : embedding->shape[0]);
  const uint64_t vocab = embedding->shape[0];
  const GgufValue* tokens = metadata.find("tokenizer.ggml.tokens");
  if (const auto* list = tokens ? std::get_if<std::vector<std::string>>(tokens) : nullptr)
    require(list->size() <= vocab, ErrorCode::mismatch,
            "tokenizer.ggml.tokens has {} tokens, but token_embd.weight only {} rows", list->size(), vocab);
  return static_cast<uint32_t>(vocab);
}

/// The feed-forward of a layer that has a router. `dense`: what it would be without.
FfnConfig read_experts(const Keys& keys, const Family& family, const TensorSource& tensors, uint32_t index,
                       const FfnConfig& dense) {
  const auto find = [&](const char* part) { return tensors.find(fmt::format("blk.{}.{}", index, part)); };
  FfnConfig ffn;
  ffn.type = FfnType::moe;
  ffn.act = dense.act;
  ffn.experts = keys.u32("expert_count", 1, kMaxExperts);
  ffn.top_k = keys.u32("expert_used_count", 1, kMaxExperts);
  ffn.hidden = keys.u32("expert_feed_forward_length", 0, kMaxHidden, 0u);
  if (ffn.hidden == 0) ffn.hidden = family.divided ? dense.hidden / ffn.top_k : dense.hidden;
  if (find("ffn_gate_shexp.weight") != nullptr) {
    ffn.shared = keys.u32("expert_shared_count", 1, kMaxSharedExperts, 1u);
    const bool counted = keys.has("expert_shared_count");
    const uint32_t width =
        keys.u32("expert_shared_feed_forward_length", 0, kMaxHidden, counted ? 0u : dense.hidden);
    ffn.shared_hidden = width / ffn.shared == ffn.hidden ? 0 : width / ffn.shared;
    ffn.shared_gate = find("ffn_gate_inp_shexp.weight") != nullptr;
  }
  const uint32_t gating = keys.u32("expert_gating_func", 0, 1000, 1u);
  require(
      gating <= 3, ErrorCode::unsupported,
      "GGUF metadata: {} is {}; this version knows 1 (softmax), 2 (sigmoid) and 3 (softmax of the chosen)",
      keys.name("expert_gating_func"), gating);
  ffn.router = gating == 2 ? RouterScore::sigmoid : RouterScore::softmax;
  ffn.renormalise = keys.boolean("expert_weights_norm", family.renormalise) || gating == 3;
  const double scale = keys.real("expert_weights_scale", 0, kMaxScale, 1.0);
  ffn.scale = scale == 0 ? 1 : scale;
  ffn.selection_bias = find("exp_probs_b.bias") != nullptr;
  ffn.groups = std::max(1u, keys.u32("expert_group_count", 0, kMaxExperts, 1u));
  ffn.top_groups = std::max(1u, keys.u32("expert_group_used_count", 0, kMaxExperts, 1u));
  if (ffn.top_groups >= ffn.groups) ffn.groups = ffn.top_groups = 1;  // all groups are seen
  if (ffn.groups > 1) ffn.group_score = GroupScore::top_two;
  return ffn;
}

void read_multipliers(const Keys& keys, ModelConfig& model) {
  const auto read = [&](const char* key) {
    const double value = keys.real(key, 0, kMaxScale, 1.0);
    return value == 0 ? 1.0 : value;
  };
  model.embedding_scale = read("embedding_scale");
  model.logit_scale = 1 / read("logit_scale");
  fold_residual_multiplier(read("residual_scale"), model);
}

std::vector<LayerConfig> read_layers(const Keys& keys, const Family& family, const TensorSource& tensors,
                                     ModelConfig& model) {
  const uint32_t n = keys.u32("block_count", 1, kMaxLayers);
  const std::vector<uint32_t> heads = keys.per_layer("attention.head_count", n, kMaxHeads);
  const std::vector<uint32_t> kv_heads = keys.per_layer("attention.head_count_kv", n, kMaxHeads, heads);
  const std::vector<uint32_t> hidden = keys.per_layer("feed_forward_length", n, kMaxHidden);
  require(keys.has("attention.key_length") || model.d_model % heads[0] == 0, ErrorCode::corrupt,
          "GGUF metadata: {} is {}, which {} = {} does not divide, and {} is missing",
          keys.name("embedding_length"), model.d_model, keys.name("attention.head_count"), heads[0],
          keys.name("attention.key_length"));
  const uint32_t head_dim = keys.u32("attention.key_length", 1, kMaxHeadDim, model.d_model / heads[0]);
  const uint32_t value_dim = keys.u32("attention.value_length", 1, kMaxHeadDim, head_dim);
  require(value_dim == head_dim, ErrorCode::unsupported,
          "GGUF metadata: {} is {} and {} is {}; this version needs them equal",
          keys.name("attention.value_length"), value_dim, keys.name("attention.key_length"), head_dim);
  model.rope = read_rope(keys, family, tensors, model.context, head_dim);

  const uint32_t window = keys.u32("attention.sliding_window", 0, kMaxContext, family.window);
  require(window != 0 || family.period == 0, ErrorCode::corrupt, "GGUF metadata: {} is missing or 0",
          keys.name("attention.sliding_window"));
  const std::vector<bool> windowed = window_layers(keys, family, n, window);
  RopeConfig local = model.rope;
  local.scaling = {};
  local.base = keys.real("rope.freq_base_swa", 1, kMaxRopeBase, family.local_base);

  std::vector<LayerConfig> out(n);
  for (uint32_t i = 0; i < n; ++i) {
    MixerConfig& mixer = out[i].mixer;
    mixer.heads = heads[i];
    mixer.kv_heads = kv_heads[i];
    mixer.head_dim = head_dim;
    mixer.scale = read_scale(keys, family, n, model.d_model, heads[i], head_dim);
    mixer.softcap = keys.real("attn_logit_softcapping", 0, kMaxScale, family.attn_softcap);
    if (windowed[i]) {
      mixer.type = MixerType::window;
      mixer.window = std::min(window, model.context);  // beyond the context there is nothing to hide
      if (local.base != 0) mixer.rope = local;
    }
    out[i].ffn.hidden = hidden[i];
    out[i].ffn.act = family.act;
    read_layer_tensors(tensors, family, i, out[i]);
    // A layer is a mixture if it has a router; families with dense layers say so in several ways.
    if (tensors.find(fmt::format("blk.{}.ffn_gate_inp.weight", i)) != nullptr)
      out[i].ffn = read_experts(keys, family, tensors, i, out[i].ffn);
  }
  return out;
}

ModelConfig from_metadata(const GgufMetadata& metadata, const TensorSource& tensors) {
  const std::string arch = metadata.get_string("general.architecture");
  const Family* family = nullptr;
  for (const Family& candidate : kFamilies)
    if (arch == candidate.name) family = &candidate;
  require(arch != "deepseek2", ErrorCode::unsupported,
          "GGUF architecture \"deepseek2\" has multi-head latent attention, which this version does not run");
  if (!family)
    fail(ErrorCode::unsupported, "GGUF architecture \"{}\" is not supported; this version runs {}",
         arch.substr(0, 64), fmt::join(gguf_architectures(), ", "));

  const Keys keys(metadata, arch);
  ModelConfig model;
  model.name = metadata.get_string("general.name", "").substr(0, kMaxNameBytes);
  model.d_model = keys.u32("embedding_length", 1, kMaxWidth);
  model.context = keys.u32("context_length", 1, kMaxContext);
  model.vocab = read_vocab(metadata, tensors);
  model.tied = tensors.find("output.weight") == nullptr;
  model.norm.eps = keys.real("attention.layer_norm_rms_epsilon", 0, 1);
  model.logit_softcap = keys.real("final_logit_softcapping", 0, kMaxScale, family->logit_softcap);
  model.embedding_scale = family->gemma ? std::sqrt(static_cast<double>(model.d_model)) : 1.0;
  model.layers = read_layers(keys, *family, tensors, model);
  const uint64_t experts = keys.u32("expert_count", 0, UINT32_MAX, 0u);
  const bool routed =
      std::any_of(model.layers.begin(), model.layers.end(), [](auto& l) { return l.ffn.moe(); });
  require(experts == 0 || routed, ErrorCode::mismatch,
          "GGUF metadata: {} is {}, but no layer has a router (tensor blk.N.ffn_gate_inp.weight)",
          keys.name("expert_count"), experts);
  if (family->multipliers) read_multipliers(keys, model);
  return model;
}

}  // namespace

const std::vector<std::string>& gguf_architectures() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> out;
    for (const Family& family : kFamilies) out.emplace_back(family.name);
    return out;
  }();
  return names;
}

ModelConfig config_from_gguf(const GgufMetadata& metadata, const TensorSource& tensors) {
  if (metadata.has(kConfigKey)) {
    try {
      return ModelConfig::from_json(metadata.get_string(kConfigKey));
    } catch (const Error& error) {
      fail(error.code() == ErrorCode::unsupported ? ErrorCode::unsupported : ErrorCode::corrupt,
           "GGUF metadata: {}: {}", kConfigKey, error.what());
    }
  }
  ModelConfig model = from_metadata(metadata, tensors);
  try {
    model.validate();
  } catch (const Error& error) {
    fail(error.code() == ErrorCode::unsupported ? ErrorCode::unsupported : ErrorCode::corrupt,
         "GGUF metadata: {}", error.what());
  }
  return model;
}

}  // namespace mneme
