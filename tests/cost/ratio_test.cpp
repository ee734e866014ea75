#include "cost/ratio.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "mneme/error.h"

namespace mneme::ratio_test {
namespace {

ModelConfig one_layer(MixerType type) {
  ModelConfig config;
  config.d_model = 64;
  config.vocab = 256;
  config.context = 1 << 22;
  config.layers.resize(1);
  MixerConfig& mixer = config.layers[0].mixer;
  mixer.type = type;
  mixer.heads = 4;
  mixer.kv_heads = 2;
  mixer.head_dim = 16;
  if (type == MixerType::window) mixer.window = 512;
  config.layers[0].ffn.hidden = 128;
  return config;
}

TEST(Ratio, ThePublishedExampleIsA122ndPart) {
  SparsityRatio ratio;
  ratio.alpha = 0.8;
  ratio.n = 4 * 1024 * 1024;
  ratio.m_over_n = 32 * 1024 / ratio.n;
  ratio.a = 1 - 0.69;
  ratio.k_over_m = 2.0 / 64;
  EXPECT_NEAR(ratio.r(), 0.00819, 5e-6);
  EXPECT_NEAR(ratio.speedup(), 122, 0.5);
  // With n and m rounded to 4 million and 32 thousand and k/M to 0.031 it is the 0.00832 that is printed,
  // too.
  SparsityRatio rounded = ratio;
  rounded.m_over_n = 0.008;
  rounded.k_over_m = 0.031;
  EXPECT_NEAR(rounded.r(), 0.00832, 5e-6);
}

TEST(Ratio, ADenseModelHasNothingToSave) {
  const ModelShape shape = shape_of(one_layer(MixerType::full), DType::q8_0);
  const CountedRatio counted = counted_ratio(shape, KvType::f16, 1000);
  EXPECT_DOUBLE_EQ(counted.formula.r(), 1);
  EXPECT_DOUBLE_EQ(counted.macs, 1);
  EXPECT_DOUBLE_EQ(counted.bytes, 1);
  const double over_positions = 2 * 64 * 1000;
  EXPECT_DOUBLE_EQ(counted.formula.alpha,
                   over_positions / (over_positions + 64 * 64 * 2 + 2 * 32 * 64 + 3 * 128 * 64 + 256 * 64));
}

TEST(Ratio, AWindowAttendsToItsPartOfThePositions) {
  const ModelShape shape = shape_of(one_layer(MixerType::window), DType::q8_0);
  const CountedRatio counted = counted_ratio(shape, KvType::f16, 4096);
  EXPECT_DOUBLE_EQ(counted.formula.m_over_n, 0.125);
  EXPECT_DOUBLE_EQ(counted.formula.m(), 512);
  // Nothing fires, nothing routes: the formula is exact.
  EXPECT_NEAR(counted.formula.r(), counted.macs, 1e-12);
}

TEST(Ratio, ARecurrenceCountsAsThePositionsThatCostAsMuch) {
  const ModelShape shape = shape_of(one_layer(MixerType::delta), DType::q8_0);
  const double state = 2 * 16 * 16 * (3 + 2);
  const CountedRatio counted = counted_ratio(shape, KvType::f16, 100000);
  EXPECT_DOUBLE_EQ(counted.formula.m(), state / (2 * 64));
  EXPECT_GT(counted_ratio(shape, KvType::f16, 1).formula.m_over_n, 1);
}

TEST(Ratio, FiringInputsAreTheMeanOfTheProjections) {
  ModelConfig config = one_layer(MixerType::full);
  config.layers[0].activation = ActivationPolicy(Activation::spike);
  ModelShape shape = shape_of(config, DType::q8_0);
  EXPECT_TRUE(fires(shape));
  set_firing(shape, 0.3);
  const CountedRatio counted = counted_ratio(shape, KvType::f16, 1);
  EXPECT_NEAR(counted.formula.a, 0.3, 1e-12);
  // R lets the head be silent too, which it is not.
  EXPECT_GT(counted.macs, counted.formula.r());
}

Json entry(const char* name, double silent, uint64_t inputs, uint64_t outputs) {
  return {{"layer", 0u},      {"name", name},       {"silent", silent},
          {"inputs", inputs}, {"outputs", outputs}, {"popcount", 1.2}};
}

TEST(Ratio, AReportSaysWhatEachProjectionReads) {
  const Json json{
      {"projections", Json::array({entry("q", 0.5, 64, 64), entry("k", 0.5, 64, 32), entry("v", 0.5, 64, 32),
                                   entry("o", 0.9, 64, 64), entry("gate", 0.2, 64, 128),
                                   entry("up", 0.2, 64, 128), entry("down", 0.8, 128, 64)})}};
  const FiringReport report = firing_report(json);
  EXPECT_NEAR(report.mean,
              1 - (0.5 * 64 * 128 + 0.9 * 64 * 64 + 0.2 * 64 * 256 + 0.8 * 128 * 64) / (12288.0 + 24576),
              1e-12);
  EXPECT_NEAR(report.popcount, 1.2, 1e-12);
  ModelConfig config = one_layer(MixerType::full);
  config.layers[0].activation = ActivationPolicy(Activation::spike);
  ModelShape shape = shape_of(config, DType::q8_0);
  set_firing(shape, report);
  for (const WeightShape& weight : shape.weights)
    EXPECT_NEAR(weight.active,
                weight.projection == "down"   ? 0.2
                : weight.projection == "o"    ? 0.1
                : weight.projection == "gate" ? 0.8
                : weight.projection == "up"   ? 0.8
                : weight.projection.empty()   ? 1.0
                                              : 0.5,
                1e-12)
        << weight.name;
  config.layers.push_back(config.layers[0]);
  shape = shape_of(config, DType::q8_0);
  EXPECT_THROW(set_firing(shape, report), Error);  // of a model with fewer layers
}

TEST(Ratio, RefusesWhatIsNoReport) {
  Json no_share{{"projections", Json::array({entry("q", 1.5, 64, 64)})}};
  Json no_inputs{{"projections", Json::array({entry("q", 0.5, 0, 64)})}};
  Json negative{{"projections", Json::array({entry("q", 0.5, 64, 64)})}};
  negative["projections"][0]["inputs"] = -3;
  Json below{{"projections", Json::array({entry("q", 0.5, 64, 64)})}};
  below["projections"][0]["popcount"] = -1;
  for (const Json& json :
       {Json(), Json::array(), Json{{"projections", 3}}, Json{{"projections", Json::array()}},
        Json{{"projections", Json::array({1})}}, no_share, no_inputs, negative, below})
    EXPECT_THROW(firing_report(json), Error) << json.dump();
}

Json routed(double active, int64_t experts) {
  // As text, so that a number that is not negative is unsigned, as in a file.
  return parse_json(
      fmt::format(R"({{"layers": [{{"layer": 0, "experts": {}, "mean_active": {}}}]}})", experts, active),
      "report");
}

TEST(Ratio, ExpertsThatSleepAreNotCounted) {
  ModelConfig config = one_layer(MixerType::full);
  FfnConfig& ffn = config.layers[0].ffn;
  ffn.type = FfnType::moe;
  ffn.experts = 8;
  ffn.top_k = 2;
  ffn.hidden = 32;
  ModelShape shape = shape_of(config, DType::q8_0);
  const double by_config = decode_cost(shape, KvType::f16, 9).total().macs;
  set_routing(shape, routing_figures(routed(1.5, 8)));
  EXPECT_DOUBLE_EQ(by_config - decode_cost(shape, KvType::f16, 9).total().macs, 0.5 * 3 * 32 * 64);
  EXPECT_THROW(set_routing(shape, routing_figures(routed(1.5, 7))), Error);  // of another model
  ModelShape dense = shape_of(one_layer(MixerType::full), DType::q8_0);
  EXPECT_THROW(set_routing(dense, routing_figures(routed(1.5, 8))), Error);
}

TEST(Ratio, RefusesWhatIsNoReportOfExperts) {
  for (const Json& json : {Json(), Json::array(), Json{{"layers", 3}}, Json{{"layers", Json::array()}},
                           Json{{"layers", Json::array({1})}}, routed(9, 8), routed(-1, 8), routed(1, -8)})
    EXPECT_THROW(routing_figures(json), Error) << json.dump();
}

TEST(Ratio, RefusesTermsThatAreNoShares) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const SparsityRatio& bad : {SparsityRatio{nan, 1, 1, 1, 1}, SparsityRatio{0.5, 1, 1.01, 1, 1},
                                   SparsityRatio{-0.1, 1, 1, 1, 1}, SparsityRatio{0, 1, 0, 1, 1}})
    EXPECT_THROW(check_ratio(bad), Error);
  EXPECT_NO_THROW(check_ratio({0.5, 0.1, 0.3, 0.1, 1000}));
}

}  // namespace
}  // namespace mneme::ratio_test
