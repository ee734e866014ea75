// Counts of multiply-adds and bytes: by hand for a tiny config, by brute force for sums over a prompt, and
// against what the loader and the plan say of loaded models of every kind.
#include "cost/work.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "core/random.h"
#include "cost/traffic.h"
#include "engine/tiny_models.h"
#include "mneme/error.h"
#include "simd/spike_product.h"

namespace mneme::work_test {
namespace {

// d_model 64, one layer of 4 query and 2 key-value heads of 16, a feed-forward of 128, 256 tokens.
ModelConfig tiny_config() {
  ModelConfig config;
  config.d_model = 64;
  config.vocab = 256;
  config.context = 1 << 20;
  config.layers.resize(1);
  MixerConfig& mixer = config.layers[0].mixer;
  mixer.heads = 4;
  mixer.kv_heads = 2;
  mixer.head_dim = 16;
  config.layers[0].ffn.hidden = 128;
  return config;
}

constexpr double kProjectionsByHand = 64 * 64 + 2 * 32 * 64 + 64 * 64;  // q, k and v, o
constexpr double kFeedForwardByHand = 3 * 128 * 64;
constexpr double kHeadByHand = 256 * 64;

TEST(Work, CountsADenseLayerByHand) {
  const ModelShape shape = shape_of(tiny_config(), DType::q8_0);
  const PassCost cost = decode_cost(shape, KvType::f16, 100);
  EXPECT_EQ(cost.position_macs, 2 * 4 * 16 * 100);
  EXPECT_EQ(cost[CostPart::attention].macs, kProjectionsByHand + 2 * 4 * 16 * 100);
  EXPECT_EQ(cost[CostPart::feed_forward].macs, kFeedForwardByHand);
  EXPECT_EQ(cost[CostPart::memory].macs, 0);
  EXPECT_EQ(cost[CostPart::head].macs, kHeadByHand);
  EXPECT_EQ(cost.int8_macs, kProjectionsByHand + kFeedForwardByHand + kHeadByHand);
  EXPECT_EQ(cost.float_macs, cost.position_macs);
  EXPECT_EQ(cost.total().macs, cost.int8_macs + cost.float_macs);
  // Q8_0 in memory: a code a weight and an f16 scale for 32 of them. Keys and values of 100 positions are
  // read and one is written.
  const double bytes_a_weight = 1 + 2.0 / 32;
  EXPECT_EQ(cost[CostPart::feed_forward].bytes, kFeedForwardByHand * bytes_a_weight);
  EXPECT_EQ(cost[CostPart::head].bytes, kHeadByHand * bytes_a_weight);
  EXPECT_EQ(cost[CostPart::attention].bytes,
            kProjectionsByHand * bytes_a_weight + 2 * 2 * 16 * sizeof(uint16_t) * (100 + 1));
  // The embedding of an untied model is held, and only looked up. Norms: two of the layer, one at the end.
  EXPECT_EQ(static_cast<double>(shape.resident),
            (kProjectionsByHand + kFeedForwardByHand + 2 * kHeadByHand) * bytes_a_weight + 3 * 64 * 4);
  EXPECT_EQ(static_cast<double>(shape.disk),
            (kProjectionsByHand + kFeedForwardByHand + 2 * kHeadByHand) * 34 / 32 + 3 * 64 * 4);
}

TEST(Work, CountsEveryMixerByHand) {
  MixerConfig mixer = tiny_config().layers[0].mixer;
  EXPECT_EQ(position_macs(mixer, 7, 1000), 2 * 64 * 1007);
  mixer.type = MixerType::window;
  mixer.window = 100;
  mixer.sinks = 4;
  EXPECT_EQ(position_macs(mixer, 0, 50), 2 * 64 * 50);
  EXPECT_EQ(position_macs(mixer, 0, 1000), 2 * 64 * 104);
  mixer.type = MixerType::sparse;
  mixer.block = 64;
  mixer.top_k = 2;
  EXPECT_EQ(position_macs(mixer, 0, 1000), 64 * (2 * (128 + 4) + 15));  // and 15 mean keys
  mixer.type = MixerType::gla;
  EXPECT_EQ(position_macs(mixer, 0, 1000), 2 * 16 * 16 * (2 + 2));  // 2 states, 2 queries each
  mixer.type = MixerType::delta;
  EXPECT_EQ(position_macs(mixer, 0, 1000), 2 * 16 * 16 * (3 + 2));
}

TEST(Work, APromptIsTheSumOfItsTokens) {
  std::vector<MixerConfig> mixers(5, tiny_config().layers[0].mixer);
  mixers[1].type = MixerType::window;
  mixers[1].window = 37;
  mixers[1].sinks = 3;
  mixers[2].type = MixerType::sparse;
  mixers[2].block = 64;
  mixers[2].top_k = 2;
  mixers[3].type = MixerType::gla;
  mixers[4].type = MixerType::delta;
  for (const MixerConfig& mixer : mixers)
    for (const uint64_t n : {1u, 2u, 36u, 63u, 64u, 65u, 200u, 1000u}) {
      double sum = 0;
      for (uint64_t t = 1; t <= n; ++t) sum += position_macs(mixer, 5, t);
      EXPECT_DOUBLE_EQ(prompt_position_macs(mixer, 5, n), sum) << static_cast<int>(mixer.type) << " " << n;
    }
}

TEST(Work, BytesOfAPromptAreThoseOfItsPasses) {
  ModelConfig config = tiny_config();
  config.layers.resize(3, config.layers[0]);
  config.layers[1].mixer.type = MixerType::window;
  config.layers[1].mixer.window = 100;
  config.layers[2].mixer.type = MixerType::sparse;
  config.layers[2].mixer.block = 192;
  config.layers[2].mixer.top_k = 2;
  config.sink_tokens = 3;
  for (const uint64_t chunk : {1u, 7u, 64u, 500u})
    for (const uint64_t depth : {0u, 50u, 1000u})
      for (const uint64_t tokens : {1u, 64u, 999u, 1000u}) {
        double bytes = 0;
        for (uint64_t done = 0; done < tokens;) {
          done += std::min(chunk, tokens - done);
          bytes += 12345 + static_cast<double>(kv_bytes_read(config, KvType::int8, depth + done));
        }
        const auto n = static_cast<double>(tokens);
        EXPECT_DOUBLE_EQ(prefill_bytes_per_token(config, KvType::int8, 12345, depth, tokens, chunk),
                         bytes / n + static_cast<double>(kv_bytes_written(config, KvType::int8)))
            << chunk << " " << depth << " " << tokens;
      }
}

TEST(Work, ExpertsThatAPassReadsAreThoseOfDrawnChoices) {
  constexpr uint64_t kExperts = 16, kChosen = 3;
  WeightShape weight;
  weight.copies = kExperts;
  weight.used = kChosen;
  Pcg64 random(7);
  for (const int rows : {1, 2, 5, 20, 400}) {
    double sum = 0;
    for (int draw = 0; draw < 2000; ++draw) {
      std::set<uint64_t> read;
      for (int row = 0; row < rows; ++row) {
        std::set<uint64_t> chosen;
        while (chosen.size() < kChosen) chosen.insert(random.below(kExperts));
        read.insert(chosen.begin(), chosen.end());
      }
      sum += static_cast<double>(read.size());
    }
    EXPECT_NEAR(weight.touched(rows), sum / 2000, 0.1) << rows;
  }
  const ModelShape mixture = shape_of(*load_tiny("qwen3_moe"));  // 3 of 6 experts in both layers
  const double expert = 3.0 * 32 * 32 * 2;                       // bf16
  EXPECT_EQ(mixture.further_expert_bytes(1), 0);
  EXPECT_NEAR(mixture.further_expert_bytes(2), 2 * 1.5 * expert, 1);
  EXPECT_NEAR(mixture.further_expert_bytes(1000), 2 * 3 * expert, 1);
  EXPECT_EQ(shape_of(tiny_config(), DType::q8_0).further_expert_bytes(1000), 0);
}

TEST(Work, ALongPromptTakesNoTimeToCount) {
  const ModelShape shape = shape_of(tiny_config(), DType::q4_0);
  const uint64_t n = uint64_t{1} << 30;
  const PassCost cost = prompt_cost(shape, KvType::f16, n, 1);
  const auto x = static_cast<double>(n);
  EXPECT_DOUBLE_EQ(cost.position_macs, 2.0 * 4 * 16 * x * (x + 1) / 2);
}

TEST(Work, SharesOfListedColumnsAreThoseOfDrawnOnes) {
  EXPECT_EQ(listed_share(0), 0);
  EXPECT_EQ(listed_share(1), 1);
  Pcg64 random(3);
  for (const double active : {0.02, 0.3, 0.8}) {
    double listed = 0;
    constexpr int kBlocks = 20000;
    for (int block = 0; block < kBlocks; ++block) {
      int fired = 0;
      for (int i = 0; i < 32; ++i) fired += random.uniform() < active ? 1 : 0;
      listed += (fired + 3) / 4 * 4 / 32.0;
    }
    EXPECT_NEAR(listed_share(active), listed / kBlocks, 0.004) << active;
  }
}

TEST(Work, SilentInputsAreNotReadWhereTheyAreMany) {
  ModelConfig config = tiny_config();
  config.layers[0].activation = ActivationPolicy(Activation::spike);
  ModelShape shape = shape_of(config, DType::q8_0);
  const double all = shape.decode_weight_bytes();
  for (WeightShape& weight : shape.weights)
    if (weight.input == Linear::Input::spikes) weight.active = 0.25;
  const PassCost cost = decode_cost(shape, KvType::f16, 1);
  EXPECT_EQ(cost.spike_macs, (kProjectionsByHand + kFeedForwardByHand) / 4);
  EXPECT_EQ(cost.spike_weights, kProjectionsByHand + kFeedForwardByHand);
  EXPECT_EQ(cost.int8_macs, kHeadByHand);  // the head does not spike
  EXPECT_LT(shape.decode_weight_bytes(), 0.6 * all);
  for (WeightShape& weight : shape.weights) weight.active = 0.99;  // the dense way is faster
  EXPECT_EQ(shape.decode_weight_bytes(), all);
  // Types that have no stripes compute silent inputs like others.
  shape = shape_of(config, DType::f16);
  for (WeightShape& weight : shape.weights) weight.active = 0.25;
  EXPECT_EQ(decode_cost(shape, KvType::f16, 1).total().macs,
            kProjectionsByHand + kFeedForwardByHand + kHeadByHand + 2 * 64);
}

TEST(Work, MemoryModulesReadRowsAndProject) {
  ModelConfig config = tiny_config();
  EngramTableConfig table;
  table.compressed_vocab = 200;
  table.heads = 4;
  table.head_dim = 8;
  table.base_rows = {1000, 2000};
  table.layer_ids = {0};
  table.format = RowFormat::bf16;
  config.tables["facts"] = table;
  config.layers[0].memory.emplace();
  config.layers[0].memory->table = "facts";
  config.layers[0].memory->conv.emplace();
  const ModelShape shape = shape_of(config, DType::f16);
  const PassCost cost = decode_cost(shape, KvType::f16, 1);
  const double rows = 2 * 4, embedding = rows * 8;
  EXPECT_EQ(shape.memory_row_bytes(), rows * 8 * 2);
  EXPECT_EQ(cost[CostPart::memory].macs, 2 * 64 * embedding + 64 * 4);
  EXPECT_EQ(cost[CostPart::memory].bytes, 2 * 64 * embedding * 2 + rows * 8 * 2);
  EXPECT_GE(shape.table_rows, 4 * 3000u);
  EXPECT_LT(shape.table_rows, 4 * 3200u);
  EXPECT_EQ(shape.table_bytes, shape.table_rows * 16);
}

TEST(Work, RefusesAnActivationThatCannotBeComputed) {
  ModelConfig config = tiny_config();
  config.layers[0].ffn.hidden = 100;
  EXPECT_THROW(shape_of(config, DType::f16, ActivationPolicy(Activation::spike)), Error);
}

class WorkOfModel : public testing::TestWithParam<const char*> {};

TEST_P(WorkOfModel, IsWhatTheLoaderAndThePlanSay) {
  const auto model = load_tiny(GetParam());
  const ModelShape shape = shape_of(*model);
  EXPECT_EQ(shape.decode_weight_bytes(), static_cast<double>(model->bytes_per_token()));
  EXPECT_EQ(shape.resident, model->bytes().resident);
  EXPECT_EQ(shape.disk, model->bytes().disk);
  double stages = 0;
  for (const double of_part : decode_stages(model->config())) stages += of_part;
  EXPECT_EQ(stages, static_cast<double>(model->impl().plan.decode.size()));
  // Bytes of a token are the ones that `mneme bench` takes its share of bandwidth from.
  EXPECT_DOUBLE_EQ(decode_cost(shape, KvType::f16, 21).total().bytes,
                   decode_bytes_per_token(model->config(), KvType::f16, model->bytes_per_token(), 20, 1));
}

INSTANTIATE_TEST_SUITE_P(, WorkOfModel,
                         testing::Values("llama", "llama.gguf", "llama_q8_0.gguf", "qwen2", "qwen3.gguf",
                                         "gemma3", "mistral", "spikingbrain", "mixers/delta",
                                         "mixers/gla_low_rank", "mixers/gla_matrix", "mixers/gla_tied",
                                         "mixers/hybrid", "mixers/parallel", "mixers/parallel_softmax",
                                         "mixers/sinks_hybrid", "mixers/sparse", "mixers/sparse_sinks",
                                         "mixers/window_plus_one", "mixtral", "qwen2_moe", "qwen3_moe",
                                         "dots1", "mixers/moe_softmax", "mixers/moe_adaptive"),
                         [](const auto& p) {
                           std::string name = p.param;
                           for (char& c : name)
                             if (c == '/' || c == '.') c = '_';
                           return name;
                         });

TEST(Work, ALoadedModelOfSpikesIsCountedInStripes) {
  LoadOptions options;
  options.activation = ActivationPolicy(Activation::spike);
  const auto model = load_tiny("llama_q8_0.gguf", options);
  const ModelShape shape = shape_of(*model, options.activation);
  EXPECT_EQ(shape.resident, model->bytes().resident);
  EXPECT_EQ(shape.decode_weight_bytes(), static_cast<double>(model->bytes_per_token()));
}

TEST(Work, CodesOfGroupsAreCountedAsTheLoaderHoldsThem) {
  const auto model = load_tiny("spikingbrain_w8aspike");
  const ModelShape shape = shape_of(*model);
  int codes = 0;
  for (const WeightShape& weight : shape.weights) codes += weight.w.type == PackedType::w8 ? 1 : 0;
  EXPECT_GT(codes, 0);
  // What codes have beyond int8 is held beside them, and depends on the values.
  const auto loaded = static_cast<double>(model->bytes().resident);
  EXPECT_LE(static_cast<double>(shape.resident), loaded);
  EXPECT_NEAR(static_cast<double>(shape.resident) / loaded, 1, 0.02);
}

TEST(Work, ARoundedCacheIsInt8WhateverTheSessionAsksFor) {
  ModelConfig config = tiny_config();
  const uint64_t own = kv_bytes_written(config, KvType::int8);
  EXPECT_EQ(own, 2 * 2 * (16 + sizeof(float)));  // 2 heads of 16 codes and a scale; keys and values
  config.layers[0].mixer.kv_int8 = true;
  EXPECT_EQ(kv_bytes_written(config, KvType::f32), own);
  EXPECT_EQ(kv_bytes_read(config, KvType::f16, 9), 9 * own);
}

TEST(Work, RoundedInputsAreFloatsToTheKernels) {
  const ModelShape shape = shape_of(tiny_config(), DType::q8_0, ActivationPolicy(Activation::int4));
  for (const WeightShape& weight : shape.weights)
    EXPECT_EQ(weight.input == Linear::Input::int4_floats, weight.part != CostPart::head) << weight.name;
}

}  // namespace
}  // namespace mneme::work_test
