// Times of kernels, their cache, and predictions made of them.
#include "cost/roofline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "core/file.h"
#include "core/json.h"
#include "cost/decode_timer.h"
#include "engine/tiny_models.h"
#include "mneme/error.h"
#include "scratch.h"

namespace mneme::roofline_test {
namespace {

class Roofline : public testing::Test {
 protected:
  /// A cache in which every figure that the tests ask for is known.
  void write_cache(const std::map<std::string, double>& seconds) {
    KernelTimes any(1, FigureSource::measure);
    any.job();
    any.save();
    Json json = parse_json(read_text_file(KernelTimes::cache_path(1)), "cache");
    json["seconds"] = seconds;
    std::ofstream(KernelTimes::cache_path(1), std::ios::trunc) << json.dump();
  }
  ScratchHome home_;
};

const std::map<std::string, double>& round_figures() {
  // 10 GB/s, and a microsecond for the end of every stage.
  static const std::map<std::string, double> figures{{"read 8 MiB", 1e-10},
                                                     {"small stages q8_0 int8 8 MiB", 1e-6 + 524288e-10},
                                                     {"large stages q8_0 int8 8 MiB", 1e-6 + 8388608e-10},
                                                     {"product q8_0 int8", 1e-12},
                                                     {"attend f16 2x16", 1e-8},
                                                     {"attend f16 2x16 from 8 MiB", 1e-7},
                                                     {"row int8", 1e-10},
                                                     {"hidden", 1e-10},
                                                     {"stage", 1e-6},
                                                     {"job", 5e-6}};
  return figures;
}

ModelConfig small_config() {
  ModelConfig config;
  config.d_model = 64;
  config.vocab = 256;
  config.context = 4096;
  config.layers.resize(1);
  config.layers[0].mixer.heads = 4;
  config.layers[0].mixer.kv_heads = 2;
  config.layers[0].mixer.head_dim = 16;
  config.layers[0].ffn.hidden = 128;
  return config;
}

TEST_F(Roofline, AddsUpWhatEachStageTakes) {
  write_cache(round_figures());
  KernelTimes times(1, FigureSource::cached);
  const ModelShape shape = shape_of(small_config(), DType::q8_0);
  const PredictedTime time = predict_decode(shape, KvType::f16, 1000, times);
  const PassCost cost = decode_cost(shape, KvType::f16, 1000);
  EXPECT_DOUBLE_EQ(time.read_gbps, 10);
  // Products wait for their bytes; attention over 1000 positions computes: 2 kv heads of 4 parts each.
  const double written = 2 * 2 * 16 * 2, positions = 1000 * written;
  const double products = (cost.total().bytes - positions - written) / 10e9;
  const double attention = 2 * 1000 * 1e-7;
  const double rows = (64 + 64 + 64 + 64) * 1e-10 + 128 * 1e-10;  // of q, o, gate, head; hidden values
  const double stages = 7 * 1e-6 + 5e-6;
  EXPECT_NEAR(time.seconds(), products + attention + rows + stages, 1e-12);
  EXPECT_NEAR(time.stages, stages, 1e-15);
  EXPECT_FALSE(times.measured());
  EXPECT_TRUE(times.cached());
}

TEST_F(Roofline, SlowArithmeticBounds) {
  auto figures = round_figures();
  figures["product q8_0 int8"] = 1e-7;
  write_cache(figures);
  KernelTimes times(1, FigureSource::cached);
  const ModelShape shape = shape_of(small_config(), DType::q8_0);
  const PredictedTime time = predict_decode(shape, KvType::f16, 1, times);
  EXPECT_GT(time.computing, 100 * time.reading);
  EXPECT_NEAR(time.seconds(), time.computing + time.stages, time.seconds() * 0.01);
}

TEST_F(Roofline, LacksWhatNobodyMeasured) {
  auto figures = round_figures();
  figures.erase("hidden");
  write_cache(figures);
  KernelTimes times(1, FigureSource::cached);
  const ModelShape shape = shape_of(small_config(), DType::q8_0);
  EXPECT_THROW(predict_decode(shape, KvType::f16, 1, times), Error);
  KernelTimes automatic(1, FigureSource::automatic);
  EXPECT_GT(predict_decode(shape, KvType::f16, 1, automatic).seconds(), 0);
  EXPECT_TRUE(automatic.measured());
  automatic.save();
  KernelTimes again(1, FigureSource::cached);
  EXPECT_EQ(again.hidden(), automatic.hidden());
}

TEST_F(Roofline, IgnoresADamagedCache) {
  for (const char* text : {"", "{", "[]", "{\"seconds\": {\"job\": 1}}"}) {
    fs::create_directories(KernelTimes::cache_path(1).parent_path());
    std::ofstream(KernelTimes::cache_path(1), std::ios::trunc) << text;
    KernelTimes times(1, FigureSource::cached);
    EXPECT_THROW(times.job(), Error) << text;
  }
  for (const double bad : {-1.0, 0.0, 100.0}) {
    auto figures = round_figures();
    figures["job"] = bad;
    write_cache(figures);
    KernelTimes times(1, FigureSource::cached);
    EXPECT_THROW(times.job(), Error) << bad;
  }
}

TEST_F(Roofline, EveryKernelCanBeTimed) {
  KernelTimes times(2, FigureSource::measure);
  MixerConfig mixer = small_config().layers[0].mixer;
  std::vector<double> seconds{times.stage(),
                              times.job(),
                              times.hidden(),
                              times.row(Linear::Input::int8),
                              times.row(Linear::Input::floats),
                              times.row(Linear::Input::spikes),
                              times.product(PackedType::q8_0, Linear::Input::spikes),
                              times.batch_product(PackedType::q8_0, Linear::Input::spikes),
                              times.attention(KvType::int8, 16, 2),
                              times.batch_attention(KvType::f32, 16, 2)};
  for (const PackedType type : {PackedType::f32, PackedType::f16, PackedType::bf16, PackedType::q4_0,
                                PackedType::q4_k, PackedType::q6_k}) {
    seconds.push_back(times.product(type, Linear::Input::floats));
    seconds.push_back(times.batch_product(type, Linear::Input::floats));
  }
  for (const MixerType type : {MixerType::gla, MixerType::delta}) {
    mixer.type = type;
    seconds.push_back(times.recurrence(mixer));
  }
  for (const double value : seconds) {
    EXPECT_GT(value, 0);
    EXPECT_LT(value, 0.1);
  }
  const double per_byte = times.read(4e6);
  EXPECT_GT(per_byte, 1e-13);
  EXPECT_LT(per_byte, 1e-8);
  for (const Linear::Input input : {Linear::Input::int8, Linear::Input::spikes, Linear::Input::floats}) {
    const KernelTimes::Stream stream = times.stream(PackedType::q8_0, input, 4e6);
    EXPECT_GT(stream.per_byte, 1e-13);
    EXPECT_LT(stream.per_byte, 1e-7);
    EXPECT_GE(stream.per_stage, 0);
  }
  EXPECT_GT(times.stream_attention(KvType::f16, 16, 2, 4e6), 0);
}

TEST(DecodeTimer, DrawsIdsOfTheVocabulary) {
  const auto a = random_ids(1000, 50, 1), b = random_ids(1000, 50, 2);
  EXPECT_NE(a, b);
  EXPECT_EQ(a, random_ids(1000, 50, 1));
  for (const TokenId id : a) EXPECT_THAT(id, testing::AllOf(testing::Ge(0), testing::Lt(50)));
}

TEST(DecodeTimer, TimesARunForEachRepeat) {
  TimerOptions options;
  options.tokens = 4;
  options.repeat = 3;
  for (const char* name : {"llama", "mixers/hybrid"}) {
    const TimedRuns runs = time_decode(load_tiny(name), 20, options);
    ASSERT_GE(runs.seconds.size(), 3u);
    ASSERT_LE(runs.seconds.size(), 18u);
    for (const double seconds : runs.seconds) EXPECT_GT(seconds, 0);
    EXPECT_GT(time_prompt(load_tiny(name), 9, options).reached(), 0);
  }
}

TEST(DecodeTimer, SummarisesRuns) {
  EXPECT_EQ((TimedRuns{{5, 1, 4, 2, 3}}).reached(), 2);
  EXPECT_EQ((TimedRuns{{7}}).reached(), 7);
  EXPECT_EQ(median_of({3, 1, 2}), 2);
  EXPECT_EQ(median_of({4, 1, 2, 3}), 2.5);
  EXPECT_EQ(median_of({}), 0);
}

}  // namespace
}  // namespace mneme::roofline_test
