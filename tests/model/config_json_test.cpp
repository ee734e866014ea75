// The schema of docs/config.md: what is written, what is read back, and what is refused with which words.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "core/json.h"
#include "mneme/error.h"
#include "model/fake_tensors.h"
#include "model/published_configs.h"

namespace mneme::config_json_test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing_fakes::error_of;

constexpr const char* kSmall = R"({"mneme": 1, "d_model": 64, "vocab": 100, "context": 128, "layers": [
  {"repeat": 2, "mixer": {"heads": 4, "kv_heads": 2, "head_dim": 16}, "ffn": {"hidden": 96}}]})";

/// kSmall with one change.
std::string changed(const std::string& pointer, const Json& value) {
  Json json = Json::parse(kSmall);
  json[Json::json_pointer(pointer)] = value;
  return json.dump();
}

TEST(ConfigJson, WritesSmolLm2AsOneFoldedLayer) {
  EXPECT_EQ(
      testing_fakes::smollm2_135m().to_json(),
      R"({"mneme":1,"d_model":576,"vocab":49152,"context":8192,"tied":true,"norm":{"type":"rms","eps":1e-05},)"
      R"("rope":{"base":100000.0},"defaults":{"mixer":{"type":"full","heads":9,"kv_heads":3,"head_dim":64},)"
      R"("ffn":{"type":"dense","hidden":1536,"act":"silu"}},"layers":[{"repeat":30}]})");
}

TEST(ConfigJson, FoldsGemmasFiveToOnePattern) {
  const Json json = Json::parse(testing_fakes::gemma3_270m().to_json());
  ASSERT_EQ(json["layers"].size(), 6u);  // 5 windows, 1 full, three times
  EXPECT_EQ(json["layers"][0]["repeat"], 5);
  EXPECT_EQ(json["layers"][0]["mixer"]["window"], 512);
  EXPECT_EQ(json["layers"][1], Json::parse(R"({"mixer":{"type":"full"}})"));
  EXPECT_EQ(json["defaults"]["mixer"]["qk_norm"], true);
  EXPECT_EQ(json["defaults"]["mixer"].count("type"), 0u);
}

TEST(ConfigJson, RoundTripOfEveryPublishedConfigIsExact) {
  for (const ModelConfig& config : testing_fakes::all_published()) {
    const std::string text = config.to_json();
    const ModelConfig again = ModelConfig::from_json(text);
    EXPECT_EQ(again, config) << text;
    EXPECT_EQ(again.to_json(), text);
  }
}

/// A valid config with every field drawn at random.
ModelConfig random_config(std::mt19937& rng) {
  const auto pick = [&](uint32_t least, uint32_t most) {
    return std::uniform_int_distribution<uint32_t>(least, most)(rng);
  };
  const auto real = [&](double most) { return std::uniform_real_distribution<double>(1e-9, most)(rng); };
  const auto rope = [&](uint32_t head_dim) {
    RopeConfig out;
    out.base = 1 + real(1e6);
    out.dims = pick(0, 1) ? 2 * pick(1, head_dim / 2) : 0;
    out.style = pick(0, 1) ? RopeConfig::Style::half : RopeConfig::Style::interleaved;
    out.scaling.type = static_cast<RopeScaling::Type>(pick(0, 4));
    if (out.scaling.type == RopeScaling::Type::factors) {
      for (uint32_t i = 0; i < (out.dims ? out.dims : head_dim) / 2; ++i)
        out.scaling.factors.push_back(real(9));
    } else if (out.scaling.type != RopeScaling::Type::none) {
      out.scaling.factor = 1 + real(40);
      out.scaling.original_context = pick(1, 100000);
      out.scaling.high_freq_factor = 1 + real(9);
      out.scaling.beta_fast = 1 + real(50);
      out.scaling.attention_factor = pick(0, 1) ? real(2) : 0;
    }
    return out;
  };
  ModelConfig model;
  model.d_model = pick(1, 5000);
  model.vocab = pick(1, 300000);
  model.context = pick(5000, 1u << 20);
  model.sink_tokens = pick(0, 3);
  model.tied = pick(0, 1);
  model.embedding_scale = real(50);
  model.logit_scale = real(2);
  model.logit_softcap = pick(0, 1) ? real(60) : 0;
  model.norm = {real(0.01), pick(0, 1) * 1.0};
  model.name = "a \"name\"\n";
  const uint32_t head_dim = 2 * pick(1, 64);
  model.rope = rope(head_dim);
  const auto random_mixer = [&] {
    MixerConfig mixer;
    mixer.type = static_cast<MixerType>(pick(0, 4));
    mixer.kv_heads = pick(1, 4);
    mixer.heads = mixer.kv_heads * pick(1, 4);
    mixer.head_dim = head_dim;
    mixer.qkv_bias = pick(0, 1);
    mixer.o_bias = pick(0, 1);
    mixer.scale = pick(0, 1) ? real(1) : 0;
    if (mixer.type == MixerType::window) {
      mixer.window = pick(1, 5000);
      mixer.edge = static_cast<WindowEdge>(pick(0, 2));
      mixer.sinks = pick(0, 4);
    }
    if (mixer.type == MixerType::sparse) {
      mixer.block = 64 * pick(1, 9);
      mixer.top_k = pick(1, 99);
      mixer.shared = pick(0, 1);
      mixer.sinks = pick(0, 4);
    }
    if (mixer.softmax()) {
      mixer.sink_logits = pick(0, 1);
      mixer.qk_norm = pick(0, 1);
      if (mixer.qk_norm) mixer.qk_norm_over = static_cast<QkNormOver>(pick(0, 1));
      mixer.softcap = pick(0, 1) ? real(60) : 0;
      if (pick(0, 1)) mixer.rope = rope(head_dim);
      return mixer;
    }
    mixer.out_norm = pick(0, 1);
    mixer.feature = static_cast<FeatureMap>(pick(0, 3));
    if (mixer.type != MixerType::gla) return mixer;
    mixer.gate = static_cast<GateType>(pick(0, 2));
    if (mixer.gate == GateType::tied)
      mixer.feature = FeatureMap::sigmoid;
    else
      mixer.gate_normalizer = 1 + real(30);
    if (mixer.gate == GateType::low_rank) mixer.gate_rank = pick(1, 40);
    return mixer;
  };
  const auto random_activation = [&] {
    ActivationConfig activation(static_cast<Activation>(pick(0, 3)));
    if (activation.type == Activation::spike && pick(0, 1)) {
      activation.k = 0.1 + real(60);
      activation.dead_zone = real(3);
    }
    return activation;
  };
  const auto random_ffn = [&] {
    FfnConfig ffn;
    ffn.hidden = pick(1, 9999);
    ffn.act = static_cast<Act>(pick(0, 2));
    ffn.type = static_cast<FfnType>(pick(0, 1));
    if (!ffn.moe()) {
      ffn.bias = pick(0, 1) == 1;
      return ffn;
    }
    ffn.experts = 4 * pick(1, 30);
    if (pick(0, 1)) {
      ffn.groups = ffn.experts / 4;
      ffn.top_groups = pick(1, ffn.groups);
      ffn.group_score = static_cast<GroupScore>(pick(0, 1));
      ffn.top_k = ffn.groups == 1 ? pick(1, ffn.experts) : pick(1, 4 * ffn.top_groups);
    } else {
      ffn.null_experts = pick(0, 9);
      ffn.top_k = pick(1, ffn.choices());
    }
    ffn.shared = pick(0, 2);
    if (ffn.shared > 0) {
      ffn.shared_hidden = pick(0, 1) * pick(1, 9999);
      ffn.shared_gate = pick(0, 1) == 1;
    }
    ffn.router = static_cast<RouterScore>(pick(0, 1));
    ffn.renormalise = pick(0, 1) == 1;
    ffn.scale = real(9);
    ffn.selection_bias = pick(0, 1) == 1;
    ffn.top_p = pick(0, 1) ? real(0.99) : 0;
    return ffn;
  };
  const uint32_t n = pick(1, 12);
  for (uint32_t i = 0; i < n; ++i) {
    if (i > 0 && pick(0, 1)) {
      model.layers.push_back(model.layers.back());
      continue;
    }
    LayerConfig layer;
    if (pick(0, 4) == 0) {
      layer.mixer.type = MixerType::parallel;
      layer.mixer.of = {random_mixer(), random_mixer()};
      layer.mixer.learned = pick(0, 1);
      if (!layer.mixer.learned) layer.mixer.weights = {real(2), -real(2)};
    } else {
      layer.mixer = random_mixer();
    }
    layer.ffn = random_ffn();
    layer.post_norm = layer.mixer.type != MixerType::parallel && pick(0, 1);
    layer.activation = random_activation();
    const bool apart = pick(0, 1);
    for (ActivationConfig& one : layer.activation.of)
      if (apart && pick(0, 3) == 0) one = random_activation();
    model.layers.push_back(layer);
  }
  return model;
}

TEST(ConfigJson, RoundTripOfRandomConfigsIsExact) {
  std::mt19937 rng(1);
  for (int i = 0; i < 300; ++i) {
    const ModelConfig config = random_config(rng);
    ASSERT_NO_THROW(config.validate()) << config.to_json();
    const ModelConfig again = ModelConfig::from_json(config.to_json());
    ASSERT_EQ(again, config) << config.to_json();
    ASSERT_EQ(again.to_json(), config.to_json());
  }
}

TEST(ConfigJson, LayersTakeWhatTheyOmitFromDefaults) {
  const ModelConfig config = ModelConfig::from_json(R"({"mneme": 1, "d_model": 64, "vocab": 9, "context": 64,
    "defaults": {"mixer": {"type": "window", "window": 32, "sinks": 4, "heads": 4, "kv_heads": 2, "head_dim": 16,
                           "rope": {"base": 500.0}}, "ffn": {"hidden": 7, "act": "gelu"}, "post_norm": true},
    "layers": [{}, {"mixer": {"type": "full", "rope": null}, "ffn": {"hidden": 8}, "post_norm": false}]})");
  ASSERT_EQ(config.layers.size(), 2u);
  EXPECT_EQ(config.layers[0].mixer.window, 32u);
  EXPECT_EQ(config.layers[0].mixer.rope->base, 500.0);
  EXPECT_TRUE(config.layers[0].post_norm);
  EXPECT_EQ(config.layers[1].mixer.window, 0u);  // not a field of a full layer
  EXPECT_EQ(config.layers[1].mixer.heads, 4u);
  EXPECT_FALSE(config.layers[1].mixer.rope.has_value());
  EXPECT_EQ(config.layers[1].ffn.hidden, 8u);
  EXPECT_EQ(config.layers[1].ffn.act, Act::gelu);
  EXPECT_FALSE(config.layers[1].post_norm);
}

Json small_table() {
  return {{"compressed_vocab", 90}, {"pad_id", 2},           {"heads", 2},          {"head_dim", 8},
          {"max_ngram", 3},         {"base_rows", {50, 60}}, {"layer_ids", {1, 14}}};
}

Json memory_layer(const std::string& table, uint32_t layer_id) {
  return {{"mixer", {{"heads", 4}, {"kv_heads", 2}, {"head_dim", 16}}},
          {"ffn", {{"hidden", 96}}},
          {"memory", {{"table", table}, {"layer_id", layer_id}}}};
}

TEST(ConfigJson, TablesAndMemoriesSurviveARoundTripUnfolded) {
  Json json = Json::parse(kSmall);
  json["tables"] = {{"facts", small_table()}};
  json["layers"].push_back(memory_layer("facts", 1));
  json["layers"].push_back(memory_layer("facts", 1));  // the same rows twice: allowed, and not folded
  const ModelConfig config = ModelConfig::from_json(json.dump());
  ASSERT_EQ(config.layers.size(), 4u);
  EXPECT_EQ(config.tables.at("facts").layer_ids, (std::vector<uint32_t>{1, 14}));
  EXPECT_FALSE(config.layers[1].memory);
  EXPECT_EQ(config.layers[2].memory, config.layers[3].memory);
  const std::string text = config.to_json();
  EXPECT_EQ(ModelConfig::from_json(text), config) << text;
  EXPECT_EQ(ModelConfig::from_json(text).to_json(), text);
  EXPECT_EQ(Json::parse(text)["layers"].size(), 3u);
  json["layers"][1] = memory_layer("facts", 3);
  EXPECT_THAT(error_of([&] { ModelConfig::from_json(json.dump()); }).what(),
              HasSubstr("layers[2].memory.layer_id is 3, but tables.facts.layer_ids has only 1, 14"));
}

struct Refusal {
  std::string pointer;
  Json value;
  ErrorCode code;
  std::string says;  // part of the message
};

void PrintTo(const Refusal& refusal, std::ostream* out) {
  *out << refusal.pointer << " = " << refusal.value.dump();
}

class RefusedConfig : public ::testing::TestWithParam<Refusal> {};

TEST_P(RefusedConfig, NamesTheField) {
  const Refusal& r = GetParam();
  const Error error = error_of([&] { ModelConfig::from_json(changed(r.pointer, r.value)); });
  EXPECT_EQ(error.code(), r.code) << error.what();
  EXPECT_THAT(error.what(), HasSubstr(r.says));
}

constexpr auto kBad = ErrorCode::invalid_argument;
constexpr auto kLater = ErrorCode::unsupported;

INSTANTIATE_TEST_SUITE_P(
    ConfigJson, RefusedConfig,
    ::testing::Values(
        Refusal{"/d_modle", 64, kBad, "d_modle is not a known field; did you mean \"d_model\"?"},
        Refusal{"/layers/0/mixer/kv_head", 2, kBad,
                "layers[0].mixer.kv_head is not a known field; did you mean "},
        Refusal{"/layers/0/ffn/zzzzzzzzzz", 2, kBad, "layers[0].ffn.zzzzzzzzzz is not a known field"},
        Refusal{"/d_model", -64, kBad, "d_model is -64, but must be a whole number from 1"},
        Refusal{"/d_model", 0, kBad, "d_model is 0"}, Refusal{"/d_model", 64.5, kBad, "d_model is 64.5"},
        Refusal{"/d_model", "64", kBad, "d_model is \"64\""},
        Refusal{"/d_model", nullptr, kBad, "d_model is null"},
        Refusal{"/vocab", uint64_t{1} << 63, kBad, "vocab is 9223372036854775808"},
        Refusal{"/vocab", 1e300, kBad, "vocab is 1e+300"}, Refusal{"/context", 0, kBad, "context is 0"},
        Refusal{"/layers", Json::array(), kBad, "layers must be an array of at least one"},
        Refusal{"/layers", 30, kBad, "layers must be an array"},
        Refusal{"/layers/0/repeat", 5000, kBad, "layers[0].repeat is 5000"},
        Refusal{"/layers/0/repeat", 0, kBad, "layers[0].repeat is 0"},
        Refusal{"/layers/0/mixer/kv_heads", 3, kBad, "layers[0].mixer.kv_heads is 3, but must divide heads"},
        Refusal{"/layers/0/mixer/window", 3, kBad, "layers[0].mixer.window is 3, but the type is \"full\""},
        Refusal{"/layers/0/mixer/sinks", 3, kBad, "layers[0].mixer.sinks is 3, but the type is \"full\""},
        Refusal{"/layers/0/mixer/type", "window", kBad, "layers[0].mixer.window is 0"},
        Refusal{"/layers/0/mixer/type", "fulll", kBad,
                "layers[0].mixer.type is \"fulll\", but must be one of"},
        Refusal{"/layers/0/mixer/type", 3, kBad, "layers[0].mixer.type is 3"},
        Refusal{"/layers/0/mixer/type", "mamba", kBad,
                "must be one of: full, window, sparse, gla, delta, parallel"},
        Refusal{"/layers/0/ffn/type", "moe", kBad, "layers[0].ffn.experts is 0"},
        Refusal{"/layers/0/ffn/type", "mixture", kBad, "must be one of: dense, moe"},
        Refusal{"/layers/0/ffn/experts", 8, kBad, "layers[0].ffn has fields of a mixture of experts"},
        Refusal{"/layers/0/ffn/expert", 8, kBad, "did you mean \"experts\"?"},
        Refusal{"/layers/0/memory", Json::object(), kBad, "layers[0].memory.table is missing"},
        Refusal{"/layers/0/memory", {{"table", "facts"}, {"layer_id", 1}}, kBad, "layers[0].repeat is 2"},
        Refusal{"/layers/1", memory_layer("facts", 1), kBad, "tables has no such entry"},
        Refusal{"/defaults", {{"memory", {{"table", "facts"}, {"layer_id", 1}}}}, kBad, "defaults.memory"},
        Refusal{"/tables", {{"facts", {{"heads", 4}}}}, kBad, "tables.facts.compressed_vocab is missing"},
        Refusal{"/tables", {{"", small_table()}}, kBad, "tables has a name of 0 bytes"},
        Refusal{"/tables", 3, kBad, "tables is 3"},
        Refusal{"/layers/0/activation", "spikes", kBad,
                "layers[0].activation is \"spikes\", but must be one of"},
        Refusal{"/layers/0/activation", 3, kBad, "layers[0].activation is 3"},
        Refusal{"/layers/0/activation", {{"type", "spik"}}, kBad, "layers[0].activation.type is \"spik\""},
        Refusal{"/layers/0/activation", {{"type", "spike"}, {"kk", 3}}, kBad, "did you mean \"k\"?"},
        Refusal{"/layers/0/activation", {{"type", "spike"}, {"k", 0}}, kBad, "layers[0].activation.k is 0"},
        Refusal{"/layers/0/activation", {{"type", "spike"}, {"k", 65}}, kBad, "a number from 0.001 to 64"},
        Refusal{"/layers/0/activation",
                {{"type", "spike"}, {"dead_zone", -1}},
                kBad,
                "activation.dead_zone is -1"},
        Refusal{"/layers/0/activation", {{"type", "int8"}, {"k", 2}}, kBad, "only \"spike\" has them"},
        Refusal{"/layers/0/activation", {{"k", 2.5}}, kBad, "layers[0].activation.k is 2.5"},
        Refusal{"/layers/0/activation", {{"dwon", "int8"}}, kBad, "did you mean \"down\"?"},
        Refusal{"/layers/0/activation",
                {{"down", {{"k", 2}}}},
                kBad,
                "layers[0].activation.down.type is missing"},
        Refusal{"/layers/0/activation",
                {{"q", {{"type", "spike"}, {"k", -1}}}},
                kBad,
                "layers[0].activation.q.k is -1"},
        Refusal{"/layers/0/ffn/act", "relu", kBad, "layers[0].ffn.act is \"relu\""},
        Refusal{"/layers/0/ffn/hidden", 0, kBad, "layers[0].ffn.hidden is 0"},
        Refusal{"/layers/0/mixer/head_dim", 15, kBad, "rope.dims is 15, but must be even"},
        Refusal{"/rope", {{"dims", 18}}, kBad, "rope.dims is 18"},
        Refusal{"/rope", {{"base", 0.5}}, kBad, "rope.base is 0.5"},
        Refusal{"/rope", {{"scaling", {{"type", "ntk"}}}}, kBad, "rope.scaling.type is \"ntk\""},
        Refusal{"/rope", {{"scaling", {{"factor", 2.0}}}}, kBad, "rope.scaling has parameters, but its type"},
        Refusal{"/rope",
                {{"scaling", {{"type", "yarn"}, {"factor", 2.0}}}},
                kBad,
                "rope.scaling.original_context is 0"},
        Refusal{"/rope",
                {{"scaling", {{"type", "factors"}, {"factors", {1.0, 2.0}}}}},
                kBad,
                "rope.scaling.factors has 2 numbers, but there are 8 pairs"},
        Refusal{"/norm", {{"eps", 0.0}}, kBad, "norm.eps is 0"},
        Refusal{"/norm", {{"type", "layer"}}, kBad, "norm.type must be \"rms\""},
        Refusal{"/logit_softcap", -1, kBad, "logit_softcap is -1"},
        Refusal{"/embedding_scale", 0, kBad, "embedding_scale is 0"},
        Refusal{"/mneme", 2, kLater, "mneme is 2"},
        Refusal{"/defaults", {{"mixer", {{"head", 3}}}}, kBad, "defaults.mixer.head is not a known field"}));

/// The mixer of kSmall's layers, with these fields instead of its type.
Json mixer(const Json& fields) {
  Json out = {{"heads", 4}, {"kv_heads", 2}, {"head_dim", 16}};
  if (!fields.is_null()) out.update(fields);
  return out;
}

TEST(ConfigJson, MixersOfEveryTypeAreReadWithTheirDefaults) {
  const auto read = [](const Json& fields) {
    const ModelConfig config = ModelConfig::from_json(changed("/layers/0/mixer", mixer(fields)));
    EXPECT_EQ(ModelConfig::from_json(config.to_json()), config) << config.to_json();
    return config.layers[1].mixer;
  };
  const MixerConfig gla = read({{"type", "gla"}});
  EXPECT_TRUE(gla.recurrent() && gla.out_norm && gla.gate == GateType::low_rank);
  EXPECT_EQ(gla.feature, FeatureMap::relu);
  EXPECT_EQ(gla.gate_rank, 16u);
  EXPECT_EQ(gla.gate_normalizer, 16);
  EXPECT_EQ(read({{"type", "delta"}}).feature, FeatureMap::silu);
  EXPECT_EQ(read({{"type", "delta"}, {"feature", "relu"}}).feature, FeatureMap::relu);
  EXPECT_EQ(read({{"type", "gla"}, {"gate", "tied"}, {"feature", "sigmoid"}}).gate, GateType::tied);
  EXPECT_EQ(read({{"type", "gla"}, {"gate", "matrix"}, {"out_norm", false}}).gate, GateType::matrix);
  EXPECT_EQ(read({{"type", "window"}, {"window", 128}, {"edge", "plus_one_prefill"}}).edge,
            WindowEdge::plus_one_prefill);
  EXPECT_EQ(read({{"type", "sparse"}}).block, 512u);
  EXPECT_EQ(read({{"type", "sparse"}, {"block", 64}, {"top_k", 3}}).top_k, 3u);
}

TEST(ConfigJson, BranchesTakeSizesFromDefaults) {
  Json json = Json::parse(kSmall);
  json["sink_tokens"] = 3;
  json["defaults"] = {{"mixer", {{"heads", 4}, {"kv_heads", 2}, {"head_dim", 16}, {"qk_norm", true}}},
                      {"ffn", {{"hidden", 96}}}};
  json["layers"] = Json::parse(R"([
    {"repeat": 2, "mixer": {"type": "parallel", "weights": [1, -0.25],
                            "of": [{"type": "gla", "kv_heads": 1}, {"type": "window", "window": 9}]}},
    {"mixer": {"type": "parallel", "learned": true, "of": [{"type": "delta"}, {"type": "full"}]}},
    {"mixer": {"type": "gla"}}, {}])");
  const ModelConfig config = ModelConfig::from_json(json.dump());
  EXPECT_EQ(config.sink_tokens, 3u);
  ASSERT_EQ(config.layers.size(), 5u);
  const MixerConfig& first = config.layers[0].mixer;
  EXPECT_EQ(first, config.layers[1].mixer);
  EXPECT_EQ(first.heads, 0u);
  EXPECT_EQ(first.weights, (std::array{1.0, -0.25}));
  ASSERT_EQ(first.branches().size(), 2u);
  EXPECT_EQ(first.of[0].heads, 4u);
  EXPECT_EQ(first.of[0].kv_heads, 1u);
  EXPECT_FALSE(first.of[0].qk_norm);  // not a field of a recurrence
  EXPECT_TRUE(first.of[1].qk_norm);
  EXPECT_TRUE(config.layers[2].mixer.learned);
  EXPECT_EQ(config.layers[2].mixer.of[0].feature, FeatureMap::silu);
  EXPECT_EQ(config.layers[4].mixer.branches().size(), 1u);
  EXPECT_EQ(&config.layers[4].mixer.branches()[0], &config.layers[4].mixer);
  const std::string text = config.to_json();
  EXPECT_EQ(ModelConfig::from_json(text), config) << text;
  EXPECT_EQ(ModelConfig::from_json(text).to_json(), text);
}

TEST(ConfigJson, FieldsOfOtherMixersAreDroppedIfInheritedAndRefusedIfGiven) {
  Json json = Json::parse(kSmall);
  json["defaults"] =
      Json::parse(R"({"mixer": {"type": "window", "window": 32, "edge": "plus_one", "rope": {"base": 500},
    "softcap": 3, "gate_rank": 8, "top_k": 2, "block": 64, "shared": true, "sinks": 7, "feature": "sigmoid", "out_norm": false}})");
  const Json sizes = json["layers"][0]["mixer"];
  for (const char* type : {"full", "window", "sparse", "gla", "delta"}) {
    json["layers"][0]["mixer"] = sizes;
    json["layers"][0]["mixer"]["type"] = type;
    const MixerConfig read = ModelConfig::from_json(json.dump()).layers[0].mixer;
    EXPECT_EQ(read.window, read.type == MixerType::window ? 32u : 0u);
    EXPECT_EQ(read.block, read.type == MixerType::sparse ? 64u : 512u);
    EXPECT_EQ(read.shared, read.type == MixerType::sparse);
    EXPECT_EQ(read.sinks, read.type == MixerType::sparse || read.type == MixerType::window ? 7u : 0u);
    EXPECT_EQ(read.gate_rank, read.type == MixerType::gla ? 8u : 16u);
    EXPECT_EQ(read.out_norm, !read.recurrent());
    EXPECT_EQ(read.feature, read.recurrent() ? FeatureMap::sigmoid : FeatureMap::relu);
    EXPECT_EQ(read.rope.has_value(), read.softmax());
  }
}

struct MixerRefusal {
  Json fields;
  std::string says;
};

TEST(ConfigJson, ImpossibleMixersAreRefused) {
  const Json full = mixer({}), gla = mixer({{"type", "gla"}}), delta = mixer({{"type", "delta"}});
  const Json nested = {{"type", "parallel"}, {"of", {full, gla}}};
  const auto parallel = [&](const Json& fields) {
    Json out = nested;
    out.update(fields);
    return out;
  };
  for (const MixerRefusal& refusal : std::initializer_list<MixerRefusal>{
           {mixer({{"type", "window"}, {"window", 129}}),
            "layers[0].mixer.window is 129, but the context is 128, and a window cannot be larger"},
           {mixer({{"edge", "plus_one"}}),
            "edge is plus_one, but the type is \"full\"; it belongs to type \"win"},
           {mixer({{"type", "window"}, {"window", 9}, {"edge", "plus"}}),
            "edge is \"plus\", but must be one of"},
           {mixer({{"type", "sparse"}, {"block", 96}}), "mixer.block is 96, but must be a multiple of 64"},
           {mixer({{"type", "sparse"}, {"top_k", 0}}), "mixer.top_k is 0"},
           {mixer({{"qk_norm_over", "all"}}), "mixer.qk_norm_over is \"all\", but qk_norm is false"},
           {mixer({{"type", "gla"}, {"qk_norm_over", "all"}}),
            "qk_norm_over is all, but the type is \"gla\""},
           {mixer({{"shared", true}}), "mixer.shared is true, but the type is \"full\""},
           {mixer({{"type", "gla"}, {"sinks", 2}}),
            "mixer.sinks is 2, but the type is \"gla\"; it belongs to types window and sparse"},
           {mixer({{"block", 64}}), "mixer.block is 64, but the type is \"full\""},
           {mixer({{"type", "gla"}, {"kv_heads", 3}}), "kv_heads is 3, but must divide heads"},
           {mixer({{"type", "gla"}, {"gate_rank", 0}}), "mixer.gate_rank is 0"},
           {mixer({{"type", "gla"}, {"gate", "matrix"}, {"gate_rank", 8}}),
            "mixer.gate_rank is 8, but the gate is \"matrix\""},
           {mixer({{"type", "gla"}, {"gate_normalizer", 0}}), "mixer.gate_normalizer is 0"},
           {mixer({{"type", "gla"}, {"gate", "tied"}}),
            "mixer.feature is \"relu\", but the gate is \"tied\""},
           {mixer({{"type", "gla"}, {"gate", "tied"}, {"feature", "sigmoid"}, {"gate_normalizer", 2}}),
            "mixer.gate_normalizer is 2, but the gate is \"tied\", which has none"},
           {mixer({{"type", "gla"}, {"rope", {{"base", 500.0}}}}),
            "mixer.rope is there, but the type is \"gla\""},
           {mixer({{"type", "gla"}, {"qk_norm", true}}), "mixer.qk_norm is true, but the type is \"gla\""},
           {mixer({{"type", "delta"}, {"softcap", 2}}), "mixer.softcap is 2, but the type is \"delta\""},
           {mixer({{"type", "delta"}, {"gate", "matrix"}}),
            "mixer.gate is matrix, but the type is \"delta\""},
           {mixer({{"type", "delta"}, {"window", 4}}), "mixer.window is 4, but the type is \"delta\""},
           {mixer({{"out_norm", false}}), "mixer.out_norm is false, but the type is \"full\""},
           {mixer({{"feature", "silu"}}), "mixer.feature is silu, but the type is \"full\""},
           {mixer({{"learned", true}}), "mixer.learned is true, but the type is \"full\""},
           {mixer({{"weights", {1, 2}}}), "mixer.weights is there, but the type is \"full\""},
           {mixer({{"of", {full, gla}}}), "mixer.of is there, but the type is \"full\""},
           {{{"type", "parallel"}}, "layers[0].mixer.of has 0 mixers, but a parallel mixer has two"},
           {parallel({{"of", {full}}}), "layers[0].mixer.of must be an array of two mixers"},
           {parallel({{"of", 3}}), "layers[0].mixer.of must be an array of two mixers"},
           {parallel({{"of", {full, nested}}}), "layers[0].mixer.of[1].type is \"parallel\", but branches"},
           {parallel({{"of", {full, mixer({{"type", "window"}})}}}), "layers[0].mixer.of[1].window is 0"},
           {parallel({{"of", {full, mixer({{"typ", "window"}})}}}), "mixer.of[1].typ is not a known field"},
           {parallel({{"heads", 4}}),
            "mixer.heads is 4, but the type is \"parallel\"; it belongs to the branches"},
           {parallel({{"weights", {1}}}), "mixer.weights has 1 numbers, but there are two branches"},
           {parallel({{"weights", {1, 1e9}}}), "mixer.weights[1] is 1000000000"},
           {parallel({{"weights", {1, 0}}, {"learned", true}}),
            "mixer.weights are there, but learned is true"}}) {
    const Error error = error_of([&] { ModelConfig::from_json(changed("/layers/0/mixer", refusal.fields)); });
    EXPECT_EQ(error.code(), kBad) << refusal.fields;
    EXPECT_THAT(error.what(), HasSubstr(refusal.says));
  }
  Json json = Json::parse(changed("/layers/0/mixer", nested));
  json["layers"][0]["post_norm"] = true;
  EXPECT_THAT(error_of([&] { ModelConfig::from_json(json.dump()); }).what(),
              HasSubstr("layers[0].post_norm is true, but the branches of a parallel mixer have norms"));
  EXPECT_THAT(error_of([&] { ModelConfig::from_json(changed("/sink_tokens", 5000)); }).what(),
              HasSubstr("sink_tokens is 5000"));
}

TEST(ConfigJson, RefusesTextThatIsNotTheSchemaAtAll) {
  for (const char* text : {"", "{", "[]", "null", "1", "{\"mneme\": 1}", "{\"mneme\": 1, \"mneme\": 1}",
                           "{\"mneme\": 1, \"d_model\": 1e999}", "\xff\xfe"})
    EXPECT_THROW(ModelConfig::from_json(text), Error) << text;
  EXPECT_THAT(error_of([] { ModelConfig::from_json(R"({"mneme": 1, "vocab": 3, "vocab": 4})"); }).what(),
              HasSubstr("\"vocab\" twice"));
  EXPECT_THAT(error_of([] { ModelConfig::from_json(std::string(100000, '[')); }).what(), HasSubstr("nested"));
}

TEST(ConfigJson, RepeatBombsAreBounded) {
  Json json = Json::parse(kSmall);
  const Json entry = json["layers"][0];
  json["layers"] = Json::array();
  for (int i = 0; i < 3; ++i) {
    json["layers"].push_back(entry);
    json["layers"].back()["repeat"] = 2000;
  }
  EXPECT_THAT(error_of([&] { ModelConfig::from_json(json.dump()); }).what(),
              HasSubstr("layers[2].repeat makes 6000 layers, but a model may have at most 4096"));
}

TEST(ConfigValidate, RefusesNumbersThatAreNot) {
  const double nan = std::nan(""), inf = HUGE_VAL;
  const auto refused = [](auto&& change) {
    ModelConfig config = testing_fakes::llama32_1b();
    change(config);
    return error_of([&] { config.validate(); });
  };
  EXPECT_THAT(refused([&](auto& c) { c.norm.eps = nan; }).what(), HasSubstr("norm.eps is nan"));
  EXPECT_THAT(refused([&](auto& c) { c.rope.base = inf; }).what(), HasSubstr("rope.base is inf"));
  EXPECT_THAT(refused([&](auto& c) { c.embedding_scale = nan; }).what(), HasSubstr("embedding_scale"));
  EXPECT_THAT(refused([&](auto& c) { c.logit_softcap = inf; }).what(), HasSubstr("logit_softcap"));
  EXPECT_THAT(refused([&](auto& c) { c.layers[3].mixer.scale = nan; }).what(),
              HasSubstr("layers[3].mixer.scale"));
  EXPECT_THAT(refused([&](auto& c) { c.rope.scaling.factor = nan; }).what(),
              HasSubstr("rope.scaling.factor"));
  EXPECT_THAT(refused([&](auto& c) { c.layers.clear(); }).what(), HasSubstr("layers is empty"));
  EXPECT_THAT(
      refused([&](auto& c) { c.layers[0].activation = ActivationConfig(Activation::spike, nan); }).what(),
      HasSubstr("layers[0].activation.q.k is nan"));
  EXPECT_THAT(refused([&](auto& c) {
                c.layers[0].activation[Projection::up] = {Activation::spike, 3, inf};
              }).what(),
              HasSubstr("layers[0].activation.up.dead_zone"));
}

TEST(ConfigJson, MutatedTextNeverCrashesAndOnlyValidConfigsCome) {
  std::mt19937 rng(7);
  const auto published = testing_fakes::all_published();
  const std::string alphabet = "{}[]\",:0123456789.-+eEtrufalsn \\\x80";
  int accepted = 0, refused = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string text = published[i % published.size()].to_json();
    for (int n = 1 + static_cast<int>(rng() % 3); n > 0; --n) {
      const size_t at = rng() % text.size();
      if (rng() % 3 == 0)
        text.erase(at, 1 + rng() % 9);
      else if (rng() % 2)
        text[at] = alphabet[rng() % alphabet.size()];
      else
        text.insert(at, text.substr(rng() % text.size(), rng() % 12));
    }
    try {
      ModelConfig::from_json(text).validate();
      ++accepted;
    } catch (const Error& error) {
      ASSERT_STRNE(error.what(), "");
      ASSERT_NE(error.code(), ErrorCode::internal);
      ++refused;
    }
  }
  EXPECT_GT(accepted, 50);
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace mneme::config_json_test
