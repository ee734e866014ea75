// config.json files as the model families publish them (irrelevant fields kept, as real files have them), and
// the configs that must come out.
#include "model/import_hf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "core/json.h"
#include "model/fake_tensors.h"
#include "model/published_configs.h"

namespace mneme::import_hf_test {
namespace {

using ::testing::HasSubstr;
using testing_fakes::error_of;
using testing_fakes::FakeTensors;

constexpr const char* kSmolLm2 = R"({
  "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 1,
  "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 576, "initializer_range": 0.041666666666666664,
  "intermediate_size": 1536, "is_llama_config": true, "max_position_embeddings": 8192, "mlp_bias": false,
  "model_type": "llama", "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3,
  "pad_token_id": 2, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_interleaved": false, "rope_scaling": null,
  "rope_theta": 100000, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
  "transformers_version": "4.42.3", "use_cache": true, "vocab_size": 49152})";

constexpr const char* kLlama32 = R"({
  "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
  "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "head_dim": 64, "hidden_act": "silu",
  "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 8192, "max_position_embeddings": 131072,
  "mlp_bias": false, "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 16,
  "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
  "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                   "original_max_position_embeddings": 8192, "rope_type": "llama3"},
  "rope_theta": 500000.0, "tie_word_embeddings": true, "torch_dtype": "bfloat16", "use_cache": true,
  "vocab_size": 128256})";

constexpr const char* kQwen25 = R"({
  "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151645,
  "hidden_act": "silu", "hidden_size": 896, "initializer_range": 0.02, "intermediate_size": 4864,
  "max_position_embeddings": 32768, "max_window_layers": 21, "model_type": "qwen2", "num_attention_heads": 14,
  "num_hidden_layers": 24, "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
  "sliding_window": 32768, "tie_word_embeddings": true, "torch_dtype": "bfloat16", "use_cache": true,
  "use_sliding_window": false, "vocab_size": 151936})";

constexpr const char* kQwen3 = R"({
  "architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
  "bos_token_id": 151643, "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024,
  "initializer_range": 0.02, "intermediate_size": 3072, "max_position_embeddings": 40960, "max_window_layers": 28,
  "model_type": "qwen3", "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8,
  "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1000000, "sliding_window": null,
  "tie_word_embeddings": true, "torch_dtype": "bfloat16", "use_cache": true, "use_sliding_window": false,
  "vocab_size": 151936})";

constexpr const char* kMistral = R"({
  "architectures": ["MistralForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
  "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336, "max_position_embeddings": 32768,
  "model_type": "mistral", "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
  "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "sliding_window": 4096, "tie_word_embeddings": false,
  "torch_dtype": "bfloat16", "use_cache": true, "vocab_size": 32000})";

constexpr const char* kGemma270m = R"({
  "_sliding_window_pattern": 6, "architectures": ["Gemma3ForCausalLM"], "attention_bias": false,
  "attention_dropout": 0.0, "attn_logit_softcapping": null, "bos_token_id": 2, "eos_token_id": 1,
  "final_logit_softcapping": null, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh",
  "hidden_size": 640, "initializer_range": 0.02, "intermediate_size": 2048,
  "layer_types": ["sliding_attention", "sliding_attention", "sliding_attention", "sliding_attention",
    "sliding_attention", "full_attention", "sliding_attention", "sliding_attention", "sliding_attention",
    "sliding_attention", "sliding_attention", "full_attention", "sliding_attention", "sliding_attention",
    "sliding_attention", "sliding_attention", "sliding_attention", "full_attention"],
  "max_position_embeddings": 32768, "model_type": "gemma3_text", "num_attention_heads": 4,
  "num_hidden_layers": 18, "num_key_value_heads": 1, "pad_token_id": 0, "query_pre_attn_scalar": 256,
  "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000.0, "rope_scaling": null, "rope_theta": 1000000.0,
  "sliding_window": 512, "torch_dtype": "bfloat16", "transformers_version": "4.55.0.dev0",
  "use_bidirectional_attention": false, "use_cache": true, "vocab_size": 262144})";

constexpr const char* kGemma1b = R"({
  "architectures": ["Gemma3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
  "attn_logit_softcapping": null, "bos_token_id": 2, "cache_implementation": "hybrid", "eos_token_id": [1, 106],
  "final_logit_softcapping": null, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh",
  "hidden_size": 1152, "initializer_range": 0.02, "intermediate_size": 6912, "max_position_embeddings": 32768,
  "model_type": "gemma3_text", "num_attention_heads": 4, "num_hidden_layers": 26, "num_key_value_heads": 1,
  "pad_token_id": 0, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000,
  "rope_scaling": null, "rope_theta": 1000000, "sliding_window": 512, "sliding_window_pattern": 6,
  "torch_dtype": "bfloat16", "use_cache": true, "vocab_size": 262144})";

// The multimodal 4B: nearly everything is left to the library's defaults.
constexpr const char* kGemma4b = R"({
  "architectures": ["Gemma3ForConditionalGeneration"], "boi_token_index": 255999, "eoi_token_index": 256000,
  "eos_token_id": [1, 106], "image_token_index": 262144, "initializer_range": 0.02, "mm_tokens_per_image": 256,
  "model_type": "gemma3",
  "text_config": {"hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
    "num_hidden_layers": 34, "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024},
  "torch_dtype": "bfloat16",
  "vision_config": {"hidden_size": 1152, "model_type": "siglip_vision_model", "num_hidden_layers": 27}})";

constexpr const char* kGemma2 = R"({
  "architectures": ["Gemma2ForCausalLM"], "attention_bias": false, "attn_logit_softcapping": 50.0,
  "cache_implementation": "hybrid", "final_logit_softcapping": 30.0, "head_dim": 128,
  "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 4608,
  "intermediate_size": 36864, "max_position_embeddings": 8192, "model_type": "gemma2", "num_attention_heads": 32,
  "num_hidden_layers": 46, "num_key_value_heads": 16, "query_pre_attn_scalar": 144, "rms_norm_eps": 1e-06,
  "rope_theta": 10000.0, "sliding_window": 4096, "sliding_window_size": 4096, "use_cache": true,
  "vocab_size": 256000})";

ModelConfig hf_gemma(ModelConfig config) {
  config.norm.weight_offset = 1;
  return config;
}

std::string with(const char* text, const std::string& field, const Json& value) {
  Json json = Json::parse(text);
  json[field] = value;
  return json.dump();
}

std::string without(const char* text, const std::string& field) {
  Json json = Json::parse(text);
  json.erase(field);
  return json.dump();
}

TEST(ImportHf, PublishedConfigs) {
  EXPECT_EQ(config_from_hf(kSmolLm2), testing_fakes::smollm2_135m());
  EXPECT_EQ(config_from_hf(kLlama32), testing_fakes::llama32_1b());
  EXPECT_EQ(config_from_hf(kQwen25), testing_fakes::qwen25_05b());
  EXPECT_EQ(config_from_hf(kQwen3), testing_fakes::qwen3_06b());
  EXPECT_EQ(config_from_hf(kMistral), testing_fakes::mistral_7b_v01());
  EXPECT_EQ(config_from_hf(kGemma270m), hf_gemma(testing_fakes::gemma3_270m()));
  EXPECT_EQ(config_from_hf(kGemma1b), hf_gemma(testing_fakes::gemma3_1b()));
}

TEST(ImportHf, MultimodalGemmaIsItsTextPartWithDefaults) {
  ModelConfig golden = hf_gemma(testing_fakes::gemma3(34, 2560, 8, 4, 10240, 1024));
  golden.vocab = 262208;
  golden.context = 131072;
  golden.rope.scaling.type = RopeScaling::Type::linear;
  golden.rope.scaling.factor = 8;
  EXPECT_EQ(config_from_hf(kGemma4b), golden);
}

TEST(ImportHf, Gemma2HasSoftcapsAnOddScaleAndAlternatingWindows) {
  const ModelConfig config = config_from_hf(kGemma2);
  EXPECT_EQ(config.logit_softcap, 30);
  EXPECT_TRUE(config.tied);
  EXPECT_DOUBLE_EQ(config.embedding_scale, std::sqrt(4608.0));
  ASSERT_EQ(config.layers.size(), 46u);
  EXPECT_EQ(config.layers[0].mixer.type, MixerType::window);
  EXPECT_EQ(config.layers[1].mixer.type, MixerType::full);
  EXPECT_EQ(config.layers[44].mixer.window, 4096u);
  EXPECT_DOUBLE_EQ(config.layers[0].mixer.scale, 1.0 / 12);
  EXPECT_EQ(config.layers[0].mixer.softcap, 50);
  EXPECT_FALSE(config.layers[0].mixer.qk_norm);
  EXPECT_FALSE(config.layers[0].mixer.rope.has_value());
}

TEST(ImportHf, MistralWithoutAWindowIsFull) {
  EXPECT_EQ(config_from_hf(with(kMistral, "sliding_window", nullptr)).layers[0].mixer.type, MixerType::full);
  // a file that leaves the field out means the library's 4096
  EXPECT_EQ(config_from_hf(without(kMistral, "sliding_window")), testing_fakes::mistral_7b_v01());
}

TEST(ImportHf, AWindowBeyondTheContextHidesNothing) {
  const ModelConfig config = config_from_hf(with(kMistral, "max_position_embeddings", 2048));
  EXPECT_EQ(config.layers[0].mixer.window, 2048u);
}

TEST(ImportHf, QwenWindowsHoldFromMaxWindowLayersOn) {
  Json json = Json::parse(kQwen25);
  json["use_sliding_window"] = true;
  json["sliding_window"] = 1000;
  const ModelConfig config = config_from_hf(json.dump());
  EXPECT_EQ(config.layers[20].mixer.type, MixerType::full);
  EXPECT_EQ(config.layers[21].mixer.type, MixerType::window);
  EXPECT_EQ(config.layers[23].mixer.window, 1000u);
  std::vector<std::string> types(24, "full_attention");
  types[3] = "sliding_attention";
  json["layer_types"] = types;  // wins over max_window_layers
  const ModelConfig listed = config_from_hf(json.dump());
  EXPECT_EQ(listed.layers[3].mixer.window, 1000u);
  EXPECT_EQ(listed.layers[23].mixer.type, MixerType::full);
}

TEST(ImportHf, BiasesFollowTheFamily) {
  const ModelConfig llama = config_from_hf(with(kSmolLm2, "attention_bias", true));
  EXPECT_TRUE(llama.layers[0].mixer.qkv_bias && llama.layers[0].mixer.o_bias);
  EXPECT_TRUE(config_from_hf(with(kSmolLm2, "mlp_bias", true)).layers[0].ffn.bias);
  const ModelConfig qwen = config_from_hf(kQwen25);
  EXPECT_TRUE(qwen.layers[0].mixer.qkv_bias && !qwen.layers[0].mixer.o_bias);
}

TEST(ImportHf, OldAndNewRopeFieldsMeanTheSame) {
  Json json = Json::parse(kLlama32);
  json["rope_parameters"] = json["rope_scaling"];
  json["rope_parameters"]["rope_theta"] = 500000.0;
  json.erase("rope_scaling");
  json.erase("rope_theta");
  EXPECT_EQ(config_from_hf(json.dump()), testing_fakes::llama32_1b());

  json = Json::parse(kLlama32);  // "type" is the oldest spelling
  json["rope_scaling"]["type"] = json["rope_scaling"]["rope_type"];
  json["rope_scaling"].erase("rope_type");
  EXPECT_EQ(config_from_hf(json.dump()), testing_fakes::llama32_1b());

  json = Json::parse(kGemma270m);
  json.erase("rope_theta");
  json.erase("rope_local_base_freq");
  json["rope_parameters"] = {{"full_attention", {{"rope_theta", 1e6}, {"rope_type", "default"}}},
                             {"sliding_attention", {{"rope_theta", 1e4}, {"rope_type", "default"}}}};
  EXPECT_EQ(config_from_hf(json.dump()), hf_gemma(testing_fakes::gemma3_270m()));
}

TEST(ImportHf, Yarn) {
  Json json = Json::parse(kQwen3);
  json["rope_scaling"] = {
      {"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 32768}};
  RopeScaling golden;
  golden.type = RopeScaling::Type::yarn;
  golden.factor = 4;
  golden.original_context = 32768;
  EXPECT_EQ(config_from_hf(json.dump()).rope.scaling, golden);
  json["rope_scaling"]["attention_factor"] = 0.9;
  json["rope_scaling"]["beta_fast"] = 24;
  golden.attention_factor = 0.9;
  golden.beta_fast = 24;
  EXPECT_EQ(config_from_hf(json.dump()).rope.scaling, golden);
  json["rope_scaling"] = {{"type", "yarn"}, {"factor", 4.0}, {"mscale", 1.0}, {"mscale_all_dim", 0.5}};
  const RopeScaling scaling = config_from_hf(json.dump()).rope.scaling;
  EXPECT_EQ(scaling.original_context, 40960);  // max_position_embeddings
  EXPECT_NEAR(scaling.attention_factor, 1.1386294361 / 1.0693147181, 1e-9);
}

TEST(ImportHf, TheHeadIsTiedAsTheConfigOrElseTheFileSays) {
  const std::string unsaid = without(kSmolLm2, "tie_word_embeddings");
  EXPECT_FALSE(config_from_hf(unsaid).tied);  // the library's default for llama
  const FakeTensors tied(testing_fakes::smollm2_135m(), NameStyle::hugging_face);
  EXPECT_TRUE(config_from_hf(unsaid, &tied).tied);
  FakeTensors untied = tied;
  untied.add("lm_head.weight", {49152, 576});
  EXPECT_FALSE(config_from_hf(unsaid, &untied).tied);
  EXPECT_TRUE(config_from_hf(kSmolLm2, &untied).tied);
}

TEST(ImportHf, TheEmbeddedConfigWins) {
  ModelConfig golden = testing_fakes::mistral_7b_v01();
  golden.layers[3].mixer.sinks = 4;
  golden.name = "mine";
  const Json json = {{"model_type", "mneme"}, {"mneme_config", Json::parse(golden.to_json())}};
  EXPECT_EQ(config_from_hf(json.dump()), golden);
  EXPECT_THAT(error_of([] { config_from_hf(R"({"mneme_config": {"mneme": 1, "vocab": 0}})"); }).what(),
              HasSubstr("config.json: mneme_config: d_model is missing"));
}

struct Refusal {
  const char* field;
  Json value;
  ErrorCode code;
  const char* says;
};

TEST(ImportHf, EveryBadFieldIsNamed) {
  constexpr auto kBad = ErrorCode::corrupt;
  constexpr auto kCannot = ErrorCode::unsupported;
  const std::vector<Refusal> cases = {
      {"hidden_size", -576, kBad, "config.json: hidden_size is -576"},
      {"hidden_size", "576", kBad, "hidden_size is \"576\""},
      {"hidden_size", nullptr, kBad, "hidden_size is missing"},
      {"hidden_size", 577, kBad, "hidden_size is 577, which num_attention_heads = 9 does not divide"},
      {"num_hidden_layers", 1000000000, kBad, "num_hidden_layers is 1000000000"},
      {"num_hidden_layers", 0, kBad, "num_hidden_layers is 0"},
      {"num_attention_heads", 0, kBad, "num_attention_heads is 0"},
      {"num_key_value_heads", 4, kBad, "kv_heads is 4, but must divide heads"},
      {"intermediate_size", 1e12, kBad, "intermediate_size is 1000000000000.0"},
      {"vocab_size", Json::array(), kBad, "vocab_size is an array"},
      {"rms_norm_eps", "small", kBad, "rms_norm_eps is \"small\""},
      {"rope_theta", 0, kBad, "rope_theta is 0"},
      {"head_dim", 63, kBad, "must be even"},
      {"hidden_act", "relu", kCannot, "hidden_act is \"relu\""},
      {"tie_word_embeddings", 1, kBad, "tie_word_embeddings is 1, but must be true or false"},
      {"rope_scaling",
       {{"rope_type", "dynamic"}, {"factor", 2.0}},
       kCannot,
       "rope_scaling.rope_type is \"dynamic\""},
      {"rope_scaling", {{"rope_type", "linear"}}, kBad, "rope_scaling.factor is missing"},
      {"rope_scaling", {{"rope_type", "linear"}, {"factor", 0.5}}, kBad, "rope_scaling.factor is 0.5"},
      {"rope_scaling",
       {{"rope_type", "llama3"}, {"factor", 8}},
       kBad,
       "original_max_position_embeddings is missing"},
      {"rope_parameters", 3, kBad, "rope_parameters is 3, but must be an object"},
      {"partial_rotary_factor", 0.5, kCannot, "partial_rotary_factor is not 1"},
      {"layer_types", {"full_attention"}, kBad, "layer_types has 1 entries, but num_hidden_layers is 30"},
      {"quantization_config", {{"quant_method", "gptq"}}, kCannot, "quantized by \"gptq\""},
      {"model_type", "mamba", kCannot,
       "model_type \"mamba\" is not supported; this version runs llama, mistral"},
      {"model_type", nullptr, kBad, "model_type is missing"},
  };
  for (const Refusal& r : cases) {
    const Error error = error_of([&] { config_from_hf(with(kSmolLm2, r.field, r.value)); });
    EXPECT_EQ(error.code(), r.code) << error.what();
    EXPECT_THAT(error.what(), HasSubstr(r.says));
    EXPECT_THAT(error.what(), ::testing::StartsWith("config.json"));
  }
  for (const char* text : {"", "[]", "null", "{\"model_type\": \"llama\"", "{\"a\": 1, \"a\": 2}"})
    EXPECT_EQ(error_of([&] { config_from_hf(text); }).code(), ErrorCode::corrupt) << text;
}

TEST(ImportHf, MutatedFilesNeverCrash) {
  const std::vector<const char*> texts = {kSmolLm2,   kLlama32, kQwen25,  kQwen3, kMistral,
                                          kGemma270m, kGemma1b, kGemma4b, kGemma2};
  const std::vector<Json> values = {nullptr,
                                    true,
                                    -1,
                                    0,
                                    1,
                                    7,
                                    1e9,
                                    1e-300,
                                    -1e300,
                                    UINT64_MAX,
                                    "x",
                                    "",
                                    "yarn",
                                    "llama3",
                                    Json::array(),
                                    Json::array({1, "a"}),
                                    Json::object(),
                                    Json{{"rope_type", "yarn"}, {"factor", 3}}};
  std::mt19937 rng(3);
  int accepted = 0, refused = 0;
  for (int i = 0; i < 4000; ++i) {
    Json json = Json::parse(texts[i % texts.size()]);
    for (int n = 1 + static_cast<int>(rng() % 3); n > 0; --n) {
      Json* at = &json;
      while (true) {
        auto it = at->begin();
        std::advance(it, rng() % at->size());
        if (it->is_object() && !it->empty() && rng() % 2) {
          at = &*it;
          continue;
        }
        *it = values[rng() % values.size()];
        break;
      }
    }
    try {
      config_from_hf(json.dump()).validate();
      ++accepted;
    } catch (const Error& error) {
      ASSERT_NE(error.code(), ErrorCode::internal) << error.what();
      ++refused;
    }
  }
  EXPECT_GT(accepted, 200);
  EXPECT_GT(refused, 500);
}

}  // namespace
}  // namespace mneme::import_hf_test
