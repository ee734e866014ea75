// The golden models on every instruction set, from GGUF, and with rounded weights and activations.
#include <gtest/gtest.h>

#include <cmath>

#include "engine/tiny_models.h"
#include "simd/isa.h"

namespace mneme::quantized_models_test {
namespace {

float max_difference(const std::vector<float>& expected, const std::vector<float>& got) {
  float max = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const float difference = std::abs(expected[i] - got[i]);
    max = std::max(max, std::isnan(difference) ? INFINITY : difference);
  }
  return max;
}

class IsaModel : public testing::TestWithParam<std::string> {};

TEST_P(IsaModel, EveryIsaAgrees) {
  const Golden golden = load_golden(GetParam());
  LoadOptions options;
  options.activation = Activation::float_;
  const Isa before = active_isa();
  for (const Isa isa : supported_isas()) {
    set_active_isa(isa);
    EXPECT_LE(max_difference(golden.logits, all_logits(load_tiny(GetParam(), options), golden, 16)), 1e-4f)
        << to_string(isa);
  }
  set_active_isa(before);
}

INSTANTIATE_TEST_SUITE_P(Families, IsaModel,
                         testing::Values("llama", "llama3", "llama_linear", "llama_yarn", "qwen2", "qwen3",
                                         "mistral", "gemma3", "gemma3_pattern"));

class GgufTwin : public testing::TestWithParam<std::string> {};

TEST_P(GgufTwin, GgufFileGivesTheLogitsOfTheFolder) {
  const Golden golden = load_golden(GetParam());
  EXPECT_LE(max_difference(golden.logits, all_logits(load_tiny(GetParam() + ".gguf"), golden, 512)), 1e-4f);
}

INSTANTIATE_TEST_SUITE_P(Families, GgufTwin, testing::Values("llama", "qwen3", "gemma3_pattern"));

// Quantized weights: int8 activations stay near float ones, and the reference for those is the dequantized
// model.
TEST(QuantizedModel, FloatActivationsEqualTheDequantizedReference) {
  const Golden golden = load_golden("llama_q8_0");
  LoadOptions options;
  options.activation = Activation::float_;
  EXPECT_LE(max_difference(golden.logits, all_logits(load_tiny("llama_q8_0.gguf", options), golden, 512)),
            1e-4f);
  const auto rounded = all_logits(load_tiny("llama_q8_0.gguf"), golden, 512);
  const double difference = relative_difference(golden.logits, rounded);
  EXPECT_GT(difference, 1e-5) << "int8 activations should differ a little";
  EXPECT_LE(difference, 0.06);
}

TEST(QuantizedModel, ForcedInt8ActivationsOnFloatWeightsStayClose) {
  const Golden golden = load_golden("llama");
  LoadOptions options;
  options.activation = Activation::int8;
  const double difference =
      relative_difference(golden.logits, all_logits(load_tiny("llama", options), golden, 512));
  EXPECT_GT(difference, 1e-5);
  EXPECT_LE(difference, 0.06);
}

}  // namespace
}  // namespace mneme::quantized_models_test
