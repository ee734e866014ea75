// Names in both worlds, and the check of a checkpoint's tensors against its config.
#include "model/tensor_names.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/fake_tensors.h"
#include "model/published_configs.h"

namespace mneme::tensor_names_test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing_fakes::error_of;
using testing_fakes::FakeTensors;

TEST(TensorNames, HuggingFaceNamesOfAPlainAndAPostNormLayer) {
  const ModelConfig llama = testing_fakes::smollm2_135m(), gemma = testing_fakes::gemma3_270m();
  EXPECT_EQ(hf_tensor_name(llama, "token_embd.weight"), "model.embed_tokens.weight");
  EXPECT_EQ(hf_tensor_name(llama, "output_norm.weight"), "model.norm.weight");
  EXPECT_EQ(hf_tensor_name(llama, "output.weight"), "lm_head.weight");
  EXPECT_EQ(hf_tensor_name(llama, "blk.29.attn_q.bias"), "model.layers.29.self_attn.q_proj.bias");
  EXPECT_EQ(hf_tensor_name(llama, "blk.0.ffn_norm.weight"), "model.layers.0.post_attention_layernorm.weight");
  EXPECT_EQ(hf_tensor_name(gemma, "blk.0.ffn_norm.weight"),
            "model.layers.0.pre_feedforward_layernorm.weight");
  EXPECT_EQ(hf_tensor_name(gemma, "blk.0.post_attention_norm.weight"),
            "model.layers.0.post_attention_layernorm.weight");
  EXPECT_EQ(hf_tensor_name(gemma, "blk.7.post_ffw_norm.weight"),
            "model.layers.7.post_feedforward_layernorm.weight");
  EXPECT_EQ(hf_tensor_name(gemma, "blk.7.ffn_down.weight", "language_model.model."),
            "language_model.model.layers.7.mlp.down_proj.weight");
  for (const char* name : {"blk.30.attn_q.weight", "blk.x.attn_q.weight", "blk.1.attn_qq.weight", "blk.",
                           "blk.1", "blk.1.", "", "model.norm.weight"})
    EXPECT_EQ(error_of([&] { hf_tensor_name(llama, name); }).code(), ErrorCode::not_found) << name;
}

/// Every kind of mixer in one model: gla with both gates, delta, sparse, and two of them in parallel.
ModelConfig mixed_model() {
  ModelConfig config = testing_fakes::smollm2_135m();
  config.layers.resize(6);
  config.sink_tokens = 5;
  for (LayerConfig& layer : config.layers) layer.mixer.qkv_bias = true;
  config.layers[0].mixer.type = config.layers[1].mixer.type = config.layers[2].mixer.type = MixerType::gla;
  config.layers[1].mixer.gate = GateType::matrix;
  config.layers[2].mixer.gate = GateType::tied;
  config.layers[2].mixer.feature = FeatureMap::sigmoid;
  config.layers[3].mixer.type = MixerType::delta;
  config.layers[4].mixer.type = MixerType::sparse;
  MixerConfig& parallel = config.layers[5].mixer;
  const MixerConfig window = parallel;
  parallel = {};
  parallel.type = MixerType::parallel;
  parallel.learned = true;
  parallel.of = {config.layers[0].mixer, window};
  parallel.of[1].type = MixerType::window;
  parallel.of[1].window = 64;
  config.validate();
  return config;
}

TEST(TensorNames, MixersHaveTheTensorsOfTheirType) {
  const ModelConfig config = mixed_model();
  std::map<std::string, std::vector<uint64_t>> shapes;
  for (const ExpectedTensor& tensor : expected_tensors(config)) shapes[tensor.name] = tensor.shape;
  const auto shape = [&](const std::string& name) {
    return shapes.count(name) ? shapes.at(name) : std::vector<uint64_t>{};
  };
  using Shape = std::vector<uint64_t>;
  EXPECT_EQ(shape("sink_embd.weight"), (Shape{5, 576}));
  EXPECT_EQ(shape("blk.0.attn_gate_a.weight"), (Shape{16, 576}));
  EXPECT_EQ(shape("blk.0.attn_gate_b.weight"), (Shape{192, 16}));
  EXPECT_EQ(shape("blk.0.attn_gate_b.bias"), (Shape{192}));
  EXPECT_EQ(shape("blk.0.attn_out_norm.weight"), (Shape{64}));
  EXPECT_EQ(shape("blk.1.attn_gate_a.weight"), (Shape{192, 576}));
  EXPECT_EQ(shape("blk.1.attn_gate_a.bias"), (Shape{192}));
  EXPECT_EQ(shape("blk.1.attn_gate_b.weight"), Shape{});
  EXPECT_EQ(shape("blk.2.attn_gate_a.weight"), Shape{});
  EXPECT_EQ(shape("blk.3.attn_decay.weight"), (Shape{3, 576}));
  EXPECT_EQ(shape("blk.3.attn_beta.weight"), (Shape{3, 576}));
  EXPECT_EQ(shape("blk.3.attn_a_log.weight"), (Shape{3}));
  EXPECT_EQ(shape("blk.3.attn_dt_bias.weight"), (Shape{3}));
  EXPECT_EQ(shape("blk.4.attn_out_norm.weight"), Shape{});
  EXPECT_EQ(shape("blk.5.attn_q.weight"), Shape{});
  EXPECT_EQ(shape("blk.5.mix0.attn_gate_b.bias"), (Shape{192}));
  EXPECT_EQ(shape("blk.5.mix0_norm.weight"), (Shape{576}));
  EXPECT_EQ(shape("blk.5.mix1.attn_output.weight"), (Shape{576, 576}));
  EXPECT_EQ(shape("blk.5.mix1_norm.weight"), (Shape{576}));
  EXPECT_EQ(shape("blk.5.mix_weights.weight"), (Shape{2}));
  const auto hf = [&](const char* name) { return hf_tensor_name(config, name); };
  EXPECT_EQ(hf("sink_embd.weight"), "model.sink_embeddings.weight");
  EXPECT_EQ(hf("blk.0.attn_gate_b.bias"), "model.layers.0.self_attn.gate_b_proj.bias");
  EXPECT_EQ(hf("blk.3.attn_a_log.weight"), "model.layers.3.self_attn.A_log");
  EXPECT_EQ(hf("blk.3.attn_dt_bias.weight"), "model.layers.3.self_attn.dt_bias");
  EXPECT_EQ(hf("blk.5.mix1.attn_q.weight"), "model.layers.5.mixers.1.q_proj.weight");
  EXPECT_EQ(hf("blk.5.mix0.attn_out_norm.weight"), "model.layers.5.mixers.0.out_norm.weight");
  EXPECT_EQ(hf("blk.5.mix1_norm.weight"), "model.layers.5.mixers.1.norm.weight");
  EXPECT_EQ(hf("blk.5.mix_weights.weight"), "model.layers.5.mixer_weights");
  for (const char* name : {"blk.5.mix2.attn_q.weight", "blk.5.mix0.ffn_up.weight", "blk.5.mix0",
                           "blk.5.mix0.", "blk.5.mix", "blk.5.mixture.weight"})
    EXPECT_EQ(error_of([&] { hf(name); }).code(), ErrorCode::not_found) << name;
}

TEST(TensorNames, TheMapIsOneToOne) {
  std::vector<ModelConfig> configs = testing_fakes::all_published();
  configs.push_back(mixed_model());
  configs.push_back(testing_fakes::gemma3_1b());
  for (LayerConfig& layer : configs.back().layers) {
    layer.ffn.bias = true;
    layer.mixer.sink_logits = layer.mixer.qkv_bias = layer.mixer.o_bias = true;
  }
  for (const ModelConfig& config : configs) {
    const auto expected = expected_tensors(config);
    const auto back = hf_to_canonical(config);
    EXPECT_EQ(back.size(), expected.size());
    for (const ExpectedTensor& tensor : expected)
      EXPECT_EQ(back.at(hf_tensor_name(config, tensor.name)), tensor.name);
  }
}

TEST(TensorNames, SmolLm2HasItsPublishedTensorsAndParameters) {
  const auto expected = expected_tensors(testing_fakes::smollm2_135m());
  EXPECT_EQ(expected.size(), 272u);  // 9 a layer, embedding, last norm
  uint64_t parameters = 0;
  for (const ExpectedTensor& tensor : expected) {
    uint64_t n = 1;
    for (const uint64_t d : tensor.shape) n *= d;
    parameters += n;
  }
  EXPECT_EQ(parameters, 134515008u);  // the model card's 134.5M
}

TEST(TensorNames, OfLayersComeApart) {
  const auto name = layer_tensor_name_of("blk.12.mix1.attn_q.weight");
  ASSERT_TRUE(name.has_value());
  EXPECT_EQ(name->layer, 12u);
  EXPECT_EQ(name->part, "mix1.attn_q.weight");
  for (const char* other :
       {"token_embd.weight", "blk.", "blk.3", "blk.x.attn_q.weight", "blk..ffn_up.weight"})
    EXPECT_FALSE(layer_tensor_name_of(other).has_value()) << other;
}

TEST(TensorNames, OfMatricesTellTheirProjection) {
  for (const auto& [name, projection] :
       {std::pair{"attn_q", Projection::q}, std::pair{"blk.3.mix0.attn_v.weight", Projection::v},
        std::pair{"ffn_up.7", Projection::up}, std::pair{"blk.3.ffn_down.12.weight", Projection::down},
        std::pair{"blk.0.ffn_gate_shexp.weight", Projection::gate},
        std::pair{"blk.0.attn_gate_a.weight", Projection::recurrence},
        std::pair{"engram_v", Projection::memory}})
    EXPECT_EQ(projection_of(name), projection) << name;
  for (const char* other : {"blk.0.ffn_gate_inp.weight", "blk.0.attn_gate_b.weight", "blk.0.attn_q.bias",
                            "blk.0.attn_q_norm.weight", "token_embd.weight", "output.weight", "", "7", "."})
    EXPECT_FALSE(projection_of(other).has_value()) << other;
}

TEST(TensorNames, MatchFindsEveryTensorOfEitherNaming) {
  for (const ModelConfig& config : testing_fakes::all_published())
    for (const auto& [style, prefix] :
         {std::pair{NameStyle::gguf, ""}, std::pair{NameStyle::hugging_face, "model."},
          std::pair{NameStyle::hugging_face, "language_model.model."},
          std::pair{NameStyle::hugging_face, "model.language_model."},
          std::pair{NameStyle::hugging_face, ""}}) {
      FakeTensors tensors(config, style, prefix);
      tensors.add("vision_tower.patch.weight", {2, 2});
      tensors.add("rope_freqs.weight", {32});
      const TensorMatch match = match_tensors(config, tensors, style);
      EXPECT_EQ(match.by_name.size(), expected_tensors(config).size());
      EXPECT_THAT(match.leftovers, ElementsAre("vision_tower.patch.weight"));
    }
}

TEST(TensorNames, MatchNamesTheFirstMissingOrOddTensor) {
  const ModelConfig config = testing_fakes::smollm2_135m();
  FakeTensors missing(config, NameStyle::gguf);
  missing.erase("blk.3.attn_k.weight").erase("blk.4.attn_k.weight");
  const Error error = error_of([&] { match_tensors(config, missing, NameStyle::gguf); });
  EXPECT_EQ(error.code(), ErrorCode::mismatch);
  EXPECT_THAT(error.what(),
              HasSubstr("blk.3.attn_k.weight is missing; the config asks for it with shape [192, 576]"));

  FakeTensors odd(config, NameStyle::hugging_face);
  odd.add("model.layers.2.mlp.down_proj.weight", {1536, 576});
  EXPECT_THAT(
      error_of([&] { match_tensors(config, odd, NameStyle::hugging_face); }).what(),
      HasSubstr(
          "model.layers.2.mlp.down_proj.weight has shape [1536, 576], but the config asks for [576, 1536]"));
  EXPECT_THAT(error_of([&] { match_tensors(config, FakeTensors(), NameStyle::hugging_face); }).what(),
              HasSubstr("model.embed_tokens.weight"));
}

}  // namespace
}  // namespace mneme::tensor_names_test
