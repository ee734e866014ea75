// What a loaded model consists of. Immutable after loading; the blocks' stages hold pointers into it.
#pragma once
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/huge_buffer.h"
#include "core/thread_pool.h"
#include "mneme/model.h"
#include "model/expert_group.h"
#include "model/model_memory.h"
#include "model/plan.h"
#include "simd/code_residuals.h"
#include "simd/packed_matrix.h"
#include "simd/spike.h"

namespace mneme {

/// y = W x + b with the rounding of x that the config asks for.
struct Linear {
  /// What of Activations it reads. rounded_floats: int8 activations against float weights; int4_floats: int4
  /// activations, whatever the weights. spikes: counts
  /// against weights in stripes; spike_floats: counts times threshold against weights that have no stripes.
  enum class Input { int8, floats, rounded_floats, int4_floats, spikes, spike_floats };
  PackedMatrix w;
  std::vector<float> bias;  // [rows] or empty
  Input input = Input::floats;
  NeuronSetting neuron;   // spikes, spike_floats
  size_t spike_slot = 0;  // the place of its neuron among those of all projections of the same input
  std::string name;
};

/// Whether the inputs pass through a neuron, whatever form the counts are read in.
constexpr bool is_spiking(Linear::Input input) {
  return input == Linear::Input::spikes || input == Linear::Input::spike_floats;
}

/// The form in which a projection with the weights `w` reads inputs of this activation. Looks at the type,
/// columns and stripes of `w`, not at its data. Throws Error(unsupported) if its rows do not divide into the
/// blocks that the activation needs.
Linear::Input input_form(Activation activation, const PackedMatrix& w);
/// What the output head reads: it does not spike, nor read int4; float or int8 for all projections holds for
/// it, too.
Activation head_activation(const std::optional<ActivationPolicy>& forced);

struct RopeTable {
  std::vector<float> inverse_frequencies;  // [dims / 2]
  float attention_factor = 1;              // multiplies cos and sin
  bool half = true;
};

/// An Engram module before a layer's mixer.
struct MemoryWeights {
  size_t table = 0;        // of ModelImpl::memory_tables
  size_t table_layer = 0;  // place of its layer_id in the table
  size_t index = 0;        // among the model's modules
  size_t conv_index = 0;   // among those with a convolution
  Linear k, v;
  std::vector<float> gate;       // [d_model]: key norm * query norm, offsets added
  std::vector<float> conv_norm;  // [d_model] or empty
  std::vector<float> conv;       // [kernel, d_model] or empty
};

/// The tensors of one mixer. What its type does not have is empty.
struct MixerWeights {
  Linear q, k, v, o;
  std::vector<float> q_norm, k_norm;  // [head_dim], or of all heads (QkNormOver)
  std::vector<float> sinks;           // [heads]: sink logits
  size_t rope = 0;                    // softmax types: index of its RopeTable
  Linear gate;  // gla: W_a, [gate_rank, d_model], or with gate "matrix" [kv_heads * head_dim, d_model]
  std::vector<float> gate_up;         // gla, low_rank: W_b transposed, [gate_rank, kv_heads * head_dim]
  std::vector<float> gate_bias;       // gla, low_rank: [kv_heads * head_dim]; that of "matrix" is gate.bias
  Linear decay, beta;                 // delta: [kv_heads, d_model]
  std::vector<float> a_log, dt_bias;  // delta: [kv_heads]
  std::vector<float> out_norm;        // gla, delta: [head_dim], offset added
  std::vector<float> branch_norm;     // of a parallel mixer: [d_model], offset added
  float branch_weight = 1;            // of a parallel mixer

  /// The projections of the layer's input, in the order of their columns in ws.qkv (see QkvShape).
  std::vector<const Linear*> inputs() const { return inputs_of<const Linear*>(*this); }
  std::vector<Linear*> inputs() { return inputs_of<Linear*>(*this); }

 private:
  template <class Pointer, class Weights>
  static std::vector<Pointer> inputs_of(Weights& w) {
    std::vector<Pointer> out{&w.q, &w.k, &w.v};
    for (Pointer linear : {&w.gate, &w.decay, &w.beta})
      if (linear->w.rows > 0) out.push_back(linear);
    return out;
  }
};

struct ExpertWeights {
  Linear gate, up, down;
};

/// A feed-forward of type moe. All experts hold a projection in the same form of numbers.
struct MoeWeights {
  Linear router;                       // [choices, d_model], reads floats
  std::vector<float> selection_bias;   // [choices] or empty
  std::vector<ExpertWeights> experts;  // those of other processes have shapes and types, but no weights
  ExpertRange own;                     // whose weights are here: all, but in an ExpertGroup
  ExpertWeights shared;                // the shared experts side by side; without rows if there is none
  std::vector<float> shared_gate;      // [d_model] or empty
};

struct LayerWeights {
  std::vector<float> attn_norm, ffn_norm, post_attn_norm, post_ffn_norm;  // [d_model], offset added
  std::vector<MixerWeights> mixers;  // one, or the branches of a parallel mixer
  Linear gate, up, down;             // of a dense feed-forward
  std::optional<MoeWeights> moe;     // instead of these three
  std::optional<MemoryWeights> memory;
};

/// Where the mixer of a mixer index is. The index counts the mixers of all layers in order; caches and states
/// are laid out by it.
struct MixerPlace {
  size_t layer = 0;
  size_t branch = 0;
};

class ExpertStore;

struct ModelImpl {
  ModelConfig config;
  std::string path;
  std::shared_ptr<ThreadPool> pool;
  std::shared_ptr<ExpertGroup> expert_group;              // null: all experts are here
  HugeBuffer weights;                                     // every packed matrix
  std::vector<std::unique_ptr<CodeResiduals>> residuals;  // of matrices W8
  PackedMatrix embedding;
  Linear head;  // shares the embedding's memory if tied
  std::vector<float> output_norm;
  std::vector<float> sink_embeddings;  // [sink_tokens, d_model] or empty
  std::vector<LayerWeights> layers;
  std::vector<MixerPlace> mixers;  // [mixer index]
  std::vector<RopeTable> ropes;
  std::shared_ptr<ExpertStore> expert_store;  // null if all experts are in `weights`, or there are none
  std::vector<LoadedTable> memory_tables;
  std::vector<size_t> memory_layers;  // layers with a module, in order
  bool extended = false;              // by modules of packs: the config is not only the checkpoint's
  std::unique_ptr<Tokenizer> tokenizer;
  std::vector<TensorDescription> tensors;
  std::vector<std::string> unused_tensors;  // by the file's names
  ModelBytes bytes;
  uint64_t bytes_per_token = 0;
  Plan plan;
  const Plan& probed_plan() const;  // the same with probes, compiled when somebody first looks; thread-safe
  std::string load_choices;         // that change results: another --type or --activation makes another model
  mutable std::mutex hash_mutex;
  mutable std::string hash;
  mutable std::once_flag probed_once;
  mutable Plan probed;

  const MixerConfig& mixer_config(size_t mixer) const {
    return config.layers[mixers[mixer].layer].mixer.branches()[mixers[mixer].branch];
  }
  const MixerWeights& mixer_weights(size_t mixer) const {
    return layers[mixers[mixer].layer].mixers[mixers[mixer].branch];
  }
};

}  // namespace mneme
