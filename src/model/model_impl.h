// What a loaded model consists of. Immutable after loading; the blocks' stages hold pointers into it.
#pragma once
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/huge_buffer.h"
#include "core/thread_pool.h"
#include "mneme/model.h"
#include "model/model_memory.h"
#include "model/plan.h"
#include "simd/packed_matrix.h"

namespace mneme {

/// y = W x + b with the rounding of x that the config asks for.
struct Linear {
  enum class Input { int8, floats, rounded_floats };  // rounded: int8 activations against float weights
  PackedMatrix w;
  std::vector<float> bias;  // [rows] or empty
  Input input = Input::floats;
  std::string name;
};

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

struct LayerWeights {
  std::vector<float> attn_norm, ffn_norm, post_attn_norm, post_ffn_norm;  // [d_model], offset added
  std::vector<float> q_norm, k_norm;                                      // [head_dim] or empty
  std::vector<float> sinks;                                               // [heads] or empty
  Linear q, k, v, o, gate, up, down;
  size_t rope = 0;  // index of its RopeTable
  std::optional<MemoryWeights> memory;
};

struct ModelImpl {
  ModelConfig config;
  std::string path;
  std::shared_ptr<ThreadPool> pool;
  HugeBuffer weights;  // every packed matrix
  PackedMatrix embedding;
  Linear head;  // shares the embedding's memory if tied
  std::vector<float> output_norm;
  std::vector<LayerWeights> layers;
  std::vector<RopeTable> ropes;
  std::vector<LoadedTable> memory_tables;
  std::vector<size_t> memory_layers;  // layers with a module, in order
  bool extended = false;              // by modules of packs: the config is not only the checkpoint's
  std::unique_ptr<Tokenizer> tokenizer;
  std::vector<TensorDescription> tensors;
  ModelBytes bytes;
  uint64_t bytes_per_token = 0;
  Plan plan;
  mutable std::mutex hash_mutex;
  mutable std::string hash;
};

}  // namespace mneme
