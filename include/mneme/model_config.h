// ModelConfig: what a model *is*, as plain validated data. Every architecture maps to this one description;
// nothing after the importers asks which family a model belongs to. docs/config.md is its JSON schema in
// prose.
#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mneme/engram_config.h"

namespace mneme {

enum class Act { silu, gelu_tanh, gelu };
/// How a layer mixes positions. `full`, `window` and `sparse` are softmax attention over a cache of keys;
/// `gla` and `delta` are recurrences with a state of constant size; `parallel` is two of them side by side.
enum class MixerType { full, window, sparse, gla, delta, parallel };
/// Which keys a window of w sees (published models disagree by one).
enum class WindowEdge {
  exact,            // w, the query's own included
  plus_one,         // w + 1
  plus_one_prefill  // w + 1 in a prefill pass, w at decode: the rolling cache of Hugging Face models
};
/// Map of the queries and keys of a recurrence, element by element.
enum class FeatureMap { relu, sigmoid, silu, identity };
/// Where the log-decay of gated linear attention comes from.
enum class GateType {
  low_rank,  // logsigmoid(W_b W_a x + b) / gate_normalizer
  matrix,    // logsigmoid(W_a x + b) / gate_normalizer
  tied       // log(1 - k): no tensors
};
/// Which heads an RMS norm of queries and keys takes together.
enum class QkNormOver {
  head,  // each head on its own; weights [head_dim]
  all    // all heads of the projection at once; weights as wide as the projection (OLMoE)
};
enum class FfnType { dense, moe };
/// How a router's logits become scores: over all experts together, or each on its own.
enum class RouterScore { softmax, sigmoid };
/// What ranks the groups of group-limited routing: the best expert of each, or the sum of its best two.
enum class GroupScore { max, top_two };
/// What the inputs of a projection are rounded to. `automatic`: int8 for quantized weights, float otherwise.
/// `spike`: counts of an adaptive-threshold neuron (src/simd/spike.h), whose silent inputs cost nothing.
/// `int4`: steps of max|x| / 7 over a row, multiplied as floats: a yardstick for spikes, not a fast path.
enum class Activation { automatic, float_, int8, spike, int4 };
/// The projections of a layer; `recurrence` is what a recurrence projects for its gates, `memory` the key and
/// value of an Engram module.
enum class Projection { q, k, v, o, gate, up, down, recurrence, memory };
inline constexpr size_t kProjections = 9;

/// The activation of one projection. Implicit from an Activation: with the default neuron.
struct ActivationConfig {
  Activation type = Activation::automatic;
  double k = 3.0;          // spike: the threshold is mean|x| / k
  double dead_zone = 0.0;  // spike: inputs below this many thresholds are silent
  ActivationConfig() = default;
  ActivationConfig(Activation of_type, double firing_k = 3.0, double silent_below = 0.0)
      : type(of_type), k(firing_k), dead_zone(silent_below) {}
  bool operator==(const ActivationConfig&) const = default;
};

/// The activations of a layer's projections. Implicit from one that holds for all.
struct ActivationPolicy {
  std::array<ActivationConfig, kProjections> of{};
  ActivationPolicy() = default;
  ActivationPolicy(const ActivationConfig& all) { of.fill(all); }
  ActivationPolicy(Activation all) { of.fill(all); }
  ActivationConfig& operator[](Projection p) { return of[static_cast<size_t>(p)]; }
  const ActivationConfig& operator[](Projection p) const { return of[static_cast<size_t>(p)]; }
  bool operator==(const ActivationPolicy&) const = default;
  /// As the `activation` of a layer in JSON: "int8", {"type": "spike", ...} or {"default": ..., "q": ...}.
  std::string to_json() const;
  /// From a command line: "spike", "spike:k=2.5,dead_zone=0.5", "spike:down=int8,q=float". Throws
  /// Error(invalid_argument) for anything else, with the nearest known word.
  static ActivationPolicy parse(std::string_view text);
};

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

/// One mixer. A field that names types belongs to those only and must be at its default elsewhere.
struct MixerConfig {
  MixerType type = MixerType::full;
  uint32_t heads = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  uint32_t window = 0;                  // window: keys visible to a query, itself included
  WindowEdge edge = WindowEdge::exact;  // window
  uint32_t sinks = 0;                   // window, sparse: this many first positions are visible too
  uint32_t block = 512;                 // sparse: keys in a block, a multiple of 64
  uint32_t top_k = 64;                  // sparse: blocks that a query sees, its own included
  bool shared = false;                  // sparse: the query heads of a kv head choose their blocks together
  bool sink_logits =
      false;  // one learned logit a head joins the softmax and has no value (tensor attn_sinks)
  bool qkv_bias = false;
  bool o_bias = false;
  bool qk_norm = false;                        // RMS norm of queries and keys before RoPE (softmax types)
  QkNormOver qk_norm_over = QkNormOver::head;  // with qk_norm
  double scale = 0;        // of the scores, or of a recurrence's output; 0 = 1/sqrt(head_dim)
  double softcap = 0;      // scores s become softcap * tanh(s / softcap); 0 = off (softmax types)
  ActivationConfig query;  // of every query head after RoPE: automatic (as it is) or spike (softmax types)
  bool kv_int8 = false;    // the cache is int8, whatever a session asks for (softmax types)
  std::optional<RopeConfig> rope;  // instead of the model's (softmax types; recurrences rotate nothing)
  FeatureMap feature = FeatureMap::relu;  // gla, delta (in JSON the default of delta is silu)
  GateType gate = GateType::low_rank;     // gla
  uint32_t gate_rank = 16;                // gla, low_rank
  double gate_normalizer = 16;            // gla, low_rank and matrix
  bool out_norm = true;                   // gla, delta: RMS norm of every output head, one weight [head_dim]
  std::vector<MixerConfig> of;            // parallel: its two branches
  std::array<double, 2> weights{0.5, 0.5};  // parallel: of the branches' norms
  bool learned = false;                     // parallel: the weights are a tensor [2] instead

  /// Attention over a cache of keys.
  bool softmax() const {
    return type == MixerType::full || type == MixerType::window || type == MixerType::sparse;
  }
  /// A state of constant size instead of a cache.
  bool recurrent() const { return type == MixerType::gla || type == MixerType::delta; }
  /// What is computed: the two of a `parallel` mixer, else the mixer itself. Views into *this.
  std::span<const MixerConfig> branches() const {
    return type == MixerType::parallel ? std::span(of) : std::span(this, 1);
  }
  std::span<MixerConfig> branches() {
    return type == MixerType::parallel ? std::span(of) : std::span(this, 1);
  }
  bool operator==(const MixerConfig&) const = default;
};

/// A feed-forward f(x) = down(act(gate(x)) * up(x)), or with type `moe` a mixture of such experts: a router
/// scores them, a token passes the best few, y = sum of weight_i * expert_i(x) + shared(x). How scores become
/// a choice and weights: src/model/router.h.
struct FfnConfig {
  FfnType type = FfnType::dense;
  uint32_t hidden = 0;  // moe: of each routed expert
  Act act = Act::silu;
  bool bias = false;  // dense
  // The rest belongs to moe.
  uint32_t experts = 0;        // routed experts
  uint32_t top_k = 0;          // that a token passes, at most
  uint32_t shared = 0;         // experts that every token passes; held side by side as one
  uint32_t shared_hidden = 0;  // of each shared expert; 0 = hidden
  bool shared_gate = false;    // the shared output is multiplied by sigmoid(w x), one learned row
  RouterScore router = RouterScore::softmax;
  bool renormalise = true;      // the weights of the chosen experts sum to 1 (before `scale`)
  double scale = 1.0;           // of all weights
  bool selection_bias = false;  // one learned number an expert joins its score for the choice only
  uint32_t groups = 1;          // equal groups of consecutive experts ...
  uint32_t top_groups = 1;      // ... of which a token sees so many
  GroupScore group_score = GroupScore::max;
  uint32_t null_experts = 0;  // rows of the router behind the experts that stand for doing nothing
  double top_p = 0.0;         // fewer than top_k, once the chosen hold this share of all scores; 0 = off

  bool moe() const { return type == FfnType::moe; }
  /// Rows of the router: what a token chooses among.
  uint32_t choices() const { return experts + null_experts; }
  /// Width of the shared experts side by side; 0 = there is none.
  uint32_t shared_width() const { return shared * (shared_hidden == 0 ? hidden : shared_hidden); }
  bool operator==(const FfnConfig&) const = default;
};

/// x += memory(x); x += post1(mixer(norm1(x))); x += post2(ffn(norm2(x))), where post1 and post2 are there if
/// post_norm. A parallel mixer is weights[0] * norm(branch 0) + weights[1] * norm(branch 1), each branch with
/// projections and an RMS norm over d_model of its own.
struct LayerConfig {
  MixerConfig mixer;
  FfnConfig ffn;
  bool post_norm = false;
  std::optional<EngramModuleConfig> memory;  // looks up its rows in one of ModelConfig's tables
  ActivationPolicy activation;
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
  /// Learned embeddings before every session: positions 0 .. sink_tokens - 1 (real tokens follow), which see
  /// each other without a causal mask and which all later tokens see, whatever their window.
  uint32_t sink_tokens = 0;
  std::string name;  // for people

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
