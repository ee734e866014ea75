// Calibration of a small model: what it finds is what the model then does, on any number of threads.
#include "eval/spike_calibration.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

#include "core/fail.h"
#include "engine/session_sequence.h"
#include "eval/perplexity.h"
#include "eval/soft_targets.h"
#include "model/tunable_model.h"
#include "scratch.h"

namespace mneme::spike_calibration_test {
namespace {

const std::string kCalibratedModel = MNEME_TEST_DATA "/models/llama_q8_0.gguf";

std::vector<TokenId> calibration_ids(size_t n) {
  std::vector<TokenId> ids;
  for (size_t i = 0; i < n; ++i) ids.push_back(static_cast<TokenId>((i * i * 7 + i * 31 + 11) % 256));
  return ids;
}

CalibrationOptions small_calibration() {
  CalibrationOptions options;
  options.ctx = 32;
  options.probe_tokens = 64;
  return options;
}

LoadOptions with_threads(int threads) {
  LoadOptions load;
  load.threads = threads;
  return load;
}

Calibration calibrated(const CalibrationOptions& options, int threads = 2) {
  return calibrate_spikes(kCalibratedModel, with_threads(threads), calibration_ids(256), options);
}

std::string refused(const CalibrationOptions& options, const std::string& model = kCalibratedModel,
                    size_t tokens = 256, const LoadOptions& load = {}) {
  try {
    calibrate_spikes(model, load, calibration_ids(tokens), options);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

double perplexity_of(const std::shared_ptr<const Model>& model) {
  SessionRunner runner(model, {.max_context = 32, .max_rollback = 0});
  const std::vector<TokenId> ids = calibration_ids(256);
  PerplexityOptions request;
  request.ctx = 32;
  return perplexity(runner, stream_ids(ids, -1), request).ppl;
}

TEST(SpikeCalibrationTest, WhatIsFoundIsWhatTheModelDoes) {
  const Calibration found = calibrated(small_calibration());
  EXPECT_LE(found.ppl_after, found.ppl_before * 1.02);
  EXPECT_DOUBLE_EQ(found.ppl_before, perplexity_of(Model::load(kCalibratedModel)));
  const TunableModel model(kCalibratedModel, {}, found.layers);
  EXPECT_NEAR(found.ppl_after / perplexity_of(model.model()), 1, 1e-12);
  ASSERT_EQ(found.units.size(), 2u * 4);
  EXPECT_EQ(found.units[0].projections, (std::vector{Projection::q, Projection::k, Projection::v}));
  EXPECT_EQ(found.units[2].projections, (std::vector{Projection::gate, Projection::up}));
  double silent = 0, bytes = 0;
  for (const CalibratedUnit& unit : found.units) {
    silent += unit.bytes * unit.neuron.silent;
    bytes += unit.bytes;
    for (const Projection p : unit.projections)
      EXPECT_EQ(found.layers[unit.layer][p],
                ActivationConfig(Activation::spike, unit.neuron.k, unit.neuron.dead_zone));
  }
  EXPECT_GT(silent / bytes, 0.1);
  EXPECT_EQ(found.layers[0][Projection::memory], ActivationConfig());
  EXPECT_LT(found.curve.front().silent, 0.05);  // without dead zones
}

TEST(SpikeCalibrationTest, ThreadsChangeNoBit) {
  CalibrationOptions options = small_calibration();
  options.rounds = 2;
  options.share = false;
  options.curve = {0.1};
  const Calibration a = calibrated(options, 1), b = calibrated(options, 2);
  EXPECT_EQ(a.layers, b.layers);
  EXPECT_EQ(a.ppl_after, b.ppl_after);
  ASSERT_EQ(a.units.size(), 2u * 7);
  for (size_t u = 0; u < a.units.size(); ++u) EXPECT_EQ(a.units[u].sensitivity, b.units[u].sensitivity);
  ASSERT_EQ(a.curve.size(), b.curve.size());
  for (size_t i = 0; i < a.curve.size(); ++i) EXPECT_EQ(a.curve[i].ppl, b.curve[i].ppl);
}

TEST(SpikeCalibrationTest, MoreBudgetIsNotLessSilent) {
  double before = 0;
  for (const double budget : {0.002, 0.02, 0.2}) {
    CalibrationOptions options = small_calibration();
    options.budget = budget;
    const Calibration found = calibrated(options);
    EXPECT_LE(found.ppl_after, found.ppl_before * (1 + budget));
    double silent = 0;
    for (const CalibratedUnit& unit : found.units) silent += unit.bytes * unit.neuron.silent;
    EXPECT_GE(silent, before) << budget;
    before = silent;
  }
}

TEST(SpikeCalibrationTest, OnlyTheProjectionsAskedFor) {
  CalibrationOptions options = small_calibration();
  options.projections = {Projection::up, Projection::k};
  options.ks = {5};
  const Calibration found = calibrated(options);
  ASSERT_EQ(found.units.size(), 4u);
  for (const ActivationPolicy& layer : found.layers) {
    EXPECT_EQ(layer[Projection::up].type, Activation::spike);
    EXPECT_EQ(layer[Projection::up].k, 5);
    EXPECT_EQ(layer[Projection::gate], ActivationConfig());
    EXPECT_EQ(layer[Projection::q], ActivationConfig());
  }
}

TEST(SpikeCalibrationTest, BadInputIsNamed) {
  CalibrationOptions options = small_calibration();
  for (const double bad : {0.0, -0.1, std::numeric_limits<double>::quiet_NaN(), 11.0}) {
    options.budget = bad;
    EXPECT_NE(refused(options).find("budget"), std::string::npos);
  }
  options = small_calibration();
  EXPECT_NE(refused(options, kCalibratedModel, 0).find("0 tokens"), std::string::npos);
  EXPECT_NE(refused(options, kCalibratedModel, 63).find("63 tokens"), std::string::npos);
  EXPECT_NE(refused(options, MNEME_TEST_DATA "/models/llama").find("type f32"), std::string::npos);
  LoadOptions forced;
  forced.activation = ActivationPolicy::parse("spike");
  EXPECT_NE(refused(options, kCalibratedModel, 256, forced).find("forced"), std::string::npos);
  options.ks = {100};
  EXPECT_NE(refused(options).find("k of 100"), std::string::npos);
  options = small_calibration();
  options.projections = {Projection::memory};
  EXPECT_NE(refused(options).find("memory"), std::string::npos);
  options.projections = {};
  EXPECT_NE(refused(options).find("projections"), std::string::npos);
  options = small_calibration();
  options.ctx = 1024;
  EXPECT_NE(refused(options, kCalibratedModel, 4096).find("context"), std::string::npos);
  options = small_calibration();
  options.ks = {0.01};  // next to nothing fires
  options.budget = 1e-9;
  EXPECT_NE(refused(options).find("cannot be met"), std::string::npos);
  CancelToken cancel;
  cancel.cancel();
  options = small_calibration();
  options.cancel = &cancel;
  EXPECT_THROW(calibrate_spikes(kCalibratedModel, {}, calibration_ids(256), options), Error);
}

TEST(SpikeCalibrationTest, OfAMixtureAllButDownIsCalibrated) {
  for (const char* name : {"qwen3_moe", "qwen2_moe", "dots1"}) {  // dots1 has a dense layer, too
    LoadOptions load = with_threads(2);
    load.type = "q8_0";
    const std::string path = fmt::format("{}/models/{}", MNEME_TEST_DATA, name);
    const auto model = Model::load(path, load);
    CalibrationOptions options = small_calibration();
    options.budget = 0.5;
    const Calibration found = calibrate_spikes(path, load, calibration_ids(256), options);
    std::set<Projection> seen;
    double gate_bytes = 0;
    for (const CalibratedUnit& unit : found.units)
      for (const Projection projection : unit.projections) {
        seen.insert(projection);
        if (projection == Projection::gate && model->impl().layers[unit.layer].moe) gate_bytes = unit.bytes;
      }
    EXPECT_TRUE(seen.contains(Projection::gate) && seen.contains(Projection::up)) << name;
    EXPECT_FALSE(seen.contains(Projection::down)) << name;
    const size_t last = model->impl().layers.size() - 1;
    const MoeWeights& moe = *model->impl().layers[last].moe;
    const double one = static_cast<double>(matrix_bytes(moe.experts.front().gate.w));
    const double shared =
        moe.shared.gate.w.rows > 0 ? static_cast<double>(matrix_bytes(moe.shared.gate.w)) : 0;
    EXPECT_DOUBLE_EQ(gate_bytes, 2 * (one * model->config().layers[last].ffn.top_k + shared)) << name;
    EXPECT_EQ(found.layers[last][Projection::gate].type, Activation::spike);
    EXPECT_NE(found.layers[last][Projection::down].type, Activation::spike);
  }
}

TEST(SpikeCalibrationTest, ExpertsOnDiskAreRefused) {
  const ScratchHome home;  // the experts' file is made there
  LoadOptions on_disk;
  on_disk.experts = Placement::mmap;
  on_disk.type = "q8_0";
  EXPECT_NE(refused(small_calibration(), MNEME_TEST_DATA "/models/qwen3_moe", 256, on_disk)
                .find("load them into memory (--experts ram)"),
            std::string::npos);
}

std::vector<float> last_logits(const std::shared_ptr<const Model>& model) {
  Session session(model);
  const auto logits = session.append(calibration_ids(20));
  return {logits.begin(), logits.end()};
}

TEST(TunableModelTest, SetNeuronsAreThoseOfAModelLoadedWithThem) {
  const ActivationPolicy exact = ActivationPolicy::parse("spike:k=32,down=int8");
  ActivationPolicy other = exact;
  other[Projection::q] = {Activation::spike, 2, 0};
  other[Projection::v] = {Activation::spike, 4, 1.5};
  other[Projection::up] = {Activation::spike, 8, 3};
  TunableModel tuned(kCalibratedModel, {}, {exact, exact});
  LoadOptions load;
  load.activation = exact;
  const std::vector<float> before = last_logits(Model::load(kCalibratedModel, load));
  EXPECT_EQ(last_logits(tuned.model()), before);
  tuned.set({other, other});
  load.activation = other;
  const std::vector<float> after = last_logits(Model::load(kCalibratedModel, load));
  EXPECT_NE(before, after);
  EXPECT_EQ(last_logits(tuned.model()), after);
  tuned.set({exact, exact});
  EXPECT_EQ(last_logits(tuned.model()), before);
}

TEST(TunableModelTest, WhatCannotBeSetIsRefused) {
  const ActivationPolicy spikes = ActivationPolicy::parse("spike:k=3");
  TunableModel tuned(kCalibratedModel, {}, {spikes, spikes});
  EXPECT_THROW(tuned.set({spikes}), Error);
  EXPECT_THROW(tuned.set({spikes, ActivationPolicy(Activation::int8)}), Error);
  ActivationPolicy beyond = spikes;
  beyond[Projection::o].k = 65;
  EXPECT_THROW(tuned.set({spikes, beyond}), Error);
  EXPECT_THROW(TunableModel(kCalibratedModel, {}, {spikes}), Error);
  EXPECT_THROW(TunableModel(kCalibratedModel, {}, {spikes, beyond}), Error);
}

TEST(SoftTargetsTest, TheModelItselfHasTheLeastCrossEntropy) {
  const auto exact = Model::load(kCalibratedModel, with_threads(1));
  const std::vector<std::vector<TokenId>> windows{calibration_ids(32), calibration_ids(64)};
  EXPECT_THROW(SoftTargets(exact, {}, {}), Error);
  const SoftTargets targets(exact, {windows[0], calibration_ids(32)}, {});
  EXPECT_EQ(targets.positions(), 32u);
  const double own = targets.cross_entropy(exact, {});
  EXPECT_EQ(own, targets.cross_entropy(Model::load(kCalibratedModel, with_threads(2)), {}));
  double before = own;
  for (const char* coarser : {"spike:k=8", "spike:k=2", "spike:k=0.6"}) {
    LoadOptions load;
    load.activation = ActivationPolicy::parse(coarser);
    const double now = targets.cross_entropy(Model::load(kCalibratedModel, load), {});
    EXPECT_GT(now, before) << coarser;
    before = now;
  }
}

}  // namespace
}  // namespace mneme::spike_calibration_test
