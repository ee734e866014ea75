// Reports and pictures of the spikes of a small model, against its inputs counted again.
#include "eval/spike_report.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <png.h>

#include <cmath>
#include <limits>

#include "engine/session_impl.h"
#include "eval/spike_pictures.h"
#include "mneme/error.h"
#include "model/projection_probe.h"
#include "simd/isa.h"

namespace mneme::spike_report_test {
namespace {

std::vector<TokenId> some_ids(size_t n) {
  std::vector<TokenId> ids;
  for (size_t i = 0; i < n; ++i) ids.push_back(static_cast<TokenId>((i * 37 + 11) % 256));
  return ids;
}

class SpikeReportTest : public testing::Test {
 protected:
  std::shared_ptr<const Model> model = load(2);
  static std::shared_ptr<const Model> load(int threads) {
    LoadOptions options;
    options.threads = threads;
    return Model::load(MNEME_TEST_DATA "/models/llama", options);
  }
  SpikeReport report(const SpikeReportOptions& options, size_t tokens = 40) {
    return spike_report(model, some_ids(tokens), options);
  }
  std::string error_of(const SpikeReportOptions& options, size_t tokens = 40) {
    try {
      report(options, tokens);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
};

TEST_F(SpikeReportTest, EveryProjectionOfEveryLayerIsCounted) {
  const SpikeReport result = report({.ctx = 16});
  EXPECT_EQ(result.tokens, 40u);
  ASSERT_EQ(result.projections.size(), 2u * 7);
  const std::vector<std::string> names{"q", "k", "v", "o", "gate", "up", "down"};
  for (size_t i = 0; i < 14; ++i) {
    const ProjectionSpikes& p = result.projections[i];
    EXPECT_EQ(p.name, names[i % 7]);
    EXPECT_EQ(p.layer, i / 7);
    EXPECT_EQ(p.histogram->values(), 40u * static_cast<uint64_t>(p.inputs));
    EXPECT_NEAR(p.histogram->mean_size(), 3, 0.35) << p.name;
  }
  EXPECT_EQ(result.projections[6].inputs, 64);
  EXPECT_EQ(result.projections[6].outputs, 32);
  EXPECT_EQ(result.projections[0].histogram, result.projections[2].histogram);
  EXPECT_EQ(result.histogram().values(), 40u * 2 * (32 + 32 + 32 + 64));
}

TEST_F(SpikeReportTest, RecordsAreTheCountsOfWhatWasRead) {
  SpikeReportOptions options{.rule = SpikeRule{2.5f, 0}, .ctx = 16};
  options.record = SpikeReportOptions::Recording{1, {"down", "k"}, 5};
  const SpikeReport result = report(options);
  ASSERT_EQ(result.records.size(), 2u);
  EXPECT_EQ(result.records[0].names, std::vector<std::string>{"k"});
  EXPECT_EQ(result.records[1].names, std::vector<std::string>{"down"});
  for (const SpikeRecord& record : result.records)
    for (int64_t t = 0; t < record.tokens; ++t) {
      const auto at = static_cast<size_t>(t * record.width), width = static_cast<size_t>(record.width);
      std::vector<int32_t> counts(width);
      const float threshold = spike_row(std::span(record.inputs).subspan(at, width), *options.rule, counts);
      EXPECT_FLOAT_EQ(threshold, record.thresholds[static_cast<size_t>(t)]);
      EXPECT_TRUE(
          std::equal(counts.begin(), counts.end(), record.counts.begin() + static_cast<std::ptrdiff_t>(at)));
      EXPECT_GT(std::count_if(counts.begin(), counts.end(), [](int32_t c) { return c != 0; }), 0);
    }
}

TEST_F(SpikeReportTest, ThreadsChangeNothing) {
  const auto one = load(1);
  const SpikeReport a = report({}), b = spike_report(one, some_ids(40), {});
  ASSERT_EQ(a.projections.size(), b.projections.size());
  for (size_t i = 0; i < a.projections.size(); ++i) {
    ASSERT_GT(a.projections[i].histogram->values(), 0u);
    EXPECT_EQ(a.projections[i].histogram->values(), b.projections[i].histogram->values());
    a.projections[i].histogram->for_each(
        [&](int32_t count, uint64_t n) { EXPECT_EQ(b.projections[i].histogram->occurrences(count), n); });
  }
}

TEST_F(SpikeReportTest, SpikingProjectionsAreCountedWithTheirNeuron) {
  LoadOptions load_options;
  load_options.activation = ActivationPolicy::parse("spike:k=2,down=float");
  const auto spiking = Model::load(MNEME_TEST_DATA "/models/llama", load_options);
  for (const ProjectionSpikes& p : spike_report(spiking, some_ids(40), {}).projections)
    EXPECT_EQ(p.rule.k, p.name == "down" ? 3.0f : 2.0f) << p.name;
  for (const ProjectionSpikes& p : spike_report(spiking, some_ids(40), {.rule = SpikeRule{4, 0}}).projections)
    EXPECT_EQ(p.rule.k, 4.0f) << p.name;
}

TEST_F(SpikeReportTest, TheEventDrivenWayTakesSilenceAndALayout) {
  const bool here = gaps_are_dear();
  set_gaps_are_dear(false);
  const auto q8 = Model::load(MNEME_TEST_DATA "/models/llama_q8_0.gguf");
  for (const ProjectionSpikes& p : spike_report(q8, some_ids(40), {.rule = SpikeRule{1, 0}}).projections)
    EXPECT_EQ(p.event_tokens, 1.0) << p.name;  // about two fifths are silent
  for (const ProjectionSpikes& p : spike_report(q8, some_ids(40), {.rule = SpikeRule{64, 0}}).projections)
    EXPECT_LT(p.event_tokens, 0.2) << p.name;
  for (const ProjectionSpikes& p : report({.rule = SpikeRule{1, 0}}).projections)  // F32 has no stripes
    EXPECT_EQ(p.event_tokens, 0.0) << p.name;
  set_gaps_are_dear(true);
  for (const ProjectionSpikes& p : spike_report(q8, some_ids(40), {.rule = SpikeRule{1, 0}}).projections)
    EXPECT_LT(p.event_tokens, 0.2) << p.name;
  set_gaps_are_dear(here);
}

TEST_F(SpikeReportTest, MeansWeighMultiplications) {
  const SpikeReport result = report({});
  // q 32x32, k and v 16x32, o 32x32, gate and up 64x32, down 32x64 of each layer
  const double down = result.mean([](const ProjectionSpikes& p) { return p.name == "down" ? 1.0 : 0.0; });
  EXPECT_DOUBLE_EQ(down, 2048.0 / (1024 + 512 + 512 + 1024 + 2048 + 2048 + 2048));
}

TEST_F(SpikeReportTest, BadInputIsNamed) {
  EXPECT_NE(error_of({}, 0).find("empty"), std::string::npos);
  EXPECT_NE(error_of({.rule = SpikeRule{0, 0}}).find("k of"), std::string::npos);
  EXPECT_NE(error_of({.ctx = 0}).find("ctx"), std::string::npos);
  EXPECT_NE(error_of({.ctx = 4096}, 4096).find("context"), std::string::npos);
  SpikeReportOptions options;
  options.record = SpikeReportOptions::Recording{2, {}, 1};
  EXPECT_NE(error_of(options).find("layers 0 to 1"), std::string::npos);
  options.record = SpikeReportOptions::Recording{1, {"dwon"}, 1};
  EXPECT_NE(error_of(options).find("down"), std::string::npos);
  options.record = SpikeReportOptions::Recording{1, {}, 41};
  EXPECT_NE(error_of(options).find("41 tokens"), std::string::npos);
  EXPECT_THROW(spike_report(model, std::vector<TokenId>{100000}, {}), Error);
}

SpikeRecord drawn() {
  SpikeRecord record{3, {"q", "k"}, {}, 4, 2, {}, {0, 1, -2, 5, -1, 0, 0, 3}, {1, 1}};
  record.inputs.assign(8, 0.0f);
  return record;
}

size_t boxes(const std::string& svg, const std::string& fill) {
  size_t n = 0;
  for (size_t at = svg.find(fill); at != std::string::npos; at = svg.find(fill, at + 1)) ++n;
  return n;
}

TEST(SpikePicturesTest, RasterHasABoxForEachSpike) {
  const std::string up = "fill=\"#1f5c99\"", down = "fill=\"#cc5220\"";
  const std::string bits = spike_raster(drawn(), SpikeCode::bidirectional, 128, PictureFormat::svg);
  EXPECT_EQ(boxes(bits, up), 1u + 2 + 2);  // 1, 5, 3
  EXPECT_EQ(boxes(bits, down), 1u + 1);    // -2, -1
  EXPECT_NE(bits.find("layer 3, input of q, k: bidirectional spikes"), std::string::npos);
  EXPECT_NE(bits.find("token, 3 steps each"), std::string::npos);
  const std::string counts =
      spike_raster(drawn(), SpikeCode::ternary, 3, PictureFormat::svg);  // not the last neuron
  EXPECT_EQ(boxes(counts, up), 1u);
  EXPECT_EQ(boxes(counts, down), 2u + 1);
  const std::string twos = spike_raster(drawn(), SpikeCode::twos_complement, 128, PictureFormat::svg);
  EXPECT_EQ(boxes(twos, up), 1u + 3 + 2 + 4 + 2);  // 0001, 1110, 0101, 1111, 0011
  EXPECT_EQ(boxes(twos, down), 0u);
}

TEST(SpikePicturesTest, PngOfTheSameSize) {
  const std::string png = spike_raster(drawn(), SpikeCode::bidirectional, 128, PictureFormat::png);
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  ASSERT_NE(png_image_begin_read_from_memory(&image, png.data(), png.size()), 0) << image.message;
  const std::string svg = spike_raster(drawn(), SpikeCode::bidirectional, 128, PictureFormat::svg);
  EXPECT_NE(svg.find(fmt::format("width=\"{}\" height=\"{}\"", image.width, image.height)),
            std::string::npos);
  png_image_free(&image);
}

TEST(SpikePicturesTest, WhatCannotBeDrawnIsAnError) {
  EXPECT_THROW(spike_raster(drawn(), SpikeCode::binary, 128, PictureFormat::svg), Error);
  EXPECT_THROW(spike_raster(drawn(), SpikeCode::ternary, 0, PictureFormat::svg), Error);
  SpikeRecord wide = drawn();
  wide.counts[0] = 20000;
  EXPECT_THROW(spike_raster(wide, SpikeCode::ternary, 128, PictureFormat::svg), Error);
  EXPECT_FALSE(spike_raster(wide, SpikeCode::bidirectional, 128, PictureFormat::svg).empty());
  EXPECT_THROW(spike_histograms("t", {}, SpikeCode::ternary, PictureFormat::svg), Error);
}

TEST(SpikePicturesTest, HistogramsSayHowManySpikes) {
  SpikePanel panel{"down", {}};
  panel.histogram.add(drawn().counts);
  const std::vector<SpikePanel> panels{panel, panel};
  const std::string svg = spike_histograms("a <model>", panels, SpikeCode::bidirectional, PictureFormat::svg);
  EXPECT_NE(svg.find("a &lt;model&gt;"), std::string::npos);
  EXPECT_EQ(boxes(svg, "down: T = 3, 0.88 spikes a neuron, 29.2 % of slots"), 2u);
  EXPECT_EQ(boxes(svg, ">37.5</text>"), 2u * 2);  // three silent of eight, three with one spike
  EXPECT_EQ(boxes(svg, ">25.0</text>"), 2u);      // two with two
  EXPECT_THROW(spike_histograms("t", panels, SpikeCode::unsigned_, PictureFormat::svg), Error);
}

}  // namespace
}  // namespace mneme::spike_report_test
