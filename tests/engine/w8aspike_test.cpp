// SpikingBrain's W8ASpike at reduced width, beside tools/spikingbrain_reference.py in float64
// (tools/make_w8aspike_golden.py): rounded weights as int8 codes and residuals, spiking inputs and queries,
// an int8 cache, and down_proj that does none of it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "engine/tiny_models.h"
#include "simd/isa.h"

namespace mneme::w8aspike_test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kW8ASpike = "spikingbrain_w8aspike";

double furthest_logit(const std::vector<float>& a, const std::vector<float>& b) {
  double most = 0;
  for (size_t i = 0; i < a.size(); ++i)
    most = std::isfinite(b[i]) ? std::max(most, std::abs(double{a[i]} - b[i])) : HUGE_VAL;
  return most;
}

std::shared_ptr<const Model> load_w8aspike(const std::string& policy) {
  LoadOptions options;
  options.activation = ActivationPolicy::parse(policy);
  return load_tiny(kW8ASpike, options);
}

TEST(W8ASpike, LogitsEqualTheReferenceOnEveryIsaAndForEveryChunk) {
  const Golden golden = load_golden(kW8ASpike);
  const Isa before = active_isa();
  for (const Isa isa : supported_isas()) {
    set_active_isa(isa);
    const auto model = load_tiny(kW8ASpike);
    for (const uint32_t chunk : {1u, 7u, 512u})
      EXPECT_LE(furthest_logit(golden.logits, all_logits(model, golden, chunk)), 1e-4)
          << to_string(isa) << " in chunks of " << chunk;
    EXPECT_EQ(all_logits(model, golden, 1), all_logits(model, golden, 512)) << to_string(isa);
  }
  set_active_isa(before);
}

// The golden logits would notice a missing part.
TEST(W8ASpike, EveryPartOfItMatters) {
  const Golden golden = load_golden(kW8ASpike);
  for (const char* policy : {"float", "int8", "spike", "spike:k=2.9,down=float", "spike:down=int8"})
    EXPECT_GT(furthest_logit(golden.logits, all_logits(load_w8aspike(policy), golden, 512)), 1e-2) << policy;
  EXPECT_EQ(all_logits(load_w8aspike("spike:down=float"), golden, 512),
            all_logits(load_tiny(kW8ASpike), golden, 512));
}

TEST(W8ASpike, CodesAreHeldForSpikesAndFloatsForOthers) {
  const auto layouts = [](const std::shared_ptr<const Model>& model) {
    std::string text;
    for (const TensorDescription& tensor : model->tensors())
      text += tensor.name + ": " + tensor.layout + "\n";
    return text;
  };
  const auto spiking = load_tiny(kW8ASpike);
  EXPECT_THAT(layouts(spiking), HasSubstr("blk.0.attn_q.weight: 8-bit (W8, groups of 128), in stripes"));
  EXPECT_THAT(layouts(spiking), HasSubstr("codes beyond int8"));
  EXPECT_THAT(layouts(spiking), HasSubstr("blk.0.attn_gate_a.weight: 8-bit"));
  EXPECT_THAT(layouts(spiking), HasSubstr("blk.0.ffn_down.weight: f32"));
  const auto floats = load_w8aspike("float");
  EXPECT_THAT(layouts(floats), Not(HasSubstr("W8")));
  EXPECT_LT(spiking->bytes().resident, floats->bytes().resident);
}

TEST(W8ASpike, TheCacheIsInt8WhateverTheSessionAsksFor) {
  const Golden golden = load_golden(kW8ASpike);
  const auto model = load_tiny(kW8ASpike);
  const auto logits = [&](KvType kv) {
    SessionOptions options;
    options.kv = kv;
    Session session(model, options);
    const auto out = session.append(golden.ids);
    return std::vector<float>(out.begin(), out.end());
  };
  EXPECT_EQ(logits(KvType::f32), logits(KvType::int8));
  EXPECT_EQ(logits(KvType::f32), logits(KvType::f16));
  EXPECT_EQ(model->kv_bytes_per_token(4.0), 2u * 64);
}

TEST(W8ASpike, ThePlanSaysWhatSpikes) {
  const std::string plan = load_tiny(kW8ASpike)->describe_plan();
  EXPECT_THAT(plan, HasSubstr("queries spike (k 3), int8 cache"));
  EXPECT_THAT(plan, HasSubstr("attn_gate_a [64x128] 8-bit (W8, groups of 128), in stripes * spikes (k 3)"));
  EXPECT_THAT(plan, HasSubstr("ffn_down [128x64] f32 x16 rows * f32"));
}

TEST(W8ASpike, AQuarterOfTheBytesIsReadForAToken) {
  const double codes = static_cast<double>(load_tiny(kW8ASpike)->bytes_per_token());
  const double floats = static_cast<double>(load_w8aspike("float")->bytes_per_token());
  // down_proj and the head are floats on both sides
  const double rest = 4.0 * (2 * 128 * 64 + 288 * 128);
  EXPECT_LT((codes - rest) / (floats - rest), 0.29);
}

}  // namespace
}  // namespace mneme::w8aspike_test
