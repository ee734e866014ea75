// The experts of a checkpoint, one matrix each, whatever the file has. Published files hold them as
//
//   GGUF          blk.N.ffn_{gate,up,down}_exps.weight  [experts, rows, cols], ffn_gate_up_exps with gate
//                 above up; or, from before 2024, ffn_gate.E.weight, which are the canonical names
//   Mixtral       block_sparse_moe.gate, experts.E.w1 (gate), w3 (up), w2 (down)
//   Granite       block_sparse_moe.router.layer, input_linear [experts, 2 hidden, d_model] (gate above up),
//                 output_linear; shared_mlp.input_linear, output_linear
//   Qwen, OLMoE   mlp.gate, experts.E.gate_proj, up_proj, down_proj; shared_expert,
//                 shared_expert_gate [1, d_model]
//   DeepSeek      the same with shared_experts; stacked in newer files: mlp.experts.gate_up_proj, down_proj
//
// A stacked tensor is contiguous, so that one expert's matrix is a range of its bytes: nothing is copied.
#pragma once
#include <memory>

#include "files/tensor_source.h"
#include "mneme/model_config.h"
#include "model/tensor_names.h"

namespace mneme {

/// `source` with the tensors of layers of type moe under the names of tensor_names.h (Hugging Face: Mneme's
/// own, those of Qwen), stacked ones in pieces; everything else as it is. A config without experts gets
/// `source` itself. Throws Error(mismatch) for a stack whose shape is not what the config asks for.
std::unique_ptr<TensorSource> split_experts(const ModelConfig& config, std::unique_ptr<TensorSource> source,
                                            NameStyle style);

}  // namespace mneme
