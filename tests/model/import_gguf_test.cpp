// GGUF metadata as llama.cpp's converter writes it for each family, and the config that must come out.
#include "model/import_gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/fake_tensors.h"
#include "model/published_configs.h"
#include "model/rope_frequencies.h"

namespace mneme::import_gguf_test {
namespace {

using ::testing::HasSubstr;
using testing_fakes::error_of;
using testing_fakes::FakeTensors;

/// The keys that every family has. Reals are f32 in files.
GgufMetadata metadata_for(const ModelConfig& config, const std::string& arch) {
  GgufMetadata out;
  const MixerConfig& mixer = config.layers[0].mixer;
  const auto u = [&](const char* key, uint64_t value) { out.set(arch + "." + key, value); };
  out.set("general.architecture", arch);
  u("block_count", config.layers.size());
  u("embedding_length", config.d_model);
  u("context_length", config.context);
  u("feed_forward_length", config.layers[0].ffn.hidden);
  u("attention.head_count", mixer.heads);
  u("attention.head_count_kv", mixer.kv_heads);
  u("attention.key_length", mixer.head_dim);
  u("attention.value_length", mixer.head_dim);
  out.set(arch + ".attention.layer_norm_rms_epsilon", double{static_cast<float>(config.norm.eps)});
  out.set(arch + ".rope.freq_base", double{static_cast<float>(config.rope.base)});
  return out;
}

ModelConfig interleaved(ModelConfig config) {
  config.rope.style = RopeConfig::Style::interleaved;
  return config;
}

TEST(ImportGguf, SmolLm2) {
  const ModelConfig golden = interleaved(testing_fakes::smollm2_135m());
  GgufMetadata metadata = metadata_for(golden, "llama");
  metadata.set("llama.vocab_size", uint64_t{49152});
  metadata.set("llama.rope.dimension_count", uint64_t{64});
  EXPECT_EQ(config_from_gguf(metadata, FakeTensors(golden, NameStyle::gguf)), golden);
}

TEST(ImportGguf, HeadDimIsTheWidthOverTheHeadsIfNotGiven) {
  const ModelConfig golden = interleaved(testing_fakes::smollm2_135m());
  GgufMetadata all = metadata_for(golden, "llama"), some;
  for (const auto& [key, value] : all.values())
    if (key.find("key_length") == std::string::npos && key.find("value_length") == std::string::npos)
      some.set(key, value);
  EXPECT_EQ(config_from_gguf(some, FakeTensors(golden, NameStyle::gguf)), golden);
}

TEST(ImportGguf, Llama3FactorsAreRecognised) {
  const ModelConfig golden = interleaved(testing_fakes::llama32_1b());
  RopeConfig plain = golden.rope;
  plain.scaling = {};
  const auto scaled = rope_inverse_frequencies(golden.rope, 64), base = rope_inverse_frequencies(plain, 64);
  std::vector<float> factors;
  for (size_t i = 0; i < scaled.size(); ++i) factors.push_back(base[i] / scaled[i]);
  FakeTensors tensors(golden, NameStyle::gguf);
  tensors.add("rope_freqs.weight", {32}, factors);
  EXPECT_EQ(config_from_gguf(metadata_for(golden, "llama"), tensors), golden);

  factors[20] *= 1.5f;  // no longer the published blend: carried as it is
  tensors.add("rope_freqs.weight", {32}, factors);
  const ModelConfig own = config_from_gguf(metadata_for(golden, "llama"), tensors);
  EXPECT_EQ(own.rope.scaling.type, RopeScaling::Type::factors);
  const auto frequencies = rope_inverse_frequencies(own.rope, 64);
  for (size_t i = 0; i < 32; ++i) EXPECT_FLOAT_EQ(frequencies[i], base[i] / factors[i]);

  tensors.add("rope_freqs.weight", {32}, std::vector<float>(32, 1.0f));
  EXPECT_EQ(config_from_gguf(metadata_for(golden, "llama"), tensors).rope.scaling, RopeScaling{});

  factors[3] = -1;
  tensors.add("rope_freqs.weight", {32}, factors);
  EXPECT_THROW(config_from_gguf(metadata_for(golden, "llama"), tensors), Error);
  tensors.add("rope_freqs.weight", {31}, std::vector<float>(31, 1.0f));
  EXPECT_THROW(config_from_gguf(metadata_for(golden, "llama"), tensors), Error);
}

TEST(ImportGguf, Qwen2HasBiasesAndQwen3HasNorms) {
  for (const auto& [arch, golden] :
       {std::pair{"qwen2", testing_fakes::qwen25_05b()}, std::pair{"qwen3", testing_fakes::qwen3_06b()}}) {
    GgufMetadata metadata = metadata_for(golden, arch);
    metadata.set(std::string(arch) + ".attention.sliding_window",
                 uint64_t{32768});  // not used without a pattern
    EXPECT_EQ(config_from_gguf(metadata, FakeTensors(golden, NameStyle::gguf)), golden);
  }
}

TEST(ImportGguf, MistralsWindowHoldsForAllLayers) {
  const ModelConfig golden = interleaved(testing_fakes::mistral_7b_v01());
  GgufMetadata metadata = metadata_for(golden, "llama");
  metadata.set("llama.attention.sliding_window", uint64_t{4096});
  EXPECT_EQ(config_from_gguf(metadata, FakeTensors(golden, NameStyle::gguf)), golden);
}

TEST(ImportGguf, Gemma3) {
  for (const ModelConfig& golden : {testing_fakes::gemma3_270m(), testing_fakes::gemma3_1b()}) {
    GgufMetadata metadata = metadata_for(golden, "gemma3");
    metadata.set("gemma3.attention.sliding_window", uint64_t{512});
    EXPECT_EQ(config_from_gguf(metadata, FakeTensors(golden, NameStyle::gguf)), golden);
  }
}

TEST(ImportGguf, Gemma3ScalesOnlyItsGlobalLayers) {
  ModelConfig golden = testing_fakes::gemma3(34, 2560, 8, 4, 10240, 1024);
  golden.rope.scaling.type = RopeScaling::Type::linear;
  golden.rope.scaling.factor = 8;
  GgufMetadata metadata = metadata_for(golden, "gemma3");
  metadata.set("gemma3.attention.sliding_window", uint64_t{1024});
  metadata.set("gemma3.rope.scaling.type", std::string("linear"));
  metadata.set("gemma3.rope.scaling.factor", 8.0);
  const ModelConfig config = config_from_gguf(metadata, FakeTensors(golden, NameStyle::gguf));
  EXPECT_EQ(config, golden);
  EXPECT_EQ(config.layers[0].mixer.rope->scaling, RopeScaling{});
}

TEST(ImportGguf, Gemma27bScalesScoresByTheWidthOfAHead) {
  ModelConfig golden = testing_fakes::gemma3(62, 5376, 32, 16, 21504, 1024);
  for (LayerConfig& layer : golden.layers) layer.mixer.head_dim = 128;
  for (LayerConfig& layer : golden.layers) layer.mixer.scale = 1 / std::sqrt(168.0);
  GgufMetadata metadata = metadata_for(golden, "gemma3");
  metadata.set("gemma3.attention.sliding_window", uint64_t{1024});
  EXPECT_EQ(config_from_gguf(metadata, FakeTensors(golden, NameStyle::gguf)), golden);
}

TEST(ImportGguf, Gemma2HasSoftcapsAndAlternatingWindows) {
  ModelConfig golden = testing_fakes::gemma3(26, 2304, 8, 4, 9216, 4096);
  golden.rope.base = 10000;
  golden.logit_softcap = 30;
  for (size_t i = 0; i < golden.layers.size(); ++i) {
    MixerConfig& mixer = golden.layers[i].mixer;
    mixer.qk_norm = false;
    mixer.softcap = 50;
    mixer.rope.reset();
    mixer.type = i % 2 == 0 ? MixerType::window : MixerType::full;
    mixer.window = i % 2 == 0 ? 4096 : 0;
  }
  EXPECT_EQ(config_from_gguf(metadata_for(golden, "gemma2"), FakeTensors(golden, NameStyle::gguf)), golden);
}

TEST(ImportGguf, YarnTakesItsNumbersFromTheKeys) {
  ModelConfig golden = testing_fakes::qwen3_06b();
  RopeScaling& s = golden.rope.scaling;
  s.type = RopeScaling::Type::yarn;
  s.factor = 4;
  s.original_context = 32768;
  GgufMetadata metadata = metadata_for(golden, "qwen3");
  metadata.set("qwen3.rope.scaling.type", std::string("yarn"));
  metadata.set("qwen3.rope.scaling.factor", 4.0);
  metadata.set("qwen3.rope.scaling.original_context_length", uint64_t{32768});
  const FakeTensors tensors(golden, NameStyle::gguf);
  EXPECT_EQ(config_from_gguf(metadata, tensors), golden);
  metadata.set("qwen3.rope.scaling.attn_factor", 0.5);
  EXPECT_NEAR(config_from_gguf(metadata, tensors).rope.scaling.attention_factor, 0.5 * 1.1386294361, 1e-9);
}

TEST(ImportGguf, ArraysGiveEachLayerItsOwnNumbers) {
  ModelConfig golden = interleaved(testing_fakes::smollm2_135m());
  golden.layers.resize(2);
  golden.layers[1].mixer.kv_heads = 1;
  golden.layers[1].ffn.hidden = 1000;
  GgufMetadata metadata = metadata_for(golden, "llama");
  metadata.set("llama.attention.head_count_kv", std::vector<int64_t>{3, 1});
  metadata.set("llama.feed_forward_length", std::vector<uint64_t>{1536, 1000});
  const FakeTensors tensors(golden, NameStyle::gguf);
  EXPECT_EQ(config_from_gguf(metadata, tensors), golden);
  metadata.set("llama.attention.head_count_kv", std::vector<int64_t>{3});
  EXPECT_THAT(error_of([&] { config_from_gguf(metadata, tensors); }).what(),
              HasSubstr("head_count_kv has 1 numbers"));
  metadata.set("llama.attention.head_count_kv", std::vector<int64_t>{3, -1});
  EXPECT_THAT(error_of([&] { config_from_gguf(metadata, tensors); }).what(),
              HasSubstr("head_count_kv is -1"));
}

TEST(ImportGguf, TheEmbeddedConfigWins) {
  ModelConfig golden = testing_fakes::smollm2_135m();
  golden.name = "mine";
  GgufMetadata metadata = metadata_for(golden, "an-architecture-of-the-future");
  metadata.set(kConfigKey, golden.to_json());
  EXPECT_EQ(config_from_gguf(metadata, FakeTensors(golden, NameStyle::gguf)), golden);
  metadata.set(kConfigKey, std::string(R"({"mneme": 1, "d_model": -1})"));
  const Error error = error_of([&] { config_from_gguf(metadata, FakeTensors()); });
  EXPECT_EQ(error.code(), ErrorCode::corrupt);
  EXPECT_THAT(error.what(), HasSubstr("mneme.config: d_model is -1"));
}

TEST(ImportGguf, UnknownArchitecturesAreListedAgainstTheKnown) {
  GgufMetadata metadata;
  metadata.set("general.architecture", std::string("mamba"));
  const Error error = error_of([&] { config_from_gguf(metadata, FakeTensors()); });
  EXPECT_EQ(error.code(), ErrorCode::unsupported);
  EXPECT_THAT(error.what(),
              HasSubstr("\"mamba\" is not supported; this version runs llama, qwen2, qwen3, gemma2"));
  EXPECT_THROW(config_from_gguf(GgufMetadata(), FakeTensors()), Error);
}

TEST(ImportGguf, EveryRequiredKeyIsNamedWhenMissingOrAbsurd) {
  const ModelConfig golden = interleaved(testing_fakes::smollm2_135m());
  const FakeTensors tensors(golden, NameStyle::gguf);
  const GgufMetadata good = metadata_for(golden, "llama");
  for (const char* key :
       {"llama.block_count", "llama.embedding_length", "llama.context_length", "llama.feed_forward_length",
        "llama.attention.head_count", "llama.attention.layer_norm_rms_epsilon"}) {
    GgufMetadata without;
    for (const auto& [name, value] : good.values())
      if (name != key) without.set(name, value);
    EXPECT_THAT(error_of([&] { config_from_gguf(without, tensors); }).what(), HasSubstr(key));
    for (const GgufValue& bad : {GgufValue(uint64_t{0}), GgufValue(UINT64_MAX), GgufValue(int64_t{-3}),
                                 GgufValue(std::nan("")), GgufValue(1e30), GgufValue(std::string("x"))}) {
      GgufMetadata changed = good;
      changed.set(key, bad);
      const Error error = error_of([&] { config_from_gguf(changed, tensors); });
      EXPECT_NE(error.code(), ErrorCode::internal) << key << " " << bad.index();
      EXPECT_THAT(error.what(), ::testing::AnyOf(HasSubstr(key), HasSubstr("norm.eps")));
    }
  }
}

TEST(ImportGguf, WhatCannotRunIsRefused) {
  const ModelConfig golden = interleaved(testing_fakes::smollm2_135m());
  FakeTensors tensors(golden, NameStyle::gguf);
  const auto refused = [&](const char* key, GgufValue value) {
    GgufMetadata metadata = metadata_for(golden, "llama");
    metadata.set(key, std::move(value));
    return error_of([&] { config_from_gguf(metadata, tensors); });
  };
  EXPECT_EQ(refused("llama.expert_count", uint64_t{8}).code(), ErrorCode::mismatch);
  EXPECT_EQ(refused("llama.rope.scaling.type", std::string("longrope")).code(), ErrorCode::unsupported);
  EXPECT_EQ(refused("llama.attention.value_length", uint64_t{32}).code(), ErrorCode::unsupported);
  EXPECT_EQ(refused("llama.rope.dimension_count", uint64_t{63}).code(), ErrorCode::corrupt);
  EXPECT_EQ(refused("tokenizer.ggml.tokens", std::vector<std::string>(50000)).code(), ErrorCode::mismatch);
  EXPECT_EQ(refused("llama.attention.head_count_kv", uint64_t{2}).code(), ErrorCode::corrupt);
  tensors.erase("token_embd.weight");
  EXPECT_EQ(error_of([&] { config_from_gguf(metadata_for(golden, "llama"), tensors); }).code(),
            ErrorCode::mismatch);
}

}  // namespace
}  // namespace mneme::import_gguf_test
