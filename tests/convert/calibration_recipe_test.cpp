// Recipes of calibrations: what is read, and what is refused with which words.
#include "convert/calibration_recipe.h"

#include <gtest/gtest.h>

#include "mneme/error.h"

namespace mneme::calibration_recipe_test {
namespace {

std::optional<CalibrationRecipe> read_recipe(const std::string& stage,
                                             const std::string& data = R"({"train": ["a.txt"]})") {
  return CalibrationRecipe::from_json(
      R"({"mneme_convert": 1, "data": )" + data + R"(, "stages": [)" + stage + "]}", "/texts", "r.json");
}

std::string recipe_error(const std::string& stage, const std::string& data = R"({"train": ["a.txt"]})") {
  try {
    read_recipe(stage, data);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(CalibrationRecipeTest, DefaultsAndFields) {
  const auto plain = read_recipe(R"({"kind": "calibrate"})").value_or(CalibrationRecipe());
  EXPECT_EQ(plain.train, std::vector<fs::path>{"/texts/a.txt"});
  EXPECT_TRUE(plain.validation.empty());
  EXPECT_EQ(plain.budget, 0.02);
  EXPECT_EQ(plain.context, 512u);
  EXPECT_TRUE(plain.share);
  const auto full =
      read_recipe(
          R"({"kind": "calibrate", "budget": 0.05, "tokens": 4096, "probe_tokens": 256, "rounds": 2, "share": false, "projections": ["up", "q"],
          "k": [8, 16], "curve": [0.1], "weights": "q8_0"})",
          R"({"train": ["/b.txt", "c.txt"], "validation": ["v.txt"], "context": 1024, "tokens": 2048})")
          .value_or(CalibrationRecipe());
  EXPECT_EQ(full.train, (std::vector<fs::path>{"/b.txt", "/texts/c.txt"}));
  EXPECT_EQ(full.validation, std::vector<fs::path>{"/texts/v.txt"});
  EXPECT_EQ(full.context, 1024u);
  EXPECT_EQ(full.held_out, 2048u);
  EXPECT_EQ(full.tokens, 4096u);
  EXPECT_EQ(full.budget, 0.05);
  EXPECT_EQ(full.probe_tokens, 256u);
  EXPECT_EQ(full.rounds, 2u);
  EXPECT_FALSE(full.share);
  EXPECT_EQ(full.projections, (std::vector{Projection::up, Projection::q}));
  EXPECT_EQ(full.ks, (std::vector<double>{8, 16}));
  EXPECT_EQ(full.curve, std::vector<double>{0.1});
  EXPECT_EQ(full.weights, "q8_0");
}

TEST(CalibrationRecipeTest, OtherRecipesAreNotOurs) {
  EXPECT_FALSE(read_recipe(R"({"kind": "window", "window": 24})").has_value());
  EXPECT_FALSE(read_recipe("").has_value());
  EXPECT_FALSE(read_recipe("3").has_value());
  EXPECT_FALSE(CalibrationRecipe::from_json("[]", "/", "r").has_value());
  EXPECT_FALSE(CalibrationRecipe::from_json(R"({"stages": {}})", "/", "r").has_value());
}

TEST(CalibrationRecipeTest, WhatIsWrongIsNamed) {
  const std::pair<std::string, std::string> cases[] = {
      {R"({"kind": "calibrate", "budget": -0.02})", "stages[0].budget"},
      {R"({"kind": "calibrate", "budget": 0})", "stages[0].budget"},
      {R"({"kind": "calibrate", "budget": "2 %"})", "stages[0].budget"},
      {R"({"kind": "calibrate", "bugdet": 0.02})", "did you mean \"budget\""},
      {R"({"kind": "calibrate", "projections": ["dwon"]})", "did you mean \"down\""},
      {R"({"kind": "calibrate", "projections": ["memory"]})", "q, k, v, o, gate, up, down"},
      {R"({"kind": "calibrate", "projections": ["q", "q"]})", "twice"},
      {R"({"kind": "calibrate", "projections": []})", "stages[0].projections"},
      {R"({"kind": "calibrate", "k": []})", "stages[0].k"},
      {R"({"kind": "calibrate", "k": [65]})", "64"},
      {R"({"kind": "calibrate", "tokens": 600})", "1024"},
      {R"({"kind": "calibrate", "weights": "q4_k"})", "q8_0"},
      {R"({"kind": "calibrate"}, {"kind": "window", "window": 24})", "only stage"},
      {R"({"kind": "window", "window": 24}, {"kind": "calibrate"})", "stages[1]"}};
  for (const auto& [stage, says] : cases)
    EXPECT_NE(recipe_error(stage).find(says), std::string::npos) << recipe_error(stage);
  const std::string good = R"({"kind": "calibrate"})";
  EXPECT_NE(recipe_error(good, "{}").find("train"), std::string::npos);
  EXPECT_NE(recipe_error(good, R"({"train": []})").find("empty"), std::string::npos);
  EXPECT_NE(recipe_error(good, R"({"train": [""]})").find("empty path"), std::string::npos);
  EXPECT_NE(recipe_error(good, R"({"train": ["a"], "context": 2})").find("context"), std::string::npos);
  EXPECT_THROW(
      CalibrationRecipe::from_json(
          R"({"mneme_convert": 2, "data": {"train": ["a"]}, "stages": [{"kind": "calibrate"}]})", "/", "r"),
      Error);
  EXPECT_THROW(CalibrationRecipe::from_json(R"({"stages": [NaN]})", "/", "r"), Error);
}

}  // namespace
}  // namespace mneme::calibration_recipe_test
