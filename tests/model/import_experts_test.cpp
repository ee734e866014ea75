// What importers make of published mixtures: GGUF keys as llama.cpp's converter writes them, and config.json
// files of the models that people run, shortened to what matters.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/fake_tensors.h"
#include "model/import_gguf.h"
#include "model/import_hf.h"

namespace mneme::import_experts_test {
namespace {

using ::testing::HasSubstr;
using testing_fakes::error_of;
using testing_fakes::FakeTensors;

GgufMetadata expert_keys(const std::string& arch,
                         const std::vector<std::pair<std::string, GgufValue>>& more) {
  GgufMetadata out;
  out.set("general.architecture", arch);
  const auto u = [&](const char* key, uint64_t value) { out.set(arch + "." + key, value); };
  u("block_count", 3);
  u("embedding_length", 64);
  u("context_length", 128);
  u("feed_forward_length", 96);
  u("attention.head_count", 4);
  u("attention.head_count_kv", 2);
  u("expert_count", 8);
  u("expert_used_count", 2);
  out.set(arch + ".attention.layer_norm_rms_epsilon", 1e-5);
  for (const auto& [key, value] : more) out.set(arch + "." + key, value);
  return out;
}

FakeTensors routers(std::vector<int> layers, const std::vector<std::string>& more = {}) {
  FakeTensors out;
  out.add("token_embd.weight", {100, 64});
  for (const int layer : layers) {
    out.add(fmt::format("blk.{}.ffn_gate_inp.weight", layer), {8, 64});
    for (const std::string& name : more) out.add(fmt::format("blk.{}.{}", layer, name), {1});
  }
  return out;
}

TEST(ImportGgufExperts, EachFamilyHasItsRules) {
  const auto ffn = [](const std::string& arch, const FakeTensors& tensors,
                      const std::vector<std::pair<std::string, GgufValue>>& more = {}) {
    return config_from_gguf(expert_keys(arch, more), tensors).layers[2].ffn;
  };
  const FfnConfig mixtral = ffn("llama", routers({0, 1, 2}));
  EXPECT_TRUE(mixtral.moe() && mixtral.renormalise && mixtral.router == RouterScore::softmax);
  EXPECT_EQ(mixtral.hidden, 96u);
  EXPECT_EQ(mixtral.experts, 8u);
  EXPECT_EQ(mixtral.top_k, 2u);
  const FfnConfig qwen2 =
      ffn("qwen2moe", routers({0, 1, 2}, {"ffn_gate_shexp.weight", "ffn_gate_inp_shexp.weight"}));
  EXPECT_FALSE(qwen2.renormalise);
  EXPECT_EQ(qwen2.hidden, 48u);  // feed_forward_length / experts used
  EXPECT_EQ(qwen2.shared_width(), 96u);
  EXPECT_TRUE(qwen2.shared_gate);
  const FfnConfig qwen3 = ffn("qwen3moe", routers({0, 1, 2}), {{"expert_feed_forward_length", uint64_t{40}}});
  EXPECT_TRUE(qwen3.renormalise);
  EXPECT_EQ(qwen3.hidden, 40u);
  const ModelConfig olmoe = config_from_gguf(expert_keys("olmoe", {}), routers({0, 1, 2}));
  EXPECT_EQ(olmoe.layers[0].mixer.qk_norm_over, QkNormOver::all);
  EXPECT_FALSE(olmoe.layers[0].ffn.renormalise);
  const FfnConfig dots = ffn("dots1", routers({1, 2}, {"ffn_gate_shexp.weight", "exp_probs_b.bias"}),
                             {{"expert_feed_forward_length", uint64_t{32}},
                              {"expert_shared_count", uint64_t{2}},
                              {"expert_gating_func", uint64_t{2}},
                              {"expert_weights_norm", true},
                              {"expert_weights_scale", 2.5},
                              {"expert_group_count", uint64_t{4}},
                              {"expert_group_used_count", uint64_t{2}}});
  EXPECT_EQ(dots.router, RouterScore::sigmoid);
  EXPECT_TRUE(dots.selection_bias && dots.renormalise && !dots.shared_gate);
  EXPECT_EQ(dots.shared_width(), 64u);
  EXPECT_EQ(dots.scale, 2.5);
  EXPECT_EQ(dots.groups, 4u);
  EXPECT_EQ(dots.group_score, GroupScore::top_two);
}

TEST(ImportGgufExperts, LayersWithoutARouterAreDense) {
  const ModelConfig config = config_from_gguf(expert_keys("deepseek", {}), routers({1, 2}));
  EXPECT_FALSE(config.layers[0].ffn.moe());
  EXPECT_EQ(config.layers[0].ffn.hidden, 96u);
  EXPECT_TRUE(config.layers[1].ffn.moe());
  EXPECT_EQ(config.rope.style, RopeConfig::Style::interleaved);
}

TEST(ImportGgufExperts, GranitesMultipliersBecomeOthers) {
  const ModelConfig config = config_from_gguf(expert_keys("granitemoe", {{"embedding_scale", 12.0},
                                                                         {"residual_scale", 0.25},
                                                                         {"logit_scale", 6.0},
                                                                         {"attention.scale", 0.015625}}),
                                              routers({0, 1, 2}));
  EXPECT_EQ(config.embedding_scale, 48.0);  // divided by the residual multiplier
  EXPECT_EQ(config.norm.eps, 1e-5 * 16);
  EXPECT_DOUBLE_EQ(config.logit_scale, 1 / 6.0);
  EXPECT_EQ(config.layers[0].mixer.scale, 0.015625);
}

TEST(ImportGgufExperts, WhatCannotBeRunIsSaid) {
  const auto refused = [](const std::string& arch, const FakeTensors& tensors,
                          const std::vector<std::pair<std::string, GgufValue>>& more) {
    return error_of([&] { config_from_gguf(expert_keys(arch, more), tensors); });
  };
  Error error = refused("deepseek2", routers({0, 1, 2}), {});
  EXPECT_EQ(error.code(), ErrorCode::unsupported);
  EXPECT_THAT(error.what(), HasSubstr("multi-head latent attention"));
  error = refused("llama", routers({}), {});
  EXPECT_EQ(error.code(), ErrorCode::mismatch);
  EXPECT_THAT(error.what(), HasSubstr("expert_count is 8, but no layer has a router"));
  error = refused("llama", routers({0, 1, 2}), {{"expert_used_count", uint64_t{9}}});
  EXPECT_EQ(error.code(), ErrorCode::corrupt);
  EXPECT_THAT(error.what(), HasSubstr("top_k is 9, but must be from 1 to the number of experts, which is 8"));
  EXPECT_EQ(refused("llama", routers({0, 1, 2}), {{"expert_gating_func", uint64_t{7}}}).code(),
            ErrorCode::unsupported);
}

TEST(ImportHfExperts, PublishedModels) {
  const ModelConfig mixtral =
      config_from_hf(R"({"model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000, "num_local_experts": 8,
    "num_experts_per_tok": 2, "max_position_embeddings": 32768, "rope_theta": 1000000.0, "rms_norm_eps": 1e-05,
    "sliding_window": null, "tie_word_embeddings": false})");
  EXPECT_EQ(mixtral.layers[31].ffn.hidden, 14336u);
  EXPECT_EQ(mixtral.layers[31].ffn.experts, 8u);
  EXPECT_EQ(mixtral.layers[31].mixer.type, MixerType::full);
  const ModelConfig qwen3 =
      config_from_hf(R"({"model_type": "qwen3_moe", "hidden_size": 2048, "intermediate_size": 6144,
    "moe_intermediate_size": 768, "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128,
    "vocab_size": 151936, "num_experts": 128, "num_experts_per_tok": 8, "norm_topk_prob": true, "decoder_sparse_step": 1,
    "mlp_only_layers": [], "rope_theta": 1000000.0, "max_position_embeddings": 40960, "tie_word_embeddings": false})");
  EXPECT_TRUE(qwen3.layers[0].ffn.renormalise && qwen3.layers[0].mixer.qk_norm);
  EXPECT_EQ(qwen3.layers[47].ffn.hidden, 768u);
  const ModelConfig deepseek =
      config_from_hf(R"({"model_type": "deepseek", "hidden_size": 2048, "intermediate_size": 10944,
    "moe_intermediate_size": 1408, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 16,
    "vocab_size": 102400, "n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6, "first_k_dense_replace": 1,
    "moe_layer_freq": 1, "norm_topk_prob": false, "scoring_func": "softmax", "max_position_embeddings": 4096,
    "tie_word_embeddings": false})");
  EXPECT_FALSE(deepseek.layers[0].ffn.moe());
  EXPECT_EQ(deepseek.layers[0].ffn.hidden, 10944u);
  EXPECT_EQ(deepseek.layers[1].ffn.shared_width(), 2816u);
  EXPECT_FALSE(deepseek.layers[1].ffn.renormalise);
  const ModelConfig qwen2 =
      config_from_hf(R"({"model_type": "qwen2_moe", "num_hidden_layers": 6, "decoder_sparse_step": 2,
    "mlp_only_layers": [3], "vocab_size": 100, "tie_word_embeddings": false})");
  std::vector<bool> mixed;
  for (const LayerConfig& layer : qwen2.layers) mixed.push_back(layer.ffn.moe());
  EXPECT_EQ(mixed, (std::vector<bool>{false, true, false, false, false, true}));
  EXPECT_EQ(qwen2.layers[1].ffn.shared_hidden, 5632u);
  EXPECT_TRUE(qwen2.layers[1].ffn.shared_gate && qwen2.layers[1].mixer.qkv_bias);
}

TEST(ImportHfExperts, WhatCannotBeRunIsSaid) {
  const auto refused = [](const char* json) { return error_of([&] { config_from_hf(json); }); };
  Error error = refused(R"({"model_type": "deepseek_v3"})");
  EXPECT_EQ(error.code(), ErrorCode::unsupported);
  EXPECT_THAT(error.what(), HasSubstr("multi-head latent attention"));
  error = refused(R"({"model_type": "olmoe", "tie_word_embeddings": false, "clip_qkv": 8.0})");
  EXPECT_EQ(error.code(), ErrorCode::unsupported);
  EXPECT_THAT(error.what(), HasSubstr("clip_qkv"));
  error = refused(R"({"model_type": "mixtral", "tie_word_embeddings": false, "num_experts_per_tok": 9})");
  EXPECT_EQ(error.code(), ErrorCode::corrupt);
  EXPECT_THAT(error.what(), HasSubstr("top_k is 9"));
  error = refused(R"({"model_type": "deepseek", "tie_word_embeddings": false, "num_experts_per_tok": 2})");
  EXPECT_THAT(error.what(), HasSubstr("n_routed_experts"));
}

}  // namespace
}  // namespace mneme::import_experts_test
