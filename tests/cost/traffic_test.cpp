#include "cost/traffic.h"

#include <gtest/gtest.h>

namespace mneme {
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

TEST(Traffic, PrefillSharesTheWeightsOfAPass) {
  const ModelConfig config = two_layers();
  const double layer = 3 * 2 * 64 * 2;
  EXPECT_DOUBLE_EQ(prefill_bytes_per_token(config, KvType::f16, 1'000'000, 0, 40, 20),
                   (2e6 + 2 * layer * (20 + 40)) / 40 + 2 * layer);
}

}  // namespace
}  // namespace mneme
