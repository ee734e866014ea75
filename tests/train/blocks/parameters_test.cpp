// The tensors that training starts from: all that the engine expects, the same for every thread count.
#include "train/blocks/parameters.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "mneme/error.h"
#include "model/tensor_names.h"

namespace mneme::train::parameters_test {
namespace {

ModelConfig small() {
  return ModelConfig::from_json(R"({"mneme": 1, "d_model": 32, "vocab": 96, "context": 64, "tied": true,
    "defaults": {"mixer": {"heads": 4, "kv_heads": 2, "head_dim": 8}, "ffn": {"type": "dense", "hidden": 48}},
    "layers": [{"mixer": {"type": "full"}}, {"mixer": {"type": "gla", "gate_rank": 4}}, {"mixer": {"type": "delta"}}]})");
}

TEST(TrainParameters, AreWhatTheEngineExpects) {
  const ModelConfig config = small();
  const Parameters parameters = Parameters::create(config, 1);
  const auto expected = expected_tensors(config);
  ASSERT_EQ(parameters.names().size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(parameters.names()[i], expected[i].name);
    const Tensor& value = parameters.at(expected[i].name);
    EXPECT_TRUE(std::equal(value.sizes().begin(), value.sizes().end(), expected[i].shape.begin(),
                           expected[i].shape.end()));
    EXPECT_TRUE(value.requires_grad());
    EXPECT_TRUE(at::isfinite(value).all().item<bool>()) << expected[i].name;
  }
}

TEST(TrainParameters, DependOnTheSeedAlone) {
  const ModelConfig config = small();
  const int threads = at::get_num_threads();
  const Parameters first = Parameters::create(config, 7);
  at::set_num_threads(threads == 1 ? 2 : 1);
  const Parameters second = Parameters::create(config, 7), other = Parameters::create(config, 8);
  at::set_num_threads(threads);
  for (const std::string& name : first.names())
    EXPECT_TRUE(at::equal(first.at(name), second.at(name))) << name;
  EXPECT_FALSE(at::equal(first.at("token_embd.weight"), other.at("token_embd.weight")));
}

TEST(TrainParameters, RefuseUnknownAndRepeatedNames) {
  Parameters parameters;
  parameters.add("a.weight", at::ones({2}));
  EXPECT_THROW(parameters.add("a.weight", at::ones({2})), Error);
  EXPECT_THROW(parameters.at("b.weight"), Error);
}

}  // namespace
}  // namespace mneme::train::parameters_test
