#include "convert/describe_gguf.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "convert/same_model.h"
#include "core/fail.h"
#include "model/import_gguf.h"
#include "model/rope_frequencies.h"
#include "model/tensor_names.h"

namespace mneme {
namespace {

/// The first layer that is a mixture of experts, or null.
const LayerConfig* first_mixture(const ModelConfig& config) {
  for (const LayerConfig& layer : config.layers)
    if (layer.ffn.moe()) return &layer;
  return nullptr;
}

/// Which family's graph computes such a mixture. That everything else fits, reading back decides.
std::string expert_architecture(const LayerConfig& layer) {
  if (layer.mixer.qk_norm && layer.mixer.qk_norm_over == QkNormOver::all) return "olmoe";
  if (layer.ffn.router == RouterScore::sigmoid) return "dots1";
  if (layer.mixer.qk_norm) return "qwen3moe";
  if (layer.ffn.shared_gate || layer.mixer.qkv_bias) return "qwen2moe";
  return layer.ffn.shared > 0 ? "deepseek" : "llama";
}

std::string architecture(const ModelConfig& config) {
  if (const LayerConfig* mixture = first_mixture(config)) return expert_architecture(*mixture);
  const LayerConfig& layer = config.layers.front();
  if (layer.post_norm) return layer.mixer.qk_norm ? "gemma3" : "gemma2";
  if (layer.mixer.qk_norm) return "qwen3";
  return layer.mixer.qkv_bias && !layer.mixer.o_bias ? "qwen2" : "llama";
}

void set_rope_style(ModelConfig& config, RopeConfig::Style style) {
  config.rope.style = style;
  for (auto& layer : config.layers)
    for (MixerConfig& mixer : layer.mixer.branches())
      if (mixer.rope) mixer.rope->style = style;
}

/// One number if all layers agree, else one for each.
template <class Get>
GgufValue per_layer(const ModelConfig& config, const Get& get) {
  std::vector<uint64_t> values(config.layers.size());
  std::transform(config.layers.begin(), config.layers.end(), values.begin(), get);
  if (std::all_of(values.begin(), values.end(), [&](uint64_t v) { return v == values[0]; })) return values[0];
  return values;
}

void put_windows(const ModelConfig& config, const std::string& arch, GgufMetadata& out) {
  std::vector<bool> windowed;
  const MixerConfig* window = nullptr;
  for (const auto& layer : config.layers) {
    windowed.push_back(layer.mixer.type == MixerType::window);
    if (windowed.back() && window == nullptr) window = &layer.mixer;
  }
  if (window == nullptr) return;
  out.set(arch + ".attention.sliding_window", uint64_t{window->window});
  if (std::find(windowed.begin(), windowed.end(), false) != windowed.end())
    out.set(arch + ".attention.sliding_window_pattern", windowed);
  if (const auto& rope = window->rope) out.set(arch + ".rope.freq_base_swa", rope->base);
}

/// Llama 3's scaling has no keys: its file holds the divisor of every frequency.
std::vector<float> frequency_divisors(const ModelConfig& config) {
  const auto type = config.rope.scaling.type;
  if (type != RopeScaling::Type::llama3 && type != RopeScaling::Type::factors) return {};
  const uint32_t head_dim = config.layers.front().mixer.head_dim;
  RopeConfig plain = config.rope;
  plain.scaling = {};
  auto divisors = rope_inverse_frequencies(plain, head_dim);
  const auto scaled = rope_inverse_frequencies(config.rope, head_dim);
  for (size_t i = 0; i < divisors.size(); ++i) divisors[i] /= scaled[i];
  return divisors;
}

void put_rope(const ModelConfig& config, const std::string& arch, GgufMetadata& out) {
  const RopeConfig& rope = config.rope;
  const uint32_t head_dim = config.layers.front().mixer.head_dim;
  out.set(arch + ".rope.freq_base", rope.base);
  out.set(arch + ".rope.dimension_count", uint64_t{rope.dims == 0 ? head_dim : rope.dims});
  const RopeScaling& scaling = rope.scaling;
  if (scaling.type == RopeScaling::Type::linear) {
    out.set(arch + ".rope.scaling.type", std::string("linear"));
    out.set(arch + ".rope.scaling.factor", scaling.factor);
  } else if (scaling.type == RopeScaling::Type::yarn) {
    out.set(arch + ".rope.scaling.type", std::string("yarn"));
    out.set(arch + ".rope.scaling.factor", scaling.factor);
    out.set(arch + ".rope.scaling.original_context_length", static_cast<uint64_t>(scaling.original_context));
    out.set(arch + ".rope.scaling.yarn_beta_fast", scaling.beta_fast);
    out.set(arch + ".rope.scaling.yarn_beta_slow", scaling.beta_slow);
    if (scaling.attention_factor != 0)
      out.set(arch + ".rope.scaling.attn_factor",
              scaling.attention_factor / (0.1 * std::log(scaling.factor) + 1));
  }
}

void put_experts(const ModelConfig& config, const std::string& arch, GgufMetadata& out) {
  const LayerConfig* const layer = first_mixture(config);
  if (layer == nullptr) return;
  const FfnConfig& ffn = layer->ffn;
  out.set(arch + ".expert_count", uint64_t{ffn.experts});
  out.set(arch + ".expert_used_count", uint64_t{ffn.top_k});
  out.set(arch + ".expert_feed_forward_length", uint64_t{ffn.hidden});
  if (arch == "qwen2moe" && ffn.shared > 0)
    out.set(arch + ".expert_shared_feed_forward_length", uint64_t{ffn.shared_width()});
  if (arch != "deepseek" && arch != "dots1") return;
  out.set(arch + ".expert_shared_count", uint64_t{ffn.shared});
  out.set(arch + ".leading_dense_block_count", static_cast<uint64_t>(layer - config.layers.data()));
  out.set(arch + ".expert_weights_scale", ffn.scale);
  out.set(arch + ".expert_weights_norm", ffn.renormalise);
  out.set(arch + ".expert_gating_func", uint64_t{ffn.router == RouterScore::sigmoid ? 2u : 1u});
  if (ffn.groups <= 1) return;
  out.set(arch + ".expert_group_count", uint64_t{ffn.groups});
  out.set(arch + ".expert_group_used_count", uint64_t{ffn.top_groups});
}

/// Whether the layers are those that a family's graph has: mixtures only, or after a run of dense ones, too.
bool has_standard_experts(const ModelConfig& config, const std::string& arch) {
  const LayerConfig* const first = first_mixture(config);
  if (first == nullptr) return true;
  for (const LayerConfig& layer : config.layers)
    if (&layer >= first && !layer.ffn.moe()) return false;
  return first == config.layers.data() || arch == "deepseek" || arch == "dots1";
}

void put_architecture(const ModelConfig& config, const std::string& arch, GgufMetadata& out) {
  const MixerConfig& mixer = config.layers.front().mixer;
  out.set("general.architecture", arch);
  out.set(arch + ".vocab_size", uint64_t{config.vocab});
  out.set(arch + ".context_length", uint64_t{config.context});
  out.set(arch + ".embedding_length", uint64_t{config.d_model});
  out.set(arch + ".block_count", uint64_t{config.layers.size()});
  out.set(arch + ".feed_forward_length", per_layer(config, [](auto& l) { return l.ffn.hidden; }));
  out.set(arch + ".attention.head_count", per_layer(config, [](auto& l) { return l.mixer.heads; }));
  out.set(arch + ".attention.head_count_kv", per_layer(config, [](auto& l) { return l.mixer.kv_heads; }));
  out.set(arch + ".attention.key_length", uint64_t{mixer.head_dim});
  out.set(arch + ".attention.value_length", uint64_t{mixer.head_dim});
  out.set(arch + ".attention.layer_norm_rms_epsilon", config.norm.eps);
  if (mixer.scale != 0) out.set(arch + ".attention.scale", mixer.scale);
  if (mixer.softcap != 0) out.set(arch + ".attn_logit_softcapping", mixer.softcap);
  if (config.logit_softcap != 0) out.set(arch + ".final_logit_softcapping", config.logit_softcap);
  put_experts(config, arch, out);
  put_rope(config, arch, out);
  put_windows(config, arch, out);
}

/// The tensors that the file will have, for reading its description back before there is a file.
class FutureTensors final : public TensorSource {
 public:
  FutureTensors(const ModelConfig& config, const std::vector<float>& rope_freqs) : rope_freqs_(rope_freqs) {
    for (auto& expected : expected_tensors(config))
      tensors_.push_back({expected.name, DType::f32, expected.shape, 0});
    if (!rope_freqs.empty())
      tensors_.push_back(
          {"rope_freqs.weight", DType::f32, {rope_freqs.size()}, rope_freqs.size() * sizeof(float)});
  }
  const std::vector<TensorInfo>& tensors() const override { return tensors_; }
  const TensorInfo* find(std::string_view name) const override {
    for (const auto& tensor : tensors_)
      if (tensor.name == name) return &tensor;
    return nullptr;
  }
  Bytes data(const TensorInfo& tensor) const override {
    require(tensor.name == "rope_freqs.weight", ErrorCode::internal, "tensor {} has no data yet",
            tensor.name);
    return std::as_bytes(std::span(rope_freqs_));
  }
  void release(const TensorInfo&) const override {}
  uint64_t file_bytes() const override { return 0; }
  std::vector<fs::path> paths() const override { return {}; }

 private:
  const std::vector<float>& rope_freqs_;
  std::vector<TensorInfo> tensors_;
};

bool reads_back(const GgufDescription& description) {
  try {
    const FutureTensors tensors(description.config, description.rope_freqs);
    return same_model(config_from_gguf(description.metadata, tensors), description.config);
  } catch (const Error&) {
    return false;
  }
}

}  // namespace

GgufDescription describe_gguf(const ModelConfig& config) {
  GgufDescription out;
  out.config = config;
  out.config.norm.weight_offset = 0;
  const std::string family = has_standard_mixers(config) ? architecture(config) : "";
  const bool standard = !family.empty() && has_standard_experts(config, family);
  const std::string arch = standard ? family : "mneme";
  const bool neighbours = arch == "llama" || arch == "deepseek";
  set_rope_style(out.config, neighbours ? RopeConfig::Style::interleaved : RopeConfig::Style::half);
  if (standard) {
    put_architecture(out.config, arch, out.metadata);
    out.rope_freqs = frequency_divisors(out.config);
    out.standard = reads_back(out);
  }
  if (!out.standard) {
    out.metadata = {};
    out.rope_freqs.clear();
    out.metadata.set("general.architecture", std::string("mneme"));
  }
  if (!config.name.empty()) out.metadata.set("general.name", config.name);
  out.metadata.set(kConfigKey, out.config.to_json());
  return out;
}

}  // namespace mneme
