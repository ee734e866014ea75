// The weights of a model on their way from one checkpoint to another: which tensors the new file holds, of
// which type, and what happens to their values. The two conventions that differ between GGUF and Hugging Face
// files are settled here:
//
//   RoPE   GGUF files of the llama architecture rotate neighbours (2i, 2i + 1), Hugging Face's halves
//          (i, i + dims/2): the rows of attn_q and attn_k (weights, biases, head norms) are reordered
//   norms  Gemma's safetensors hold the weight minus one, its GGUF files the weight itself
//
// Tensors are read, rewritten and written a few megabytes at a time.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "files/tensor_source.h"
#include "model/checkpoint.h"

namespace mneme {

/// One tensor of the new file.
struct PlannedTensor {
  const TensorInfo* source = nullptr;
  TensorInfo target;
  std::vector<uint32_t>
      order;      // row r of the target (value r if 1-D) is row order[r] of the source; empty: as is
  float add = 0;  // to every value
  /// Tensors whose rows follow those of `source`: the other experts of a stack.
  std::vector<const TensorInfo*> more = {};
};

struct WeightPlanOptions {
  DType type = DType::q8_0;  // of matrices; 1-D tensors become F32
  bool pure = false;         // q4_0, q4_1: the embedding and the head too, instead of Q8_0
  NameStyle names = NameStyle::gguf;
  bool as_stored = false;  // matrices keep the type that they have
};

/// The tensors of `in`, in the order of the forward pass, as a checkpoint of `target` has them: the same
/// model as in.config(), but for RopeConfig::style and NormConfig::weight_offset. A matrix whose rows are not
/// whole blocks becomes F16. GGUF to GGUF also takes along tensors that the config does not name
/// (rope_freqs.weight).
std::vector<PlannedTensor> plan_weights(const Checkpoint& in, const ModelConfig& target,
                                        const WeightPlanOptions& options);

/// Writes the bytes of one tensor. Throws Error(corrupt) naming the tensor and the value if it is not finite
/// or beyond the type's range, Error(io).
void write_weight(const TensorSource& in, const PlannedTensor& tensor, int threads, AtomicFile& out);

/// order[r] as in PlannedTensor, for rows of `heads` heads of `head_dim`, of which RoPE turns the first
/// `dims`.
std::vector<uint32_t> rope_row_order(uint32_t heads, uint32_t head_dim, uint32_t dims, RopeConfig::Style from,
                                     RopeConfig::Style to);

}  // namespace mneme
