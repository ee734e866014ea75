// One tiny model for every kind of block, and one with all of them: what parity_test.cpp runs beside the
// engine and gradient_test.cpp differentiates. A new block is a new line here.
#pragma once
#include <cmath>
#include <map>
#include <ostream>
#include <string>
#include <vector>

#include "memory/engram_hash.h"
#include "mneme/model_config.h"
#include "train/blocks/engram_ids.h"
#include "train/blocks/parameters.h"

namespace mneme::train {

struct BlockCase {
  const char* name;
  const char* layers;        // JSON of "layers"
  const char* more = "";     // other fields of the model, with a comma in front
  int64_t length = 40;       // of a sequence in the parity test
  int64_t short_length = 9;  // of one whose gradient is compared with differences
  /// Not null: the model has a table "facts" of raw ids, so small that n-grams meet, with these fields more.
  const char* table = nullptr;
};

inline void PrintTo(const BlockCase& block, std::ostream* out) {
  *out << block.name;
}

// clang-format off
inline const std::vector<BlockCase>& block_cases() {
  static const std::vector<BlockCase> cases{
      {"full", R"([{"mixer": {"type": "full"}}])"},
      {"full_long", R"([{"mixer": {"type": "full", "heads": 4, "kv_heads": 4}}])", "", 300},
      {"full_everything", R"([{"mixer": {"type": "full", "qk_norm": true, "softcap": 4, "sink_logits": true, "qkv_bias": true, "o_bias": true,
        "scale": 0.4, "rope": {"base": 500, "dims": 4, "style": "interleaved"}}}])", "", 150},
      {"qk_norm_over_all", R"([{"mixer": {"type": "full", "qk_norm": true, "qk_norm_over": "all"}}])"},
      {"rope_linear", R"([{"mixer": {"type": "full"}}])", R"(, "rope": {"base": 100, "scaling": {"type": "linear", "factor": 4}})"},
      {"rope_llama3", R"([{"mixer": {"type": "full"}}])",
       R"(, "rope": {"base": 50, "scaling": {"type": "llama3", "factor": 8, "original_context": 16, "low_freq_factor": 1, "high_freq_factor": 2}})"},
      {"rope_yarn", R"([{"mixer": {"type": "full"}}])",
       R"(, "rope": {"base": 50, "scaling": {"type": "yarn", "factor": 4, "original_context": 16, "beta_fast": 4, "beta_slow": 1}})"},
      {"rope_factors", R"([{"mixer": {"type": "full"}}])", R"(, "rope": {"base": 50, "scaling": {"type": "factors", "factors": [1, 1.5, 2, 3]}})"},
      {"window_exact", R"([{"mixer": {"type": "window", "window": 7, "sinks": 2}}, {"mixer": {"type": "window", "window": 3}}])", "", 200},
      {"window_plus_one", R"([{"mixer": {"type": "window", "window": 7, "edge": "plus_one", "sink_logits": true}}])", "", 200},
      {"window_plus_one_prefill", R"([{"mixer": {"type": "window", "window": 130, "edge": "plus_one_prefill"}}])", "", 300},
      {"sparse", R"([{"mixer": {"type": "sparse", "block": 64, "top_k": 2}}, {"mixer": {"type": "sparse", "block": 64, "top_k": 3, "qk_norm": true}}])", "", 330, 200},
      {"sparse_shared", R"([{"mixer": {"type": "sparse", "block": 64, "top_k": 2, "shared": true, "sinks": 3, "softcap": 6}}])", "", 330, 150},
      {"gla_low_rank", R"([{"mixer": {"type": "gla", "qkv_bias": true, "gate_rank": 3}}, {"mixer": {"type": "gla", "feature": "silu", "gate_normalizer": 2, "o_bias": true}}])"},
      {"gla_matrix", R"([{"mixer": {"type": "gla", "gate": "matrix", "feature": "identity", "scale": 0.7, "out_norm": false}}])"},
      {"gla_tied", R"([{"mixer": {"type": "gla", "gate": "tied", "feature": "sigmoid"}}])"},
      {"delta", R"([{"mixer": {"type": "delta"}}, {"mixer": {"type": "delta", "feature": "relu", "kv_heads": 4, "qkv_bias": true}}])"},
      {"parallel", R"([{"mixer": {"type": "parallel", "of": [{"type": "window", "window": 5}, {"type": "gla"}], "weights": [0.75, -1.5]}}])"},
      {"parallel_learned", R"([{"mixer": {"type": "parallel", "of": [{"type": "delta"}, {"type": "full", "kv_heads": 4}], "learned": true}}])"},
      {"ffn_gelu_tanh", R"([{"mixer": {"type": "full"}, "ffn": {"hidden": 40, "act": "gelu_tanh", "bias": true}}])"},
      {"ffn_gelu", R"([{"mixer": {"type": "full"}, "ffn": {"hidden": 40, "act": "gelu"}}])"},
      {"gemma", R"([{"mixer": {"type": "window", "window": 6, "qk_norm": true, "rope": {"base": 300}}, "post_norm": true}, {"mixer": {"type": "full", "qk_norm": true}, "post_norm": true}])",
       R"(, "tied": true, "embedding_scale": 4.9, "logit_softcap": 3, "logit_scale": 0.6, "norm": {"eps": 1e-6, "weight_offset": 1})"},
      {"sink_tokens", R"([{"mixer": {"type": "full", "softcap": 5}}, {"mixer": {"type": "window", "window": 4}}, {"mixer": {"type": "delta"}},
        {"mixer": {"type": "parallel", "of": [{"type": "window", "window": 5, "sinks": 1}, {"type": "gla"}]}}, {"mixer": {"type": "sparse", "block": 64, "top_k": 2}}])",
       R"(, "sink_tokens": 5, "embedding_scale": 1.5)", 200, 7},
      {"engram", R"([{"mixer": {"type": "full"}, "memory": {"table": "facts", "layer_id": 0}}, {"mixer": {"type": "gla"}, "memory": {"table": "facts", "layer_id": 1, "signed_sqrt": false}}])",
       "", 40, 9, ""},
      {"engram_conv", R"([{"mixer": {"type": "full"}, "memory": {"table": "facts", "layer_id": 1, "sign0": "zero", "bias": true, "eps": 1e-5, "norm_offset": 1,
        "conv": {"kernel": 3, "dilation": 2}}}])", "", 40, 9, R"(, "boundary": "eos", "boundary_id": 4)"},
      {"moe", R"([{"mixer": {"type": "full"}, "ffn": {"type": "moe", "hidden": 20, "experts": 6, "top_k": 2}}, {"mixer": {"type": "window", "window": 5}},
        {"mixer": {"type": "gla"}, "ffn": {"type": "moe", "hidden": 12, "experts": 5, "top_k": 3, "renormalise": false, "act": "gelu", "scale": 1.5}}])", "", 300},
      {"moe_sigmoid_groups", R"([{"mixer": {"type": "full"}, "ffn": {"type": "moe", "hidden": 20, "experts": 8, "top_k": 3, "router": "sigmoid", "selection_bias": true, "scale": 2.5,
        "groups": 4, "top_groups": 2, "group_score": "top_two", "shared": 2, "shared_hidden": 12, "shared_gate": true}}])", "", 300},
      {"moe_null", R"([{"mixer": {"type": "full"}, "ffn": {"type": "moe", "hidden": 20, "experts": 4, "null_experts": 3, "top_k": 3, "shared": 1}, "post_norm": true},
        {"mixer": {"type": "full"}, "ffn": {"type": "moe", "hidden": 20, "experts": 4, "null_experts": 2, "top_k": 2, "router": "sigmoid", "renormalise": false, "selection_bias": true}}])",
       R"(, "sink_tokens": 3)", 300},
      {"moe_top_p", R"([{"mixer": {"type": "full"}, "ffn": {"type": "moe", "hidden": 20, "experts": 6, "top_k": 4, "top_p": 0.6}},
        {"mixer": {"type": "delta"}, "ffn": {"type": "moe", "hidden": 20, "experts": 5, "null_experts": 1, "top_k": 3, "top_p": 0.7, "router": "sigmoid", "act": "gelu_tanh"}}])", "", 300},
      {"moe_of_one", R"([{"mixer": {"type": "full"}, "ffn": {"type": "moe", "hidden": 20, "experts": 1, "top_k": 1, "renormalise": false, "router": "sigmoid"}}])"},
      {"everything", R"([{"mixer": {"type": "gla", "qkv_bias": true}, "memory": {"table": "facts", "layer_id": 0, "conv": {}}},
        {"mixer": {"type": "window", "window": 9, "sinks": 1}}, {"mixer": {"type": "delta"}, "memory": {"table": "facts", "layer_id": 1}},
        {"mixer": {"type": "sparse", "block": 64, "top_k": 2, "shared": true}, "ffn": {"type": "moe", "hidden": 20, "experts": 4, "null_experts": 1, "top_k": 2, "shared": 1}}, {"mixer": {"type": "parallel", "of": [{"type": "window", "window": 5}, {"type": "gla", "gate": "matrix"}], "learned": true}},
        {"mixer": {"type": "full", "qk_norm": true, "sink_logits": true}}])", R"(, "tied": true, "logit_scale": 2)", 200, 7, R"(, "boundary": "reset", "boundary_id": 4)"},
  };
  return cases;
}
// clang-format on

/// "tables" of a config, with a comma in front.
inline std::string test_tables(const std::string& more) {
  return R"(, "tables": {"facts": {"file": "facts.engram", "raw_ids": true, "compressed_vocab": 48, "pad_id": 1,
      "max_ngram": 3, "heads": 2, "head_dim": 6, "base_rows": [31, 37], "layer_ids": [0, 1], "format": "f32")" +
         more + "}}";
}

inline ModelConfig config_of(const BlockCase& block) {
  return ModelConfig::from_json(std::string(R"({"mneme": 1, "d_model": 24, "vocab": 48, "context": 512,
      "defaults": {"mixer": {"heads": 4, "kv_heads": 2, "head_dim": 8}, "ffn": {"type": "dense", "hidden": 40}}, "layers": )") +
                                block.layers + block.more + (block.table ? test_tables(block.table) : "") +
                                "}");
}

/// Parameters at a scale at which every part matters: attention is not uniform, gates neither open nor
/// closed, biases and norms not neutral.
inline Parameters random_parameters(const ModelConfig& config, uint64_t seed) {
  Parameters start = Parameters::create(config, seed), out;
  at::Generator generator = at::detail::createCPUGenerator(seed + 1);
  for (const std::string& name : start.names()) {
    const Tensor& value = start.at(name);
    const Tensor noise = at::normal(0.0, 1.0, value.sizes(), generator);
    const bool is_norm = value.dim() == 1 && name.find("norm.weight") != std::string::npos;
    if (is_norm || name.ends_with("mix_weights.weight") || name.ends_with("a_log.weight") ||
        name.ends_with("dt_bias.weight"))
      out.add(name, value.detach() + 0.3 * noise);
    else if (value.dim() == 1)
      out.add(name, (name.find("gate") == std::string::npos ? 0.5 : 2.0) * noise);
    else if (name.find("embd") != std::string::npos || name == "output.weight")
      out.add(name, 0.4 * noise);
    else
      out.add(name, noise * (1.5 / std::sqrt(static_cast<double>(value.size(1)))));
  }
  return out;
}

inline RowTables random_tables(const ModelConfig& config, uint64_t seed) {
  RowTables out;
  for (const auto& [name, table] : config.tables)
    out.emplace(name, RowTable(EngramHash(table).rows(), table.head_dim, seed, 1.0));
  return out;
}

inline Tensor random_tokens(const ModelConfig& config, int64_t batch, int64_t length, uint64_t seed) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  return at::randint(0, config.vocab, {batch, length}, generator, at::TensorOptions().dtype(at::kLong));
}

}  // namespace mneme::train
