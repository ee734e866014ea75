// ModelConfig: what a model *is*, as plain validated data. Every architecture maps to this one description;
// nothing after the importers asks which family a model belongs to. docs/config.md is its JSON schema in
// prose.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mneme/engram_config.h"

namespace mneme {

enum class Act { silu, gelu_tanh, gelu };
enum class MixerType { full, window };
enum class FfnType { dense };
/// What the inputs of a projection are rounded to. `automatic`: int8 for quantized weights, float otherwise.
enum class Activation { automatic, float_, int8, spike };

/// RMS normalisation: x / sqrt(mean(x^2) + eps) * (weight + weight_offset).
struct NormConfig {
  double eps = 1e-5;
  double weight_offset = 0.0;  // 1 where checkpoints store the weight minus one (Gemma's safetensors)
  bool operator==(const NormConfig&) const = default;
};

struct RopeScaling {
  enum class Type {
    none,
    linear,  // every frequency / factor
    llama3,  // low frequencies / factor, high ones as they are, a linear blend between
    yarn,    // the same idea with ramps over the pair index, and a temperature on the scores
    factors  // an explicit divisor for every frequency
  };
  Type type = Type::none;
  double factor = 1.0;            // linear, llama3, yarn: at least 1
  double original_context = 0;    // llama3, yarn: positions the model was trained on
  double low_freq_factor = 1.0;   // llama3
  double high_freq_factor = 4.0;  // llama3
  double beta_fast = 32.0;        // yarn
  double beta_slow = 1.0;         // yarn
  double attention_factor = 0.0;  // yarn: multiplies cos and sin; 0 = 0.1 ln(factor) + 1
  std::vector<double> factors;    // factors: one divisor a pair, dims / 2 of them
  bool operator==(const RopeScaling&) const = default;
};

/// Rotary position embedding of the first `dims` of every head.
struct RopeConfig {
  enum class Style {
    half,        // pairs (i, i + dims/2): Hugging Face's rotate_half
    interleaved  // pairs (2i, 2i + 1): GGUF files of the llama architecture
  };
  double base = 10000.0;
  uint32_t dims = 0;  // 0 = the whole head
  Style style = Style::half;
  RopeScaling scaling;
  bool operator==(const RopeConfig&) const = default;
};

struct MixerConfig {
  MixerType type = MixerType::full;
  uint32_t heads = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  uint32_t window = 0;  // window: keys visible to a query, itself included
  uint32_t sinks = 0;   // window: this many first positions stay visible too
  bool sink_logits =
      false;  // one learned logit a head joins the softmax and has no value (tensor attn_sinks)
  bool qkv_bias = false;
  bool o_bias = false;
  bool qk_norm = false;            // RMS norm of every query and key head before RoPE
  double scale = 0;                // of the scores; 0 = 1/sqrt(head_dim)
  double softcap = 0;              // scores s become softcap * tanh(s / softcap); 0 = off
  std::optional<RopeConfig> rope;  // instead of the model's
  bool operator==(const MixerConfig&) const = default;
};

struct FfnConfig {
  FfnType type = FfnType::dense;
  uint32_t hidden = 0;
  Act act = Act::silu;  // down(act(gate(x)) * up(x))
  bool bias = false;
  bool operator==(const FfnConfig&) const = default;
};

/// x += memory(x); x += post1(mixer(norm1(x))); x += post2(ffn(norm2(x))), where post1 and post2 are there if
/// post_norm.
struct LayerConfig {
  MixerConfig mixer;
  FfnConfig ffn;
  bool post_norm = false;
  std::optional<EngramModuleConfig> memory;  // looks up its rows in one of ModelConfig's tables
  Activation activation = Activation::automatic;
  bool operator==(const LayerConfig&) const = default;
};

struct ModelConfig {
  uint32_t d_model = 0;
  uint32_t vocab = 0;
  uint32_t context = 0;          // positions the model was made for
  bool tied = false;             // the head is the embedding
  double embedding_scale = 1.0;  // multiplies embeddings
  double logit_softcap = 0;      // logits l become cap * tanh(l / cap); 0 = off
  double logit_scale = 1.0;      // multiplies logits
  NormConfig norm;
  RopeConfig rope;
  std::vector<LayerConfig> layers;                  // always expanded: one entry a layer
  std::map<std::string, EngramTableConfig> tables;  // of the layers' memories, by name
  std::string name;                                 // for people

  bool operator==(const ModelConfig&) const = default;

  /// Throws Error(invalid_argument) that names the first field which is missing, out of range or contradicts
  /// another.
  void validate() const;
  /// The JSON of docs/config.md, with equal consecutive layers folded by "repeat". Deterministic: equal
  /// configs give equal text.
  std::string to_json() const;
  /// Parses and validates. Throws Error(corrupt) for malformed JSON and Error(invalid_argument) for unknown
  /// fields (with the nearest known name) or bad values.
  static ModelConfig from_json(std::string_view json);
};

}  // namespace mneme
