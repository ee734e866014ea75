// SpikingBrain-7B's checkpoints at their published size, from names and shapes alone: every tensor of the
// float model and of W8ASpike is used, the totals are the published ones, and what is wrong is named.
#include "model/gla_swa.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "model/checkpoint.h"
#include "model/fake_tensors.h"
#include "model/import_hf.h"
#include "model/load_tokenizer.h"
#include "text/tokenizer_vocab.h"

namespace mneme::gla_swa_test {
namespace {

using ::testing::HasSubstr;
using testing_fakes::error_of;
using testing_fakes::FakeTensors;

/// The fields of the published config.json.
nlohmann::json published() {
  return nlohmann::json::parse(R"({
    "architectures": ["GLAswaForCausalLM"], "attention_dropout": 0.0,
    "attn_layers": [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27], "attn_mode": "chunk",
    "bos_token_id": 151643, "conv_size": 4, "elementwise_affine": true, "eos_token_id": 151643,
    "fuse_cross_entropy": true, "hidden_act": "swish", "hidden_size": 3584, "initializer_range": 0.02,
    "intermediate_size": 18944, "max_position_embeddings": 131072, "model_type": "gla_swa",
    "norm_eps": 1e-6, "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4,
    "rope_theta": 1000000.0, "sliding_window": 4096, "tie_word_embeddings": false,
    "torch_dtype": "bfloat16", "transformers_version": "4.45.0", "use_cache": true,
    "use_short_conv": false, "vocab_size": 152064})");
}

/// The published list of tensors. `fused`: the gate as one matrix, and scales beside every projection.
FakeTensors published_tensors(bool fused) {
  FakeTensors out;
  const auto projection = [&](const std::string& name, uint64_t rows, uint64_t cols, bool bias) {
    out.add(name + ".weight", {rows, cols});
    if (bias) out.add(name + ".bias", {rows});
    if (fused) out.add(name + ".weight_quantizer.scales", {rows, cols / 128, 1});
  };
  out.add("model.embeddings.weight", {152064, 3584});
  for (int i = 0; i < 28; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    out.add(layer + "attn_norm.weight", {3584});
    out.add(layer + "mlp_norm.weight", {3584});
    projection(layer + "attn.q_proj", 3584, 3584, true);
    projection(layer + "attn.k_proj", 512, 3584, true);
    projection(layer + "attn.v_proj", 512, 3584, true);
    projection(layer + "attn.o_proj", 3584, 3584, false);
    if (i % 2 == 0) {
      if (fused) {
        projection(layer + "attn.gk_proj", 512, 3584, true);
      } else {
        out.add(layer + "attn.gk_proj.0.weight", {16, 3584});
        out.add(layer + "attn.gk_proj.1.weight", {512, 16});
        out.add(layer + "attn.gk_proj.1.bias", {512});
      }
      out.add(layer + "attn.g_norm.weight", {128});
    }
    projection(layer + "mlp.gate_proj", 18944, 3584, false);
    projection(layer + "mlp.up_proj", 18944, 3584, false);
    projection(layer + "mlp.down_proj", 3584, 18944, false);
  }
  out.add("model.norm.weight", {3584});
  out.add("lm_head.weight", {152064, 3584});
  return out;
}

uint64_t values_of(const FakeTensors& tensors) {
  uint64_t sum = 0;
  for (const TensorInfo& tensor : tensors.tensors()) sum += tensor.values();
  return sum;
}

uint64_t expected_values(const ModelConfig& config) {
  uint64_t sum = 0;
  for (const ExpectedTensor& tensor : expected_tensors(config)) {
    uint64_t values = 1;
    for (const uint64_t d : tensor.shape) values *= d;
    sum += values;
  }
  return sum;
}

TEST(GlaSwa, ThePublishedConfigIsAHybridOfTwoMixers) {
  const ModelConfig model = config_from_hf(published().dump());
  EXPECT_EQ(model.d_model, 3584u);
  EXPECT_EQ(model.vocab, 152064u);
  EXPECT_EQ(model.context, 131072u);
  EXPECT_FALSE(model.tied);
  EXPECT_EQ(model.norm.eps, 1e-6);
  EXPECT_EQ(model.rope.base, 1e6);
  ASSERT_EQ(model.layers.size(), 28u);
  for (size_t i = 0; i < 28; ++i) {
    const MixerConfig& mixer = model.layers[i].mixer;
    EXPECT_EQ(mixer.type, i % 2 == 1 ? MixerType::window : MixerType::gla) << i;
    EXPECT_EQ(mixer.heads, 28u);
    EXPECT_EQ(mixer.kv_heads, 4u);
    EXPECT_EQ(mixer.head_dim, 128u);
    EXPECT_TRUE(mixer.qkv_bias);
    EXPECT_FALSE(mixer.o_bias);
    EXPECT_EQ(model.layers[i].ffn.hidden, 18944u);
  }
  const MixerConfig &linear = model.layers[0].mixer, &window = model.layers[1].mixer;
  EXPECT_EQ(linear.feature, FeatureMap::relu);
  EXPECT_EQ(linear.gate, GateType::low_rank);
  EXPECT_EQ(linear.gate_rank, 16u);
  EXPECT_EQ(linear.gate_normalizer, 16);
  EXPECT_TRUE(linear.out_norm);
  EXPECT_EQ(window.window, 4096u);
  EXPECT_EQ(window.edge, WindowEdge::plus_one);
}

TEST(GlaSwa, TheBaseModelHas395TensorsAnd7616542976Parameters) {
  const FakeTensors tensors = published_tensors(false);
  EXPECT_EQ(tensors.tensors().size(), 395u);
  EXPECT_EQ(values_of(tensors), 7'616'542'976u);
  const ModelConfig config = config_from_hf(published().dump(), &tensors);
  EXPECT_EQ(expected_tensors(config).size(), 395u);
  EXPECT_EQ(expected_values(config), 7'616'542'976u);
  const TensorMatch match = match_tensors(config, tensors, NameStyle::hugging_face);
  EXPECT_EQ(match.by_name.size(), 395u);
  EXPECT_TRUE(match.leftovers.empty());
}

TEST(GlaSwa, W8ASpikeHas591TensorsAnd7692495104Values) {
  const FakeTensors tensors = published_tensors(true);
  EXPECT_EQ(tensors.tensors().size(), 591u);
  EXPECT_EQ(values_of(tensors), 7'692'495'104u);
  const ModelConfig config = config_from_hf(published().dump(), &tensors);
  EXPECT_EQ(config.layers[0].mixer.gate, GateType::matrix);
  const TensorMatch match = match_tensors(config, tensors, NameStyle::hugging_face);
  EXPECT_EQ(match.by_name.size(), 381u);
  EXPECT_EQ(match.leftovers.size(), 28u);  // of 210 lists of scales, those of down_proj are not used
  for (const std::string& name : match.leftovers)
    EXPECT_THAT(name, HasSubstr(".mlp.down_proj.weight_quantizer.scales"));
}

TEST(GlaSwa, W8ASpikeSpikesEverywhereButInDownProj) {
  const FakeTensors tensors = published_tensors(true);
  auto json = published();
  const ModelConfig config = config_from_hf(json.dump(), &tensors);
  for (size_t i = 0; i < 28; ++i) {
    const LayerConfig& layer = config.layers[i];
    ActivationPolicy expected(ActivationConfig(Activation::spike, 3.0));
    expected[Projection::down] = Activation::float_;
    EXPECT_EQ(layer.activation, expected) << i;
    EXPECT_EQ(layer.mixer.query.type, i % 2 == 1 ? Activation::spike : Activation::automatic) << i;
    EXPECT_EQ(layer.mixer.kv_int8, i % 2 == 1) << i;
  }
  EXPECT_EQ(ModelConfig::from_json(config.to_json()), config);
  json["dynamic_sfr"] = 2.5;
  const ModelConfig other = config_from_hf(json.dump(), &tensors);
  EXPECT_EQ(other.layers[0].activation[Projection::q].k, 2.5);
  EXPECT_EQ(other.layers[1].mixer.query.k, 2.5);
  json["dynamic_sfr"] = 0;
  EXPECT_THAT(error_of([&] { config_from_hf(json.dump(), &tensors); }).what(), HasSubstr("dynamic_sfr"));
  EXPECT_EQ(config_from_hf(published().dump()).layers[0].activation, ActivationPolicy());
}

// The published code overwrites the list with the odd layers.
TEST(GlaSwa, AttnLayersOfTheFileDoesNotMatter) {
  auto json = published();
  json["attn_layers"] = {0, 2};
  EXPECT_EQ(config_from_hf(json.dump()), config_from_hf(published().dump()));
  json.erase("attn_layers");
  EXPECT_EQ(config_from_hf(json.dump()), config_from_hf(published().dump()));
}

TEST(GlaSwa, VariantsThatAreNotPublishedAreRefused) {
  const auto with = [](const char* field, const nlohmann::json& value) {
    auto json = published();
    json[field] = value;
    return error_of([&] { config_from_hf(json.dump()); });
  };
  EXPECT_EQ(with("use_short_conv", true).code(), ErrorCode::unsupported);
  EXPECT_THAT(with("use_short_conv", true).what(), HasSubstr("use_short_conv is true"));
  EXPECT_THAT(with("elementwise_affine", false).what(), HasSubstr("elementwise_affine is false"));
  EXPECT_THAT(with("hidden_act", "gelu").what(), HasSubstr("hidden_act is \"gelu\""));
  EXPECT_THAT(with("num_attention_heads", 27).what(), HasSubstr("num_attention_heads = 27 does not divide"));
  EXPECT_EQ(with("num_key_value_heads", 3).code(), ErrorCode::corrupt);
}

class GlaSwaTensors : public ::testing::TestWithParam<bool> {
 protected:
  FakeTensors tensors_ = published_tensors(GetParam());
  const ModelConfig config_ = config_from_hf(published().dump(), &tensors_);
  Error refused() const {
    return error_of([&] { match_tensors(config_, tensors_, NameStyle::hugging_face); });
  }
};

TEST_P(GlaSwaTensors, EveryMissingTensorIsNamed) {
  const std::vector<TensorInfo> all = tensors_.tensors();
  for (const TensorInfo& tensor : all) {
    if (gla_swa_may_ignore(tensor.name)) continue;
    if (tensor.name.find(".layers.") != std::string::npos &&
        tensor.name.find(".layers.2.") == std::string::npos &&
        tensor.name.find(".layers.3.") == std::string::npos)
      continue;
    tensors_.erase(tensor.name);
    const Error error = refused();
    EXPECT_EQ(error.code(), ErrorCode::mismatch);
    EXPECT_THAT(error.what(), HasSubstr("tensor " + tensor.name + " is missing"));
    tensors_.add(tensor.name, tensor.shape);
  }
}

TEST_P(GlaSwaTensors, ExtraAndMisshapenTensorsAreNamed) {
  tensors_.add("model.layers.1.attn.gk_proj.0.weight", {16, 3584});  // windows have no gate
  EXPECT_EQ(refused().code(), ErrorCode::mismatch);
  EXPECT_THAT(refused().what(), HasSubstr("model.layers.1.attn.gk_proj.0.weight"));
  tensors_.erase("model.layers.1.attn.gk_proj.0.weight");
  tensors_.add("model.layers.6.attn.g_norm.weight", {3584});
  EXPECT_THAT(refused().what(),
              HasSubstr("model.layers.6.attn.g_norm.weight has shape [3584], but the config asks for [128]"));
}

INSTANTIATE_TEST_SUITE_P(Variants, GlaSwaTensors, ::testing::Bool(),
                         [](const auto& item) { return item.param ? "Fused" : "Factored"; });

TEST(GlaSwa, OtherModelsAreNotMistaken) {
  FakeTensors tensors;
  tensors.add("model.embed_tokens.weight", {8, 8});
  EXPECT_FALSE(has_gla_swa_names(tensors));
  const Error error = error_of(
      [&] { match_tensors(config_from_hf(published().dump(), &tensors), tensors, NameStyle::hugging_face); });
  EXPECT_EQ(error.code(), ErrorCode::mismatch);
}

// The checkpoints come with vocab.json, merges.txt and tokenizer_config.json; transformers is the reference.
TEST(GlaSwa, TheTokenizerIsReadFromItsOlderFiles) {
  const std::string folder = std::string(MNEME_TEST_DATA) + "/models/spikingbrain";
  std::ifstream in(folder + "/golden_tokens.json");
  const auto golden = nlohmann::json::parse(in);
  const auto tokenizer = load_tokenizer(open_checkpoint(folder));
  ASSERT_NE(tokenizer, nullptr);
  ASSERT_GE(golden.size(), 4u);
  for (const auto& item : golden)
    EXPECT_EQ(tokenizer->encode(item["text"].get<std::string>()), item["ids"].get<std::vector<TokenId>>())
        << item["text"];
  EXPECT_EQ(tokenizer->bos(), -1);
  EXPECT_EQ(tokenizer->encode("<|endoftext|>"), std::vector<TokenId>{tokenizer->eos()});
}

TEST(GlaSwa, OtherClassesOfOlderTokenizersAreNotGuessed) {
  EXPECT_EQ(tokenizer_json_from_vocab("{}", "", R"({"tokenizer_class": "GPT2Tokenizer"})"), "");
  EXPECT_EQ(
      error_of([] { tokenizer_json_from_vocab("[", "", R"({"tokenizer_class": "Qwen2Tokenizer"})"); }).code(),
      ErrorCode::corrupt);
  EXPECT_EQ(error_of([] {
              tokenizer_json_from_vocab(
                  "{}", "", R"({"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": {"x": {}}})");
            }).code(),
            ErrorCode::corrupt);
}

}  // namespace
}  // namespace mneme::gla_swa_test
