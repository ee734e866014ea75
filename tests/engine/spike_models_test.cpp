// Models whose projections read spikes: the event-driven decode, the batch and the chunk say the same, the
// config and the option are followed, and nothing of it costs other models anything.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "engine/tiny_models.h"
#include "simd/isa.h"

namespace mneme::spike_models_test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::shared_ptr<const Model> load_spiking(const std::string& name, const std::string& policy) {
  LoadOptions options;
  options.activation = ActivationPolicy::parse(policy);
  return load_tiny(name, options);
}

TEST(SpikingModel, DecodeEqualsTheChunkOnEveryIsa) {
  const Golden golden = load_golden("llama_q8_0");
  const Isa before = active_isa();
  for (const Isa isa : supported_isas()) {
    set_active_isa(isa);
    for (const char* policy : {"spike", "spike:dead_zone=2", "spike:k=40"}) {
      const auto model = load_spiking("llama_q8_0.gguf", policy);
      EXPECT_EQ(all_logits(model, golden, 1), all_logits(model, golden, 512))
          << to_string(isa) << " " << policy;
    }
  }
  set_active_isa(before);
}

TEST(SpikingModel, MoreSpikesComeNearerToFloat) {
  const Golden golden = load_golden("llama_q8_0");
  double last = 1;
  for (const char* policy : {"spike:k=1", "spike:k=4", "spike:k=16", "spike:k=64"}) {
    const double now =
        relative_difference(golden.logits, all_logits(load_spiking("llama_q8_0.gguf", policy), golden, 512));
    EXPECT_LT(now, last) << policy;
    last = now;
  }
  EXPECT_LT(last, 0.04);
}

// Weights that have no stripes take counts as floats; the same weights, the same counts.
TEST(SpikingModel, WeightsWithoutStripesGiveTheSame) {
  const Golden golden = load_golden("llama");
  const auto floats = all_logits(load_spiking("llama", "spike:k=64"), golden, 512);
  EXPECT_EQ(all_logits(load_spiking("llama", "spike:k=64"), golden, 1), floats);
  EXPECT_LT(relative_difference(golden.logits, floats), 0.06);
  LoadOptions options;
  options.type = "q8_0";
  options.activation = ActivationPolicy::parse("spike:k=64");
  EXPECT_LT(relative_difference(floats, all_logits(load_tiny("llama", options), golden, 512)), 0.08);
}

TEST(SpikingModel, ProjectionsOfOneInputMayDiffer) {
  const Golden golden = load_golden("llama_q8_0");
  const auto mixed = load_spiking("llama_q8_0.gguf", "spike:k=3,k=int8,v=float,up=int8,down=auto");
  EXPECT_EQ(all_logits(mixed, golden, 1), all_logits(mixed, golden, 512));
  const auto expected = all_logits(load_spiking("llama_q8_0.gguf", "spike:k=3"), golden, 512);
  EXPECT_GT(relative_difference(expected, all_logits(mixed, golden, 512)), 1e-4);
  const std::string plan = mixed->describe_plan();
  EXPECT_THAT(plan, HasSubstr("spikes (k 3)"));
  EXPECT_THAT(plan, HasSubstr("* int8"));
  EXPECT_THAT(plan, HasSubstr("* f32"));
}

// int4 activations are a yardstick for spikes: coarser than int8, and the same token by token as in chunks.
TEST(SpikingModel, Int4IsBetweenSilenceAndInt8) {
  const Golden golden = load_golden("llama_q8_0");
  const auto floats = all_logits(load_spiking("llama_q8_0.gguf", "float"), golden, 512);
  const auto error = [&](const char* policy) {
    const auto model = load_spiking("llama_q8_0.gguf", policy);
    EXPECT_EQ(all_logits(model, golden, 1), all_logits(model, golden, 512)) << policy;
    return relative_difference(floats, all_logits(model, golden, 512));
  };
  EXPECT_GT(error("int4"), 2 * error("int8"));
  EXPECT_LT(error("int4"), error("spike:k=0.2"));
  EXPECT_GT(error("int4"), error("float:down=int4"));
  EXPECT_THAT(load_spiking("llama_q8_0.gguf", "auto:down=int4")->describe_plan(), HasSubstr("* int4 as f32"));
}

TEST(SpikingModel, OnlySpikingProjectionsAreHeldInStripes) {
  EXPECT_THAT(load_tiny("llama_q8_0.gguf")->describe_plan(), Not(HasSubstr("stripes")));
  const auto model = load_spiking("llama_q8_0.gguf", "auto:down=spike");
  for (const TensorDescription& tensor : model->tensors())
    EXPECT_EQ(tensor.layout.find("stripes") != std::string::npos,
              tensor.name.find("ffn_down") != std::string::npos)
        << tensor.name;
}

TEST(SpikingModel, AnotherNeuronIsAnotherModel) {
  const std::string plain = load_tiny("llama_q8_0.gguf")->hash();
  const std::string spiking = load_spiking("llama_q8_0.gguf", "spike")->hash();
  EXPECT_NE(plain, spiking);
  EXPECT_EQ(spiking, load_spiking("llama_q8_0.gguf", "spike:k=3")->hash());
  EXPECT_NE(spiking, load_spiking("llama_q8_0.gguf", "spike:k=2.5")->hash());
  EXPECT_NE(spiking, load_spiking("llama_q8_0.gguf", "spike:down=int8")->hash());
}

TEST(SpikingModel, SilencingEverythingIsDefined) {
  const Golden golden = load_golden("llama_q8_0");
  const auto model = load_spiking("llama_q8_0.gguf", "spike:dead_zone=10000");
  const auto logits = all_logits(model, golden, 1);
  EXPECT_EQ(logits, all_logits(model, golden, 512));
  for (const float value : logits) ASSERT_TRUE(std::isfinite(value));
}

}  // namespace
}  // namespace mneme::spike_models_test
