// The shapes of real models, as their publishers give them, in the form of ModelConfig. Golden values for the
// importers.
#pragma once
#include <cmath>

#include "mneme/model_config.h"

namespace mneme::testing_fakes {

inline ModelConfig uniform(uint32_t layers, uint32_t d_model, uint32_t heads, uint32_t kv_heads,
                           uint32_t head_dim, uint32_t hidden, uint32_t vocab, uint32_t context,
                           double rope_base, bool tied) {
  ModelConfig model;
  model.d_model = d_model;
  model.vocab = vocab;
  model.context = context;
  model.tied = tied;
  model.rope.base = rope_base;
  LayerConfig layer;
  layer.mixer.heads = heads;
  layer.mixer.kv_heads = kv_heads;
  layer.mixer.head_dim = head_dim;
  layer.ffn.hidden = hidden;
  model.layers.assign(layers, layer);
  return model;
}

inline ModelConfig smollm2_135m() {
  return uniform(30, 576, 9, 3, 64, 1536, 49152, 8192, 100000, true);
}

inline ModelConfig llama32_1b() {
  ModelConfig model = uniform(16, 2048, 32, 8, 64, 8192, 128256, 131072, 500000, true);
  RopeScaling& s = model.rope.scaling;
  s.type = RopeScaling::Type::llama3;
  s.factor = 32;
  s.original_context = 8192;
  s.low_freq_factor = 1;
  s.high_freq_factor = 4;
  return model;
}

inline ModelConfig qwen25_05b() {
  ModelConfig model = uniform(24, 896, 14, 2, 64, 4864, 151936, 32768, 1000000, true);
  model.norm.eps = 1e-6;
  for (LayerConfig& layer : model.layers) layer.mixer.qkv_bias = true;
  return model;
}

inline ModelConfig qwen3_06b() {
  ModelConfig model = uniform(28, 1024, 16, 8, 128, 3072, 151936, 40960, 1000000, true);
  model.norm.eps = 1e-6;
  for (LayerConfig& layer : model.layers) layer.mixer.qk_norm = true;
  return model;
}

inline ModelConfig mistral_7b_v01() {
  ModelConfig model = uniform(32, 4096, 32, 8, 128, 14336, 32000, 32768, 10000, false);
  for (LayerConfig& layer : model.layers) {
    layer.mixer.type = MixerType::window;
    layer.mixer.window = 4096;
  }
  return model;
}

/// Norm weights as GGUF files store them; Hugging Face's have weight_offset = 1.
inline ModelConfig gemma3(uint32_t layers, uint32_t d_model, uint32_t heads, uint32_t kv_heads,
                          uint32_t hidden, uint32_t window) {
  ModelConfig model = uniform(layers, d_model, heads, kv_heads, 256, hidden, 262144, 32768, 1000000, true);
  model.norm.eps = 1e-6;
  model.embedding_scale = std::sqrt(static_cast<double>(d_model));
  RopeConfig local;
  local.base = 10000;
  for (uint32_t i = 0; i < layers; ++i) {
    LayerConfig& layer = model.layers[i];
    layer.mixer.qk_norm = true;
    layer.post_norm = true;
    layer.ffn.act = Act::gelu_tanh;
    if (i % 6 == 5) continue;
    layer.mixer.type = MixerType::window;
    layer.mixer.window = window;
    layer.mixer.rope = local;
  }
  return model;
}

inline ModelConfig gemma3_270m() {
  return gemma3(18, 640, 4, 1, 2048, 512);
}
inline ModelConfig gemma3_1b() {
  return gemma3(26, 1152, 4, 1, 6912, 512);
}

inline std::vector<ModelConfig> all_published() {
  return {smollm2_135m(), llama32_1b(),     qwen25_05b(), qwen3_06b(),
          gemma3_270m(),  mistral_7b_v01(), gemma3_1b()};
}

}  // namespace mneme::testing_fakes
