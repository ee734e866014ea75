#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/fail.h"
#include "mneme/model_config.h"

namespace mneme::activation_policy_test {
namespace {

using ::testing::HasSubstr;

ModelConfig with_activation(const std::string& activation) {
  return ModelConfig::from_json(R"({"mneme": 1, "d_model": 32, "vocab": 8, "context": 16,
      "defaults": {"mixer": {"heads": 1, "kv_heads": 1, "head_dim": 32}, "ffn": {"type": "dense", "hidden": 64}},
      "layers": [{"activation": )" +
                                activation + "}]}");
}

std::string refused(const std::string& text) {
  try {
    ActivationPolicy::parse(text);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    return error.what();
  }
  return "accepted";
}

TEST(ActivationPolicy, AWordHoldsForEveryProjection) {
  const ActivationPolicy policy = with_activation(R"("spike")").layers[0].activation;
  for (const ActivationConfig& one : policy.of) EXPECT_EQ(one, ActivationConfig(Activation::spike, 3.0, 0.0));
  EXPECT_EQ(policy.to_json(), R"("spike")");
}

TEST(ActivationPolicy, ANeuronHoldsForEveryProjection) {
  const ActivationPolicy policy =
      with_activation(R"({"type": "spike", "k": 2.5, "dead_zone": 0.75})").layers[0].activation;
  for (const ActivationConfig& one : policy.of)
    EXPECT_EQ(one, ActivationConfig(Activation::spike, 2.5, 0.75));
  EXPECT_EQ(policy.to_json(), R"({"type":"spike","k":2.5,"dead_zone":0.75})");
}

TEST(ActivationPolicy, ProjectionsMayDiffer) {
  const ActivationPolicy policy =
      with_activation(R"({"default": "int8", "q": {"type": "spike", "k": 2}, "k": "spike", "down": "float"})")
          .layers[0]
          .activation;
  EXPECT_EQ(policy[Projection::q], ActivationConfig(Activation::spike, 2.0));
  EXPECT_EQ(policy[Projection::k], ActivationConfig(Activation::spike, 3.0));
  EXPECT_EQ(policy[Projection::down], ActivationConfig(Activation::float_));
  EXPECT_EQ(policy[Projection::gate], ActivationConfig(Activation::int8));
  EXPECT_EQ(policy.to_json(),
            R"({"default":"int8","q":{"type":"spike","k":2.0},"k":"spike","down":"float"})");
}

TEST(ActivationPolicy, ALayersPolicyReplacesThatOfTheDefaultsAsAWhole) {
  const ModelConfig config = ModelConfig::from_json(R"({"mneme": 1, "d_model": 32, "vocab": 8, "context": 16,
      "defaults": {"mixer": {"heads": 1, "kv_heads": 1, "head_dim": 32}, "ffn": {"type": "dense", "hidden": 64},
                   "activation": {"default": "spike", "down": "float"}},
      "layers": [{}, {"activation": {"up": "int8"}}]})");
  EXPECT_EQ(config.layers[0].activation[Projection::down].type, Activation::float_);
  EXPECT_EQ(config.layers[0].activation[Projection::q].type, Activation::spike);
  EXPECT_EQ(config.layers[1].activation[Projection::up].type, Activation::int8);
  EXPECT_EQ(config.layers[1].activation[Projection::q].type, Activation::automatic);
  EXPECT_EQ(ModelConfig::from_json(config.to_json()), config);
}

// What attention makes of its queries and keys is the mixer's, not a projection's.
TEST(ActivationPolicy, QueriesOfAttentionMaySpikeAndItsCacheBeInt8) {
  const auto config = [](const std::string& mixer) {
    return ModelConfig::from_json(R"({"mneme": 1, "d_model": 32, "vocab": 8, "context": 16,
        "defaults": {"mixer": {"heads": 1, "kv_heads": 1, "head_dim": 32}, "ffn": {"type": "dense", "hidden": 64}},
        "layers": [{"mixer": )" + mixer +
                                  "}, {}]}");
  };
  const ModelConfig model =
      config(R"({"type": "window", "window": 8, "query": {"type": "spike", "k": 2.5}, "kv_int8": true})");
  EXPECT_EQ(model.layers[0].mixer.query, ActivationConfig(Activation::spike, 2.5));
  EXPECT_TRUE(model.layers[0].mixer.kv_int8);
  EXPECT_EQ(model.layers[1].mixer.query, ActivationConfig());
  EXPECT_EQ(ModelConfig::from_json(model.to_json()), model);
  for (const auto& [mixer, says] : {std::pair(R"({"query": "int8"})", "query is \"int8\""),
                                    std::pair(R"({"query": {"type": "spike", "k": 0}})", "query.k is 0"),
                                    std::pair(R"({"type": "gla", "query": "spike"})", "query is there"),
                                    std::pair(R"({"type": "gla", "kv_int8": true})", "kv_int8 is true")}) {
    try {
      config(mixer);
      ADD_FAILURE() << mixer;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr(says));
    }
  }
}

TEST(ActivationPolicy, CommandLinesSayTheSame) {
  EXPECT_EQ(ActivationPolicy::parse("int8"), ActivationPolicy(Activation::int8));
  EXPECT_EQ(ActivationPolicy::parse("spike"), ActivationPolicy(Activation::spike));
  EXPECT_EQ(ActivationPolicy::parse("spike:k=2.5"),
            ActivationPolicy(ActivationConfig(Activation::spike, 2.5)));
  ActivationPolicy expected(ActivationConfig(Activation::spike, 2.0, 0.5));
  expected[Projection::down] = Activation::int8;
  expected[Projection::k] = Activation::float_;
  EXPECT_EQ(ActivationPolicy::parse("spike:down=int8,k=2,k=float,dead_zone=0.5"), expected);
  ActivationPolicy only_up(Activation::automatic);
  only_up[Projection::up] = Activation::spike;
  EXPECT_EQ(ActivationPolicy::parse("auto:up=spike"), only_up);
}

TEST(ActivationPolicy, WhatIsWrongInACommandLineIsNamed) {
  EXPECT_THAT(refused("spiek"), HasSubstr("did you mean spike?"));
  EXPECT_THAT(refused(""), HasSubstr("none of auto, float, int8, spike"));
  EXPECT_THAT(refused("spike:"), HasSubstr("after the colon"));
  EXPECT_THAT(refused("spike:k"), HasSubstr("\"k\" must be"));
  EXPECT_THAT(refused("spike:k="), HasSubstr("neither a number"));
  EXPECT_THAT(refused("spike:k=abc"), HasSubstr("k=abc is neither a number, the neuron's k, nor"));
  EXPECT_THAT(refused("spike:k=3x"), HasSubstr("must be a number"));
  EXPECT_THAT(refused("spike:k=0"), HasSubstr("activation.k is 0"));
  EXPECT_THAT(refused("spike:k=1e-300"), HasSubstr("a number from 0.001"));  // 0 as a float
  EXPECT_THAT(refused("spike:dead_zone=-1"), HasSubstr("activation.dead_zone is -1"));
  EXPECT_THAT(refused("spike:dead_zone=nan"), HasSubstr("dead_zone is nan"));
  EXPECT_THAT(refused("spike:dwon=int8"), HasSubstr("did you mean down?"));
  EXPECT_THAT(refused("spike:down=int2"), HasSubstr("int2"));
  EXPECT_THAT(refused("int8:k=3"), HasSubstr("belongs to spike only"));
}

}  // namespace
}  // namespace mneme::activation_policy_test
