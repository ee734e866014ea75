// Mixtures of experts in the schema of docs/config.md: what is read, and what is refused with which words.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/json.h"
#include "mneme/error.h"
#include "model/fake_tensors.h"

namespace mneme::config_experts_test {
namespace {

using ::testing::HasSubstr;
using testing_fakes::error_of;

/// A config of one dense layer with another feed-forward.
std::string changed(const std::string& pointer, const Json& value) {
  Json json = Json::parse(R"({"mneme": 1, "d_model": 64, "vocab": 100, "context": 128, "layers": [
  {"repeat": 2, "mixer": {"heads": 4, "kv_heads": 2, "head_dim": 16}, "ffn": {"hidden": 96}}]})");
  json[Json::json_pointer(pointer)] = value;
  return json.dump();
}

TEST(ConfigExperts, MixturesOfExpertsAmongDenseLayers) {
  const ModelConfig config = ModelConfig::from_json(R"({"mneme": 1, "d_model": 64, "vocab": 9, "context": 64,
    "defaults": {"mixer": {"heads": 4, "kv_heads": 2, "head_dim": 16},
                 "ffn": {"type": "moe", "hidden": 512, "experts": 16, "top_k": 2, "shared": 1}},
    "layers": [{"ffn": {"type": "dense", "hidden": 96, "bias": true}}, {"repeat": 2}, {"ffn": {"top_k": 4, "router": "sigmoid",
      "renormalise": false, "scale": 2.5, "selection_bias": true, "groups": 4, "top_groups": 2, "group_score": "top_two",
      "shared_hidden": 64, "shared_gate": true}}, {"ffn": {"null_experts": 8, "top_k": 20, "top_p": 0.5}}]})");
  ASSERT_EQ(config.layers.size(), 5u);
  const FfnConfig &dense = config.layers[0].ffn, &plain = config.layers[2].ffn, &full = config.layers[3].ffn;
  EXPECT_FALSE(dense.moe());
  EXPECT_EQ(dense.experts, 0u);  // not a field of a dense layer
  EXPECT_TRUE(dense.bias);
  EXPECT_TRUE(plain.moe() && plain.renormalise && plain.router == RouterScore::softmax);
  EXPECT_EQ(plain.experts, 16u);
  EXPECT_EQ(plain.shared_width(), 512u);
  EXPECT_EQ(full.shared_width(), 64u);
  EXPECT_EQ(full.group_score, GroupScore::top_two);
  EXPECT_EQ(config.layers[4].ffn.choices(), 24u);
  const std::string text = config.to_json();
  EXPECT_EQ(ModelConfig::from_json(text), config) << text;
  EXPECT_EQ(ModelConfig::from_json(text).to_json(), text);
}

TEST(ConfigExperts, ImpossibleMixturesAreRefused) {
  const Json good = {{"type", "moe"}, {"hidden", 96}, {"experts", 8}, {"top_k", 2}};
  EXPECT_NO_THROW(ModelConfig::from_json(changed("/layers/0/ffn", good)));
  const std::vector<std::pair<Json, std::string>> refusals{
      {{{"top_k", 9}}, "layers[0].ffn.top_k is 9, but must be from 1 to the number of experts, which is 8"},
      {{{"top_k", 0}}, "ffn.top_k is 0"},
      {{{"top_k", 13}, {"null_experts", 4}}, "which is 8 and 4 null experts"},
      {{{"experts", 0}}, "ffn.experts is 0"},
      {{{"experts", 5000}}, "ffn.experts is 5000"},
      {{{"bias", true}}, "ffn.bias is true, but experts have none"},
      {{{"shared_hidden", 4}}, "ffn.shared is 0, but there is shared_hidden"},
      {{{"shared_gate", true}}, "ffn.shared is 0, but there is shared_hidden or shared_gate"},
      {{{"scale", 0}}, "ffn.scale is 0"},
      {{{"top_p", 1}}, "ffn.top_p is 1"},
      {{{"groups", 3}}, "ffn.groups is 3, but must divide experts, which is 8"},
      {{{"groups", 4}, {"top_groups", 5}}, "ffn.top_groups is 5"},
      {{{"groups", 4}, {"top_k", 3}}, "ffn.top_k is 3, but 1 groups of 2 experts hold only 2"},
      {{{"groups", 4}, {"null_experts", 1}}, "null experts belong to no group"},
      {{{"groups", 8}, {"top_groups", 2}, {"group_score", "top_two"}}, "a group has only one expert"},
      {{{"group_score", "sum"}}, "must be one of: max, top_two"},
      {{{"router", "relu"}}, "must be one of: softmax, sigmoid"},
      {{{"topk", 2}}, "ffn.topk is not a known field; did you mean \"top_k\"?"}};
  for (const auto& [fields, says] : refusals) {
    Json ffn = good;
    ffn.update(fields);
    const Error error = error_of([&] { ModelConfig::from_json(changed("/layers/0/ffn", ffn)); });
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument) << fields;
    EXPECT_THAT(error.what(), HasSubstr(says));
  }
  Json many = Json::parse(changed("/layers/0/ffn", good));
  many["layers"][0]["ffn"]["experts"] = 4096;
  many["layers"][0]["repeat"] = 33;
  EXPECT_THAT(error_of([&] { ModelConfig::from_json(many.dump()); }).what(),
              HasSubstr("layers have 135168 experts together, but may have at most 131072"));
}

}  // namespace
}  // namespace mneme::config_experts_test
