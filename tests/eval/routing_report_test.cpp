// Figures of routing: from counts made by hand, and from tiny models whose choices are known.
#include "eval/routing_report.h"

#include <gtest/gtest.h>

#include <cmath>

#include "engine/tiny_models.h"
#include "mneme/error.h"

namespace mneme::routing_report_test {
namespace {

TEST(RoutingReport, FiguresOfKnownCounts) {
  LayerRouting layer;
  layer.experts = 4;
  layer.null_experts = 1;
  layer.top_k = 2;
  layer.chosen = {30, 30, 0, 0, 20};
  layer.active = {0, 20, 20};
  layer.tokens = 40;
  EXPECT_EQ(layer.load(), (std::vector<double>{0.5, 0.5, 0, 0}));
  EXPECT_DOUBLE_EQ(layer.variation(), 1.0);
  EXPECT_DOUBLE_EQ(layer.entropy(), 0.5);
  EXPECT_EQ(layer.starved(), (std::vector<uint32_t>{2, 3}));
  EXPECT_DOUBLE_EQ(layer.mean_active(), 1.5);
  EXPECT_DOUBLE_EQ(layer.null_share(), 0.25);
  layer.chosen = {15, 15, 15, 15, 20};
  EXPECT_DOUBLE_EQ(layer.variation(), 0.0);
  EXPECT_DOUBLE_EQ(layer.entropy(), 1.0);
  EXPECT_TRUE(layer.starved().empty());
  layer.chosen = {0, 0, 0, 0, 80};  // everything went to null experts
  EXPECT_EQ(layer.load(), (std::vector<double>(4, 0.0)));
  EXPECT_EQ(layer.entropy(), 0.0);
}

TEST(RoutingReport, ATokenWakesFewerWithNullExpertsAndTopP) {
  const auto model = load_tiny("mixers/moe_adaptive");
  const Golden golden = load_golden("mixers/moe_adaptive");
  const RoutingReport report = routing_report(model, golden.ids, {});
  ASSERT_EQ(report.layers.size(), 3u);
  for (const LayerRouting& layer : report.layers) {
    EXPECT_EQ(layer.tokens, golden.ids.size());
    EXPECT_LT(layer.mean_active(), layer.top_k);
    EXPECT_GT(layer.mean_active(), 0);
  }
  EXPECT_GT(report.layers[0].null_share(), 0.1);
  EXPECT_EQ(report.layers[1].null_share(), 0);
  EXPECT_EQ(report.layers[1].active[0], 0u);  // top-p keeps at least one
  EXPECT_GT(report.layers[1].active[1], 0u);
  // the same whatever the threads and windows' chunks
  LoadOptions three;
  three.threads = 3;
  const RoutingReport again = routing_report(load_tiny("mixers/moe_adaptive", three), golden.ids, {});
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(report.layers[i].chosen, again.layers[i].chosen);
    EXPECT_EQ(report.layers[i].score_entropy, again.layers[i].score_entropy);
  }
}

TEST(RoutingReport, RefusesDenseModelsAndDrawsOthers) {
  const std::vector<TokenId> ids{5, 6, 7};
  EXPECT_THROW(routing_report(load_tiny("llama"), ids, {}), Error);
  const auto model = load_tiny("dots1");
  EXPECT_THROW(routing_report(model, {}, {}), Error);
  const RoutingReport report = routing_report(model, ids, {.ctx = 2});
  EXPECT_EQ(report.layers.size(), 2u);
  EXPECT_DOUBLE_EQ(report.mean_active(), 3.0);
  const HeatMap map = routing_map(report, "dots");
  EXPECT_EQ(map.rows, (std::vector<std::string>{"1", "2"}));
  EXPECT_EQ(map.columns.size(), 8u);
  EXPECT_NO_THROW(heat_map_svg(map));
}

}  // namespace
}  // namespace mneme::routing_report_test
