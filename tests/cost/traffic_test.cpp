#include "cost/traffic.h"

#include <gtest/gtest.h>

namespace mneme::traffic_test {
namespace {

ModelConfig two_layers() {
  ModelConfig config;
  LayerConfig full;
  full.mixer.type = MixerType::full;
  full.mixer.kv_heads = 3;
  full.mixer.head_dim = 64;
  LayerConfig window = full;
  window.mixer.type = MixerType::window;
  window.mixer.window = 100;
  window.mixer.sinks = 4;
  config.layers = {full, window};
  return config;
}

TEST(Traffic, CountsKeysValuesAndScales) {
  const ModelConfig config = two_layers();
  EXPECT_EQ(kv_bytes_written(config, KvType::f16), 2u * 3 * 2 * 64 * 2);
  EXPECT_EQ(kv_bytes_written(config, KvType::f32), 2u * 3 * 2 * 64 * 4);
  EXPECT_EQ(kv_bytes_written(config, KvType::int8), 2u * 3 * 2 * (64 + 4));
}

TEST(Traffic, WindowsBoundWhatIsRead) {
  const ModelConfig config = two_layers();
  const uint64_t layer = 3 * 2 * 64 * 2;
  EXPECT_EQ(kv_bytes_read(config, KvType::f16, 50), layer * (50 + 50));
  EXPECT_EQ(kv_bytes_read(config, KvType::f16, 1000), layer * (1000 + 104));
}

TEST(Traffic, DecodeReadsWeightsAndAGrowingCache) {
  const ModelConfig config = two_layers();
  const double layer = 3 * 2 * 64 * 2;
  // Two tokens from depth 10 see 11 and 12 positions: 11.5 on average, in both layers.
  EXPECT_DOUBLE_EQ(decode_bytes_per_token(config, KvType::f16, 1'000'000, 10, 2),
                   1e6 + 2 * layer + 2 * layer * 11.5);
}

TEST(Traffic, RecurrencesHaveAStateInsteadOfACache) {
  ModelConfig config = two_layers();
  config.layers[0].mixer.type = MixerType::gla;
  const MixerConfig gla = config.layers[0].mixer;
  config.layers.emplace_back();
  MixerConfig& parallel = config.layers[2].mixer;
  parallel.type = MixerType::parallel;
  parallel.of = {gla, config.layers[1].mixer};
  parallel.of[1].edge = WindowEdge::plus_one;
  const uint64_t state = 3 * 64 * 64 * 4, row = 3 * 2 * 64 * 2;
  EXPECT_EQ(state_bytes(config), 2 * state);
  EXPECT_EQ(kv_bytes_written(config, KvType::f16), 2 * row);
  EXPECT_EQ(kv_bytes_read(config, KvType::f16, 1'000'000), row * (104 + 105));
  EXPECT_DOUBLE_EQ(decode_bytes_per_token(config, KvType::f16, 1000, 1'000'000, 1),
                   static_cast<double>(1000 + 2 * row + 4 * state + row * (104 + 105)));
  config.layers[1].mixer.type = MixerType::sparse;
  const uint64_t mean = 3 * 64 * 4;  // of a block's keys
  config.layers[1].mixer.block = 128;
  config.layers[1].mixer.top_k = 4;
  EXPECT_EQ(kv_bytes_read(config, KvType::f16, 300), row * (300 + 105) + 2 * mean);
  EXPECT_EQ(kv_bytes_read(config, KvType::f16, 3000), row * (512 + 4 + 105) + 23 * mean);
  EXPECT_EQ(kv_bytes_held(config, KvType::f16, 3000), row * (3000 + 105) + 23 * mean);
  config.sink_tokens = 7;
  EXPECT_EQ(kv_bytes_read(config, KvType::f16, 3000), row * (512 + 4 + 105 + 2 * 7) + 23 * mean);
  EXPECT_EQ(kv_bytes_held(config, KvType::f16, 3000), row * (3000 + 105 + 2 * 7) + 23 * mean);
}

TEST(Traffic, PrefillSharesTheWeightsOfAPass) {
  const ModelConfig config = two_layers();
  const double layer = 3 * 2 * 64 * 2;
  EXPECT_DOUBLE_EQ(prefill_bytes_per_token(config, KvType::f16, 1'000'000, 0, 40, 20),
                   (2e6 + 2 * layer * (20 + 40)) / 40 + 2 * layer);
}

}  // namespace
}  // namespace mneme::traffic_test
