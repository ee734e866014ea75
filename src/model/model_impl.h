// What a loaded model consists of. Immutable after loading; the blocks' stages hold pointers into it.
#pragma once
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/huge_buffer.h"
#include "core/thread_pool.h"
#include "mneme/model.h"
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

struct LayerWeights {
  std::vector<float> attn_norm, ffn_norm, post_attn_norm, post_ffn_norm;  // [d_model], offset added
  std::vector<float> q_norm, k_norm;                                      // [head_dim] or empty
  std::vector<float> sinks;                                               // [heads] or empty
  Linear q, k, v, o, gate, up, down;
  size_t rope = 0;  // index of its RopeTable
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
  std::unique_ptr<Tokenizer> tokenizer;
  std::vector<TensorDescription> tensors;
  ModelBytes bytes;
  uint64_t bytes_per_token = 0;
  Plan plan;
  mutable std::mutex hash_mutex;
  mutable std::string hash;
};

}  // namespace mneme
