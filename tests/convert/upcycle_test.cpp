// Dense models made into mixtures: what they compute at the start, beside the dense model itself.
#include "convert/upcycle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "convert/export_hf.h"
#include "engine/tiny_models.h"
#include "mneme/error.h"
#include "scratch.h"

namespace mneme::upcycle_test {
namespace {

using ::testing::HasSubstr;

class Upcycle : public testing::Test {
 protected:
  ScratchFolder folder_;

  /// Logits of the golden text of a tiny model, upcycled.
  std::vector<float> upcycled_logits(const std::string& name, const UpcycleOptions& options) {
    const std::string out = (folder_ / "out").string();
    fs::remove_all(out);
    export_hf(upcycle(open_checkpoint(tiny_model_path(name)), options), out, DType::f32, {});
    LoadOptions two;
    two.threads = 2;
    return all_logits(Model::load(out, two), load_golden("llama"), 64);
  }
  std::string recipe(const std::string& text) const { return folder_.write("recipe.json", text).string(); }
  std::string refusal(const std::string& text) const {
    try {
      read_upcycle_recipe(recipe(text));
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
      return error.what();
    }
    return "no error";
  }
};

TEST_F(Upcycle, TheFactorIsThePublishedOne) {
  EXPECT_NEAR(std::cbrt(upcycle_factor({})), 0.9800, 5e-5);  // 16 routed, 1 shared, top-1
  UpcycleOptions options;
  options.renormalise = true;
  EXPECT_DOUBLE_EQ(upcycle_factor(options), 0.5);
  options.renormalise = false;
  options.router = RouterScore::sigmoid;
  options.shared = 2;
  options.top_k = 4;
  EXPECT_DOUBLE_EQ(upcycle_factor(options), 0.25);
}

// With even scores and the factor on the linear matrix the mixture is the dense layer.
TEST_F(Upcycle, WithTheFactorOnDownTheStartIsExact) {
  for (const char* name : {"llama", "llama.gguf"}) {
    UpcycleOptions options;
    options.scale = UpcycleScale::down;
    options.router_deviation = 0;
    options.experts = 4;
    for (const uint32_t shared : {0u, 1u, 3u})
      for (const uint32_t top_k : {1u, 2u, 4u})
        for (const bool renormalise : {false, true}) {
          options.shared = shared;
          options.top_k = top_k;
          options.renormalise = renormalise;
          EXPECT_LE(relative_difference(load_golden("llama").logits, upcycled_logits(name, options)), 2e-6)
              << name << ", " << shared << " shared, " << top_k << " of 4" << renormalise;
        }
    options.router = RouterScore::sigmoid;
    options.renormalise = false;
    EXPECT_LE(relative_difference(load_golden("llama").logits, upcycled_logits(name, options)), 2e-6);
  }
}

TEST_F(Upcycle, SpreadOverTheMatricesItIsNear) {
  const double spread = relative_difference(load_golden("llama").logits, upcycled_logits("llama", {}));
  EXPECT_LT(spread, 0.03);
  EXPECT_GT(spread, 1e-5);  // SiLU is not homogeneous
}

TEST_F(Upcycle, SomeLayersAndTheSeed) {
  UpcycleOptions options;
  options.layers = {1};
  options.experts = 4;
  const ModelConfig dense = open_checkpoint(tiny_model_path("llama")).config();
  const ModelConfig config = upcycled_config(dense, options);
  EXPECT_FALSE(config.layers[0].ffn.moe());
  EXPECT_TRUE(config.layers[1].ffn.moe());
  options.router_deviation = 0.5;
  const auto one = upcycled_logits("llama", options), again = upcycled_logits("llama", options);
  options.seed = 2;
  const auto other = upcycled_logits("llama", options);
  EXPECT_EQ(one, again);
  EXPECT_NE(one, other);
}

TEST_F(Upcycle, WhatCannotBeUpcycledIsSaid) {
  const auto refused = [](const char* name, const UpcycleOptions& options) -> std::string {
    try {
      upcycled_config(open_checkpoint(tiny_model_path(name)).config(), options);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  UpcycleOptions options;
  EXPECT_THAT(refused("mixtral", options), HasSubstr("no layer has a dense feed-forward"));
  options.layers = {0};
  EXPECT_THAT(refused("mixtral", options),
              HasSubstr("layer 0 cannot be upcycled: its feed-forward is a mixture"));
  options.layers = {9};
  EXPECT_THAT(refused("llama", options), HasSubstr("the model has layers 0 to 1"));
  options.layers = {};
  options.top_k = 17;
  EXPECT_THAT(refused("llama", options),
              HasSubstr("top_k is 17, but must be from 1 to the number of experts"));
}

TEST_F(Upcycle, RecipesAreReadStrictly) {
  const auto read = read_upcycle_recipe(recipe(R"({"mneme_convert": 1, "seed": 7, "type": "f16",
    "data": {"validation": ["a.txt"], "context": 64, "tokens": 1000},
    "stages": [{"kind": "upcycle", "layers": [1, 0], "experts": 8, "shared": 2, "top_k": 2, "router": "sigmoid",
                "renormalise": true, "scale": "down", "router_deviation": 0.01}]})"));
  if (!read) FAIL();
  EXPECT_EQ(read->options.layers, (std::vector<uint32_t>{0, 1}));
  EXPECT_EQ(read->options.seed, 7u);
  EXPECT_EQ(read->options.scale, UpcycleScale::down);
  EXPECT_EQ(read->validation.front(), folder_ / "a.txt");
  EXPECT_EQ(read->type, "f16");
  EXPECT_FALSE(
      read_upcycle_recipe(recipe(R"({"mneme_convert": 1, "stages": [{"kind": "window"}]})")).has_value());
  EXPECT_FALSE(read_upcycle_recipe(recipe("{")).has_value());
  EXPECT_THAT(refusal(R"({"mneme_convert": 1, "stages": [{"kind": "upcycle", "expert": 3}]})"),
              HasSubstr("did you mean \"experts\"?"));
  EXPECT_FALSE(read_upcycle_recipe(
                   recipe(R"({"mneme_convert": 1, "stages": [{"kind": "upcycle"}, {"kind": "window"}]})"))
                   .has_value());
  EXPECT_THAT(refusal(R"({"mneme_convert": 1, "stages": [{"kind": "upcycle", "layers": [1, 1]}]})"),
              HasSubstr("must name layers, each once"));
  EXPECT_THAT(refusal(R"({"mneme_convert": 1, "stages": [{"kind": "upcycle", "scale": "up"}]})"),
              HasSubstr("must be one of: spread, down"));
}

}  // namespace
}  // namespace mneme::upcycle_test
