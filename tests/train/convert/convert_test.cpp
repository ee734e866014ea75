// Conversions of tests/data/models/llama (two layers, random weights, a tokenizer): what must stay as it was,
// what must get better, and that a stop changes nothing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "core/fail.h"
#include "core/json.h"
#include "eval/perplexity.h"
#include "scratch.h"
#include "train/convert/activations.h"
#include "train/convert/conversion.h"
#include "train/convert/lessons.h"
#include "train/convert/quality.h"

namespace mneme::train::convert_test {
namespace {

using ::testing::HasSubstr;

const std::string kLlama = MNEME_TEST_DATA "/models/llama";

Tensor some_tokens(int64_t batch, int64_t length) {
  at::Generator generator = at::detail::createCPUGenerator(5);
  return at::randint(3, 250, {batch, length}, generator, at::kLong);
}

Tensor logits(const ConvertedModel& model, const Tensor& tokens) {
  const at::NoGradGuard no_grad;
  return Decoder(model.config, model.parameters).logits(tokens, model.rows(tokens));
}

/// The model after one stage, given as JSON.
ConvertedModel after(const ConvertedModel& model, const std::string& stage,
                     const std::vector<uint32_t>& layers) {
  const Recipe recipe = Recipe::from_json(R"({"mneme_convert": 1, "stages": [)" + stage + "]}", "", "recipe");
  return with_config(model, converted_config(model.config, model.config, recipe.stages[0], 0, layers, 0), 7);
}

std::string error_of(const std::function<void()>& what) {
  try {
    what();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

class Folder : public ::testing::Test {
 protected:
  void SetUp() override {
    text("train.txt", 400);
    text("valid.txt", 60);
  }

  void text(const std::string& name, int lines) const {
    std::ofstream out(folder_ / name);
    for (int i = 0; i < lines; ++i)
      out << "the " << (i * 7 % 11) << (name[0] == 't' ? " cat sees a" : " bird likes the")
          << " red house, and " << (i * 5 % 13) << " stars.\n";
  }
  ConversionOptions options(const std::string& stages, const std::string& out) const {
    ConversionOptions options;
    options.in = kLlama;
    options.out = folder_ / out;
    options.threads = 1;
    options.recipe = Recipe::from_json(
        R"({"mneme_convert": 1, "data": {"train": ["train.txt"], "validation": ["valid.txt"], "context": 64, "tokens": 512},
        "stages": )" +
            stages + "}",
        folder_.path(), "recipe");
    return options;
  }
  Json convert_in_pieces(const std::string& stages, const std::vector<std::string>& files) const;
  ScratchFolder folder_;
};

TEST(Convert, WindowIsTheOriginalUpToItsLength) {
  const ConvertedModel original = load_original(kLlama);
  const ConvertedModel windowed = after(original, R"({"kind": "window", "window": 24, "sinks": 2})", {0, 1});
  EXPECT_EQ(windowed.config.layers[1].mixer.type, MixerType::window);
  EXPECT_EQ(windowed.config.layers[1].mixer.sinks, 2u);
  const Tensor tokens = some_tokens(2, 60);
  const Tensor want = logits(original, tokens), got = logits(windowed, tokens);
  EXPECT_LT((got - want).narrow(1, 0, 24).abs().max().item<double>(), 2e-5);
  EXPECT_GT((got - want).narrow(1, 30, 30).abs().max().item<double>(), 1e-4);
}

TEST(Convert, RemapKeepsProjectionsAndStartsGatesAsPublished) {
  const ConvertedModel original = load_original(kLlama);
  const ConvertedModel hybrid =
      after(original, R"({"kind": "hybrid", "layers": [1], "to": {"type": "gla", "gate_rank": 4}})", {1});
  for (const char* name : {"attn_q", "attn_k", "attn_v", "attn_output"}) {
    const std::string tensor = fmt::format("blk.1.{}.weight", name);
    EXPECT_EQ(hybrid.parameters.at(tensor).data_ptr(), original.parameters.at(tensor).data_ptr()) << tensor;
  }
  EXPECT_TRUE(at::equal(hybrid.parameters.at("blk.1.attn_out_norm.weight"), at::ones(16)));
  EXPECT_TRUE(at::equal(hybrid.parameters.at("blk.1.attn_gate_b.bias"), at::zeros(16)));
  const double bound = std::exp2(-2.5) * std::sqrt(6.0 / (32 + 4)),
               most = hybrid.parameters.at("blk.1.attn_gate_a.weight").abs().max().item<double>();
  EXPECT_LE(most, bound);
  EXPECT_GT(most, 0.8 * bound);
  EXPECT_TRUE(logits(hybrid, some_tokens(1, 40)).isfinite().all().item<bool>());
}

TEST(Convert, GatesCanStartAtDecaysAsLongAsRopeSees) {
  ModelConfig old = load_original(kLlama).config, config = old;
  for (const auto style : {RopeConfig::Style::half, RopeConfig::Style::interleaved}) {
    old.rope.style = style;
    MixerConfig& mixer = config.layers[1].mixer;
    mixer.type = MixerType::gla;
    const NamedTensors gates = rope_gates(old, config, {1});
    ASSERT_EQ(gates.size(), 1u);
    const Tensor tokens = -mixer.gate_normalizer / at::log_sigmoid(gates.at("blk.1.attn_gate_b.bias"));
    ASSERT_EQ(tokens.numel(), mixer.kv_heads * mixer.head_dim);
    const int64_t second = style == RopeConfig::Style::half ? 1 : 2;
    const double turn = std::pow(old.rope.base, -2.0 / mixer.head_dim);
    for (const int64_t head : {0, static_cast<int>(mixer.kv_heads) - 1}) {
      const Tensor of_head = tokens.narrow(0, head * mixer.head_dim, mixer.head_dim);
      EXPECT_NEAR(of_head[0].item<double>(), M_PI / 2, 1e-3);
      EXPECT_NEAR(of_head[second].item<double>(), std::min<double>(M_PI / 2 / turn, old.context), 1e-2);
      EXPECT_NEAR(of_head[mixer.head_dim - 1].item<double>(), old.context, 0.01 * old.context);
    }
  }
}

TEST(Convert, ParallelBranchesBothBeginWithTheProjectionsThatWereThere) {
  const ConvertedModel original = load_original(kLlama);
  const ConvertedModel both = after(
      original,
      R"({"kind": "parallel", "layers": [0], "of": [{"type": "window", "window": 8}, {"type": "delta"}], "learned": true})",
      {0});
  for (const char* branch : {"mix0", "mix1"})
    EXPECT_TRUE(at::equal(both.parameters.at(fmt::format("blk.0.{}.attn_k.weight", branch)),
                          original.parameters.at("blk.0.attn_k.weight")));
  EXPECT_NE(both.parameters.at("blk.0.mix0.attn_k.weight").data_ptr(),
            both.parameters.at("blk.0.mix1.attn_k.weight").data_ptr());
  EXPECT_TRUE(logits(both, some_tokens(1, 40)).isfinite().all().item<bool>());
}

TEST(Convert, DistillationLossAndItsGradientsAreThoseOfThePlainFormula) {
  const Tensor h = at::randn({300, 8}).requires_grad_(true), w = at::randn({20, 8}).requires_grad_(true);
  const Tensor th = at::randn({300, 8}), tw = at::randn({20, 8}), targets = at::randint(20, {300}, at::kLong);
  for (const double cap : {0.0, 3.0}) {
    const double t = 2, share = 0.3, scale = 0.7;
    const auto bent = [&](const Tensor& x, const Tensor& head) {
      const Tensor z = at::matmul(x, head.t()) * scale;
      return cap > 0 ? at::tanh(z / cap) * cap : z;
    };
    const Tensor wanted = at::log_softmax(bent(th, tw) / t, 1), given = at::log_softmax(bent(h, w) / t, 1);
    const Tensor ce = -at::log_softmax(bent(h, w), 1).gather(1, targets.unsqueeze(1)).mean();
    const Tensor plain = (1 - share) * t * t * (wanted.exp() * (wanted - given)).sum() / 300 + share * ce;
    const auto want = torch::autograd::grad({plain}, {h, w});
    const Tensor loss = distillation_loss(h, {w, scale, cap}, th, {tw, scale, cap}, targets, t, share, false);
    const auto got = torch::autograd::grad({loss}, {h, w});
    EXPECT_NEAR(loss.item<double>(), plain.item<double>(), 1e-5);
    for (size_t i = 0; i < 2; ++i) EXPECT_LT((got[i] - want[i]).abs().max().item<double>(), 1e-6) << i;
  }
}

TEST_F(Folder, ActivationsAreKeptPerLayerAndSequenceAndReopened) {
  const Tensor in = at::randn({1, 5, 8}), out = at::randn({1, 5, 8});
  {
    Activations store(folder_ / "activations", {3, 7}, 4, 5, 8);
    EXPECT_FALSE(store.reopened());
    store.put(7, 2, in, out);
    store.sync();
    EXPECT_EQ(store.get(3, 2).first.abs().max().item<double>(), 0.0);
  }
  Activations again(folder_ / "activations", {3, 7}, 4, 5, 8);
  EXPECT_TRUE(again.reopened());
  const auto [normed, mixed] = again.get(7, 2);
  EXPECT_LT(((normed - in) / in).abs().max().item<double>(), 1.0 / 256);
  EXPECT_TRUE(at::equal(mixed, out.to(at::kBFloat16).to(at::kFloat)));
  EXPECT_THROW(again.get(7, 4), Error);
  Activations longer(folder_ / "activations", {3}, 5, 5, 8);
  EXPECT_FALSE(longer.reopened());
  EXPECT_THAT(error_of([&] { Activations(folder_ / "too_large", {0}, uint64_t{1} << 40, 1024, 576); }),
              HasSubstr("too_large/layer-00"));
  EXPECT_THAT(error_of([&] { Activations(folder_ / "absurd", {0}, uint64_t{1} << 62, 1024, 576); }),
              HasSubstr("activations of a layer"));
}

TEST_F(Folder, SeveralPassesOverTheSameTextTeachMore) {
  const auto error = [&](int passes) {
    const Json summary = convert_model(
        options(fmt::format(R"([{{"kind": "hybrid", "layers": [0, 1], "to": {{"type": "delta"}}}},
                         {{"kind": "transfer", "steps": 20, "length": 64, "lr": 0.003, "passes": {}}}])",
                            passes),
                fmt::format("passes{}", passes)));
    const Json& stage = summary["stages"][1];
    EXPECT_EQ(stage["tokens"], 20 * 64);
    EXPECT_EQ(stage["passes"], passes);
    return stage["errors_after"][1]["error"].get<double>();
  };
  EXPECT_LT(error(6), 0.95 * error(1));
}

TEST(Convert, OutputSolverFindsTheLeastSquares) {
  const ConvertedModel original = load_original(kLlama);
  ConvertedModel hybrid =
      after(original, R"({"kind": "hybrid", "layers": [0], "to": {"type": "delta"}})", {0});
  OutputSolver solver(hybrid, 0);
  Tensor normed, target;
  teach_mixers(original, some_tokens(4, 64), {0}, {},
               [&](uint32_t, const Tensor& in, const Tensor& out) { normed = in, target = out; });
  solver.add(normed, target);
  const double before = mixer_error(hybrid, 0, normed, target, {}).item<double>();
  replace(hybrid, {{"blk.0.attn_output.weight", solver.solution()}});
  const double solved = mixer_error(hybrid, 0, normed, target, {}).item<double>();
  EXPECT_LT(solved, 0.9 * before);
  const Tensor other = solver.solution() + at::randn({32, 32}) * 0.01;
  replace(hybrid, {{"blk.0.attn_output.weight", other}});
  EXPECT_GT(mixer_error(hybrid, 0, normed, target, {}).item<double>(), solved);
}

TEST(Convert, LayersMeasuredAloneAreLayersSwappedOneAtATime) {
  const ConvertedModel original = load_original(kLlama);
  const ConvertedModel donor =
      after(original, R"({"kind": "hybrid", "layers": [0, 1], "to": {"type": "gla"}})", {0, 1});
  const Tensor ids = some_tokens(1, 256);
  const HeldOut text(std::vector<int64_t>(ids.data_ptr<int64_t>(), ids.data_ptr<int64_t>() + 256), 64);
  const Tick tick = [](uint64_t, uint64_t) {};
  Json state;
  const Sensitivity got = measure_alone(
      original, donor, {0, 1}, text, 256, state, [] {}, tick);
  EXPECT_NEAR(got.base.nll, measure(original, text, 256, tick).nll, 1e-9);
  for (uint32_t i = 0; i < 2; ++i)
    EXPECT_NEAR(got.alone[i].nll, measure(with_mixers_of(original, donor, {i}), text, 256, tick).nll, 1e-9)
        << i;
  EXPECT_EQ(got.base.tokens, 128u);
}

TEST_F(Folder, MemoryIsAddedWithoutAnyEffect) {
  for (const char* zero : {"values", "table"}) {
    const std::string out = std::string("memory_") + zero;
    convert_model(options(
        fmt::format(
            R"([{{"kind": "engram", "layers": [1], "zero": "{}", "table": {{"head_dim": 8, "heads": 2, "base_rows": [101, 103]}},
        "module": {{"conv": {{}}}}}}])",
            zero),
        out));
    const ConvertedModel original = load_original(kLlama), model = load_original(folder_ / out);
    ASSERT_EQ(model.tables.size(), 1u);
    EXPECT_EQ(model.tables.at("memory").values().abs().max().item<double>() == 0,
              zero == std::string("table"));
    const Tensor tokens = some_tokens(2, 50);
    EXPECT_TRUE(at::equal(logits(model, tokens), logits(original, tokens))) << zero;
  }
}

TEST_F(Folder, TransferLowersTheErrorAndTheEngineMeasuresTheSamePerplexity) {
  const Json summary = convert_model(options(R"([
      {"kind": "hybrid", "layers": [1], "to": {"type": "gla", "gate_rank": 4}},
      {"kind": "transfer", "steps": 60, "length": 64, "lr": 0.01, "solve": 8},
      {"kind": "distill", "steps": 20, "length": 64, "lr": 0.003, "cross_entropy": 0.1, "train": ["all"]}])",
                                             "out"));
  const Json& transfer = summary["stages"][1];
  EXPECT_LT(transfer["errors_after"][0]["error"].get<double>(),
            0.95 * transfer["errors_before"][0]["error"].get<double>());
  EXPECT_EQ(transfer["tokens"], 60 * 64);
  EXPECT_LT(summary["stages"][2]["ppl_after"].get<double>(),
            summary["stages"][2]["ppl_before"].get<double>());
  EXPECT_TRUE(fs::exists(folder_ / "out/conversion.json"));
  EXPECT_FALSE(fs::exists(folder_ / "out.convert"));
  LoadOptions load;
  load.threads = 1;
  const auto model = Model::load((folder_ / "out").string(), load);
  PerplexityOptions how;
  how.ctx = 64;
  how.max_tokens = 512;
  SessionOptions session;
  session.kv = KvType::f32;
  EXPECT_NEAR(perplexity(model, folder_ / "valid.txt", how, session).ppl / summary["ppl"].get<double>(), 1.0,
              1e-4);
}

/// Converts in one go into "whole" and, stopped again and again, into "pieces"; both must hold the same files
/// and reports. Returns the report.
Json Folder::convert_in_pieces(const std::string& stages, const std::vector<std::string>& files) const {
  Json whole = convert_model(options(stages, "whole"));
  int stops = 0;
  for (int patience = 1; stops < 60; ++patience) {
    ConversionOptions again = options(stages, "pieces");
    int asked = 0;
    again.stop = [&] { return ++asked > patience; };
    const std::string error = error_of([&] { convert_model(again); });
    if (error.empty()) break;
    EXPECT_THAT(error, HasSubstr("stopped in stage"));
    ++stops;
  }
  EXPECT_GE(stops, 5);
  EXPECT_LT(stops, 60);
  for (const std::string& file : files)
    EXPECT_TRUE(read_text_file(folder_ / "whole" / file) == read_text_file(folder_ / "pieces" / file))
        << file;
  const Json pieces = parse_json(read_text_file(folder_ / "pieces/conversion.json"), "conversion.json");
  for (size_t i = 0; i < pieces["stages"].size(); ++i) {
    Json a = whole["stages"][i], b = pieces["stages"][i];
    a.erase("seconds"), b.erase("seconds");
    EXPECT_EQ(a.dump(), b.dump());
  }
  return whole;
}

TEST_F(Folder, AStoppedUpcyclingGoesOnToTheSameBits) {
  const Json whole = convert_in_pieces(
      R"([{"kind": "upcycle", "experts": 3, "scale": "down"},
          {"kind": "distill", "steps": 8, "length": 32, "save_every": 3, "train": ["ffn", "router"], "experts": {"balance": 0.02}}])",
      {"model.safetensors", "config.json"});
  for (const Json& layer : whole["stages"][1]["experts"]["layers"])
    EXPECT_EQ(layer["active"], Json({0, 8 * 32}));  // all steps are among the last that are reported
}

TEST_F(Folder, AStoppedConversionGoesOnToTheSameBits) {
  const char* stages = R"([
      {"kind": "hybrid", "layers": {"choose": 1, "curve": 2, "tokens": 128, "transfer": {"steps": 7, "length": 32, "save_every": 3, "at_once": 1, "solve": 2}}, "to": {"type": "gla"}},
      {"kind": "window", "window": 32, "sinks": 2},
      {"kind": "engram", "layers": [0], "table": {"head_dim": 8, "heads": 2, "base_rows": [101, 103]}},
      {"kind": "transfer", "steps": 5, "length": 32},
      {"kind": "transfer", "steps": 3, "sequences": 2, "length": 32, "passes": 3, "solve": 4, "save_every": 4},
      {"kind": "distill", "steps": 6, "length": 32, "sequences": 2, "save_every": 4, "train": ["mixer", "engram"],
       "measure": {"every": 2, "tokens": 128}},
      {"kind": "spike", "steps": 7, "length": 32, "save_every": 2, "k": [9, 3], "dead_zone": [0.5, 1], "penalty": 0.3,
       "log_every": 3, "cross_entropy": 0.5}])";
  const Json whole = convert_in_pieces(stages, {"model.safetensors", "memory.engram", "config.json"});
  EXPECT_EQ(whole["stages"][0]["layers"].size(), 1u);
  EXPECT_EQ(whole["stages"][0]["curve"].size(), 2u);
  const Json& curve = whole["stages"].back()["curve"];
  ASSERT_EQ(curve.size(), 3u);
  EXPECT_EQ(curve[2]["step"], 7);
  const Json& quality = whole["stages"][5]["quality"];
  ASSERT_EQ(quality.size(), 3u);
  EXPECT_EQ(quality[2]["tokens"], 6 * 2 * 32);
  EXPECT_NE(quality[0]["ppl"], quality[2]["ppl"]);
  EXPECT_EQ(whole["stages"][0]["alone_after_transfer"].size(), 2u);
}

TEST(Convert, NeuronsMoveFromTheFirstSettingToTheLast) {
  SpikeSettings spikes;
  spikes.first_k = 16, spikes.k = 4, spikes.first_dead_zone = 0.5, spikes.dead_zone = 1.5;
  EXPECT_EQ(spikes.neuron(1, 80), ActivationConfig(Activation::spike, 16, 0.5));
  const ActivationConfig middle = spikes.neuron(21, 80);
  EXPECT_NEAR(middle.k, 8, 1e-12);
  EXPECT_NEAR(middle.dead_zone, 1.0, 1e-12);
  for (const uint64_t step : {40, 41, 80})
    EXPECT_EQ(spikes.neuron(step, 80), ActivationConfig(Activation::spike, 4, 1.5)) << step;
  spikes.anneal = 0;
  EXPECT_EQ(spikes.neuron(1, 80), ActivationConfig(Activation::spike, 4, 1.5));
  EXPECT_EQ(spikes.neuron(0, 0), ActivationConfig(Activation::spike, 4, 1.5));
}

TEST_F(Folder, ASpikeStageLearnsToFireLess) {
  const auto trained = [&](double penalty) {
    return convert_model(options(
        fmt::format(
            R"([{{"kind": "spike", "steps": 100, "length": 64, "lr": 0.01, "k": [8, 3], "dead_zone": [0.5, 1.0],
                 "cross_entropy": 1, "penalty": {}, "log_every": 20, "measure": {{"every": 50, "tokens": 256}}}}])",
            penalty),
        penalty > 0 ? "paid" : "free"))["stages"][0];
  };
  const Json free = trained(0), paid = trained(2);
  const auto silent = [](const Json& at) { return at["activity"]["silent"].get<double>(); };
  EXPECT_LT(free["ppl_after"].get<double>(), free["untrained"]["ppl"].get<double>());
  EXPECT_GT(silent(paid), silent(free) + 0.05);
  EXPECT_GT(silent(paid), silent(paid["untrained"]) + 0.05);
  EXPECT_EQ(paid["neuron"]["k"], 3);
  ASSERT_EQ(paid["curve"].size(), 5u);
  EXPECT_GT(paid["curve"][0]["k"].get<double>(), paid["curve"][4]["k"].get<double>());
  EXPECT_LT(paid["curve"][0]["silent"].get<double>(), paid["curve"][4]["silent"].get<double>());
  for (const char* name : {"q", "k", "v", "o", "gate", "up", "down"})
    EXPECT_GT(paid["curve"][4]["projections"][name]["mean_abs"].get<double>(), 0.5) << name;
  const ConvertedModel model = load_original(folder_ / "paid");
  EXPECT_EQ(model.config.layers[1].activation[Projection::down], ActivationConfig(Activation::spike, 3, 1));
  EXPECT_EQ(model.config.layers[1].activation[Projection::memory].type, Activation::automatic);
  // The engine fires the same neurons.
  LoadOptions load;
  load.threads = 1;
  PerplexityOptions how;
  how.ctx = 64;
  how.max_tokens = 512;
  SessionOptions session;
  session.kv = KvType::f32;
  const auto engine = Model::load((folder_ / "paid").string(), load);
  EXPECT_NEAR(perplexity(engine, folder_ / "valid.txt", how, session).ppl / paid["ppl_after"].get<double>(),
              1.0, 2e-3);
}

TEST_F(Folder, ASpikeStageChangesTheProjectionsThatItNames) {
  convert_model(options(
      R"([{"kind": "spike", "steps": 0, "layers": [1], "projections": ["up", "recurrence"], "k": 5}])",
      "out"));
  const ModelConfig config = load_original(folder_ / "out").config;
  for (size_t p = 0; p < kProjections; ++p) {
    const auto projection = static_cast<Projection>(p);
    EXPECT_EQ(config.layers[0].activation.of[p].type, Activation::automatic);
    const bool named = projection == Projection::up || projection == Projection::recurrence;
    EXPECT_EQ(config.layers[1].activation.of[p],
              named ? ActivationConfig(Activation::spike, 5) : ActivationConfig());
  }
}

TEST_F(Folder, AnUpcyclingIsFollowedByTrainingThatTellsExpertsApart) {
  const Json summary = convert_model(options(
      R"([{"kind": "upcycle", "experts": 4, "shared": 1, "top_k": 1, "scale": "down"},
          {"kind": "distill", "steps": 60, "length": 64, "sequences": 2, "lr": 0.01, "cross_entropy": 1,
           "train": ["ffn", "router", "norms"], "experts": {"balance": 0.02}}])",
      "out"));
  const Json &made = summary["stages"][0], &trained = summary["stages"][1];
  EXPECT_EQ(made["layers"], Json({0, 1}));
  EXPECT_NEAR(made["factor"].get<double>(), 0.8, 1e-12);
  EXPECT_NEAR(made["ppl_after"].get<double>() / summary["original"]["ppl"].get<double>(), 1, 0.01);
  EXPECT_LT(trained["ppl_after"].get<double>(), 0.7 * made["ppl_after"].get<double>());
  EXPECT_GT(trained["experts"]["spread"].get<double>(), 0.02);  // 0 right after the upcycling
  for (const Json& layer : trained["experts"]["layers"]) {
    EXPECT_EQ(layer["load"].size(), 4u);
    EXPECT_EQ(layer["mean_active"], 1.0);
    EXPECT_LT(layer["cv"].get<double>(), 1.0);
  }
  const ConvertedModel model = load_original(folder_ / "out");
  EXPECT_TRUE(model.config.layers[1].ffn.moe());
  EXPECT_TRUE(at::equal(model.parameters.at("blk.0.attn_q.weight"),
                        load_original(kLlama).parameters.at("blk.0.attn_q.weight")));
  LoadOptions load;
  load.threads = 1;
  load.activation = Activation::float_;
  PerplexityOptions how;
  how.ctx = 64;
  how.max_tokens = 512;
  SessionOptions session;
  session.kv = KvType::f32;
  const auto engine = Model::load((folder_ / "out").string(), load);
  EXPECT_NEAR(
      perplexity(engine, folder_ / "valid.txt", how, session).ppl / trained["ppl_after"].get<double>(), 1.0,
      1e-3);
}

TEST_F(Folder, ASnapshotIsTheModelAsItWasSaved) {
  const char* stages =
      R"([{"kind": "window", "window": 16}, {"kind": "distill", "steps": 40, "length": 32, "lr": 0.01, "save_every": 3}])";
  ConversionOptions some = options(stages, "out");
  some.snapshot = folder_ / "early";
  EXPECT_THAT(error_of([&] { convert_model(some); }), HasSubstr("nothing of a conversion into"));
  some.snapshot.clear();
  bool stop = false;
  some.progress = [&](const ConversionProgress& now) { stop = now.what == "distillation" && now.done == 5; };
  some.stop = [&] { return stop; };
  EXPECT_THAT(error_of([&] { convert_model(some); }), HasSubstr("after step 5"));
  some.snapshot = folder_ / "then";
  const Json summary = convert_model(some);
  EXPECT_EQ(summary["stages"].size(), 1u);
  EXPECT_EQ(summary["unfinished"]["step"], 5);
  EXPECT_EQ(summary["ppl"], summary["stages"][0]["ppl_after"]);
  const auto moved = [&](const char* a, const char* b) {
    const std::string name = "blk.1.attn_q.weight";
    return (load_original(folder_ / a).parameters.at(name) - load_original(b).parameters.at(name))
        .abs()
        .max()
        .item<double>();
  };
  EXPECT_GT(moved("then", kLlama.c_str()), 1e-4);
  EXPECT_THAT(error_of([&] { convert_model(some); }), HasSubstr("not an empty folder"));
  some.snapshot.clear();
  stop = false;
  some.progress = {};
  EXPECT_EQ(convert_model(some)["stages"].size(), 2u);  // a snapshot has not changed what was saved
  EXPECT_GT(moved("then", (folder_ / "out").c_str()), 1e-4);
}

TEST_F(Folder, StateOfAnotherRecipeOrATakenOutputIsRefused) {
  ConversionOptions first =
      options(R"([{"kind": "distill", "steps": 50, "length": 32}, {"kind": "window", "window": 16}])", "out");
  int asked = 0;
  first.stop = [&] { return ++asked > 30; };
  EXPECT_THAT(error_of([&] { convert_model(first); }), HasSubstr("goes on from there"));
  ConversionOptions other = options(R"([{"kind": "window", "window": 16}])", "out");
  EXPECT_THAT(error_of([&] { convert_model(other); }), HasSubstr("another recipe"));
  // Stages that are not begun may change.
  ConversionOptions longer = options(
      R"([{"kind": "distill", "steps": 50, "length": 32}, {"kind": "window", "window": 8}, {"kind": "window", "layers": "all", "window": 4}])",
      "out");
  asked = 0;
  longer.stop = [&] { return ++asked > 20; };
  EXPECT_THAT(error_of([&] { convert_model(longer); }), HasSubstr("goes on from there"));
  other.restart = true;
  EXPECT_EQ(error_of([&] { convert_model(other); }), "");
  EXPECT_THAT(error_of([&] { convert_model(other); }), HasSubstr("not an empty folder"));
}

TEST_F(Folder, BadRecipesSayWhatIsWrong) {
  const ModelConfig config = load_original(kLlama).config;
  const auto error = [&](const std::string& stages,
                         const std::string& data =
                             R"("data": {"train": ["train.txt"], "validation": ["valid.txt"]}, )") {
    return error_of([&] {
      const Recipe recipe = Recipe::from_json(
          R"({"mneme_convert": 1, )" + data + R"("stages": )" + stages + "}", folder_.path(), "r.json");
      check_recipe(recipe, config, 200);
    });
  };
  const std::pair<const char*, const char*> cases[] = {
      {R"([])", "at least one stage"},
      {R"([{"kind": "windows", "window": 8}])", "did you mean \"window\""},
      {R"([{"kind": "window"}])", "stages[0].window is missing"},
      {R"([{"kind": "window", "window": 8, "sink": 4}])", "did you mean \"sinks\""},
      {R"([{"kind": "window", "window": 8, "layers": [2]}])", "the model has layers 0 to 1"},
      {R"([{"kind": "window", "window": 8, "layers": [0, 0]}])", "names layer 0 twice"},
      {R"([{"kind": "window", "window": 8, "layers": []}])", "is empty"},
      {R"([{"kind": "window", "window": 500}])", "window"},
      {R"([{"kind": "hybrid", "layers": [0], "to": {"type": "gla", "gaterank": 3}}])",
       "stages[0].to.gaterank is not a known field"},
      {R"([{"kind": "hybrid", "layers": [0], "to": {"type": "gla", "heads": 3}}])", "cannot be chosen"},
      {R"([{"kind": "hybrid", "layers": [0], "to": {"type": "full"}}])", "must be gla, delta or window"},
      {R"([{"kind": "hybrid", "layers": [0], "decay": "roped", "to": {"type": "gla"}}])",
       "did you mean \"rope\""},
      {R"([{"kind": "hybrid", "layers": {"choose": 3}, "to": {"type": "gla"}}])",
       "only 2 layers are candidates"},
      {R"([{"kind": "hybrid", "layers": [0], "to": {"type": "gla"}}, {"kind": "window", "layers": [0], "window": 8}])",
       "made a recurrence"},
      {R"([{"kind": "hybrid", "layers": {"choose": 1, "curve": 3}, "to": {"type": "gla"}}])",
       "curve is 3, but only 2 layers are candidates"},
      {R"([{"kind": "distill", "steps": 5, "measure": {"every": 0}}])", "measure.every is 0"},
      {R"([{"kind": "distill", "steps": 5, "passes": 2}])", "passes is not a known field"},
      {R"([{"kind": "transfer", "steps": 5}])", "fits no layer"},
      {R"([{"kind": "transfer", "steps": 5, "layers": [0]}])", "nothing to transfer"},
      {R"([{"kind": "distill"}])", "either \"steps\" or \"tokens\""},
      {R"([{"kind": "distill", "steps": 5, "tokens": 5}])", "either \"steps\" or \"tokens\""},
      {R"([{"kind": "distill", "steps": 5, "train": ["gates"]}])", "did you mean \"gate\""},
      {R"([{"kind": "distill", "steps": 5, "length": 4096}])", "the model's context is 128"},
      {R"([{"kind": "spikes", "steps": 5}])", "did you mean \"spike\""},
      {R"([{"kind": "spike", "steps": 5, "deadzone": 1}])", "did you mean \"dead_zone\""},
      {R"([{"kind": "spike", "steps": 5, "penaltys": 1}])", "did you mean \"penalty\""},
      {R"([{"kind": "spike", "steps": 5, "projections": ["gates"]}])", "did you mean \"gate\""},
      {R"([{"kind": "spike", "steps": 5, "projections": []}])", "name at least one"},
      {R"([{"kind": "spike", "steps": 5, "k": 0}])", "stages[0].k is 0"},
      {R"([{"kind": "spike", "steps": 5, "k": [8, 4, 2]}])", "stages[0].k"},
      {R"([{"kind": "spike", "steps": 5, "k": [8]}])", "a number, or two"},
      {R"([{"kind": "spike", "steps": 5, "k": 100}])", "stages[0].k is 100"},
      {R"([{"kind": "spike", "steps": 5, "dead_zone": -1}])", "stages[0].dead_zone is -1"},
      {R"([{"kind": "spike", "steps": 5, "anneal": 0.2}])", "neither k nor dead_zone changes"},
      {R"([{"kind": "spike", "steps": 5, "width": 0.2}])", "belongs to a penalty"},
      {R"([{"kind": "spike", "steps": 5, "penalty": 1, "width": 0}])", "stages[0].width is 0"},
      {R"([{"kind": "spike", "steps": 5, "log_every": 0}])", "log_every is 0"},
      {R"([{"kind": "spike"}])", "either \"steps\" or \"tokens\""},
      {R"([{"kind": "engram", "layers": [1], "table": {"base_rows": [101]}}])", "stages[0].table"},
      {R"([{"kind": "engram", "layers": [1], "table": {"base_rows": [101, 103]}}, {"kind": "engram", "layers": [0], "table": {"base_rows": [101, 103]}}])",
       "a table of that name"},
      {R"([{"kind": "upcycle", "expert": 4}])", "did you mean \"experts\""},
      {R"([{"kind": "upcycle", "layers": [2]}])", "stages[0]: layer 2 cannot be upcycled"},
      {R"([{"kind": "upcycle"}, {"kind": "upcycle"}])", "stages[1]: no layer has a dense feed-forward"},
      {R"([{"kind": "distill", "steps": 5, "experts": {"balanse": 1}}])", "did you mean \"balance\""},
  };
  for (const auto& [stages, says] : cases) EXPECT_THAT(error(stages), HasSubstr(says)) << stages;
  EXPECT_THAT(error(R"([{"kind": "distill", "steps": 5}])", ""), HasSubstr("data.train names no text"));
  EXPECT_THAT(error(R"([{"kind": "window", "window": 8, "layers": {"choose": 1}}])", ""),
              HasSubstr("data.validation names no text"));
  EXPECT_THAT(
      error(R"([{"kind": "window", "window": 8}])", R"("data": {"train": ["a"], "validation": ["a"]}, )"),
      HasSubstr("both name"));
  EXPECT_THAT(
      error(R"([{"kind": "window", "window": 8}])", R"("data": {"context": 4096, "validation": ["a"]}, )"),
      HasSubstr("data.context is 4096"));
}

}  // namespace
}  // namespace mneme::train::convert_test
