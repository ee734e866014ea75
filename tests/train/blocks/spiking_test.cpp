// Models that spike, in the trainer beside the engine. Both fire the same neurons, but their inputs differ in
// the last bit, and an input that lies on the edge between two counts then gives another count: from that
// position on (attention and recurrences look back) a sequence is compared no further. Short sequences make
// that rare, and the test asks how many positions agree within the tolerance of the other blocks.
#include <gtest/gtest.h>

#include <cmath>

#include "core/fail.h"
#include "mneme/session.h"
#include "scratch.h"
#include "train/blocks/block_cases.h"
#include "train/blocks/decoder.h"
#include "train/blocks/model_files.h"

namespace mneme::train::spiking_test {
namespace {

struct SpikingCase {
  const char* name;
  const char* layers;
  const char* activation;
  const char* more = "";
  bool table = false;
};

void PrintTo(const SpikingCase& block, std::ostream* out) {
  *out << block.name;
}

// clang-format off
const std::vector<SpikingCase> kSpikingCases{
    {"full", R"([{"mixer": {"type": "full", "qkv_bias": true}}])", R"({"type": "spike", "k": 3})"},
    {"window_one_by_one", R"([{"mixer": {"type": "window", "window": 7, "sinks": 1}}])",
     R"({"default": "float", "q": {"type": "spike", "k": 4}, "v": {"type": "spike", "k": 2, "dead_zone": 1}, "o": "spike", "down": {"type": "spike", "dead_zone": 2}})"},
    {"gla", R"([{"mixer": {"type": "gla", "gate_rank": 8}}])", R"({"type": "spike", "k": 5, "dead_zone": 0.7})"},
    {"delta", R"([{"mixer": {"type": "delta"}}])", R"({"default": "spike", "recurrence": {"type": "spike", "k": 9}})"},
    {"parallel", R"([{"mixer": {"type": "parallel", "of": [{"type": "window", "window": 5}, {"type": "gla", "gate": "matrix"}], "learned": true}}])", R"("spike")"},
    {"engram", R"([{"mixer": {"type": "full"}, "memory": {"table": "facts", "layer_id": 0, "conv": {}}}])", R"({"default": "float", "memory": {"type": "spike", "k": 4}})", "", true},
    {"moe", R"([{"mixer": {"type": "full"}, "ffn": {"type": "moe", "hidden": 32, "experts": 4, "top_k": 2, "shared": 1}}])", R"({"default": "spike", "down": {"type": "spike", "k": 2, "dead_zone": 1}})"},
    {"post_norm", R"([{"mixer": {"type": "full", "qk_norm": true}, "post_norm": true}])", R"("spike")", R"(, "tied": true, "sink_tokens": 2)"},
};
// clang-format on

ModelConfig spiking_config(const SpikingCase& block) {
  const std::string table = R"(, "tables": {"facts": {"file": "facts.engram", "raw_ids": true,
      "compressed_vocab": 48, "pad_id": 1, "max_ngram": 3, "heads": 2, "head_dim": 8, "base_rows": [31, 37],
      "layer_ids": [0], "format": "f32"}})";
  return ModelConfig::from_json(std::string(R"({"mneme": 1, "d_model": 32, "vocab": 48, "context": 64,
      "defaults": {"mixer": {"heads": 4, "kv_heads": 2, "head_dim": 8}, "ffn": {"type": "dense", "hidden": 64},
      "activation": )") + block.activation +
                                R"(}, "layers": )" + block.layers + block.more + (block.table ? table : "") +
                                "}");
}

/// A model of a case with random weights, and some sequences.
struct SpikingModel {
  explicit SpikingModel(const SpikingCase& block, int64_t sequences = 8, int64_t length = 20)
      : config(spiking_config(block)),
        parameters(random_parameters(config, 12)),
        tables(random_tables(config, 13)),
        ids(make_table_ids(config, nullptr)),
        tokens(random_tokens(config, sequences, length, 14)) {}
  BatchRows rows() const { return touch_rows(config, ids, tables, tokens); }
  Tensor logits(const ModelConfig& as) const {
    const at::NoGradGuard no_grad;
    return Decoder(as, parameters).logits(tokens, rows());
  }
  /// The same model with float inputs everywhere.
  ModelConfig silent_config() const {
    ModelConfig out = config;
    for (LayerConfig& layer : out.layers) layer.activation = Activation::float_;
    return out;
  }
  ModelConfig config;
  Parameters parameters;
  RowTables tables;
  TableIds ids;
  Tensor tokens;
};

Tensor logits_of_engine(const SpikingModel& model) {
  const ScratchFolder folder;
  save_model(model.config, model.parameters, folder.path());
  for (const auto& [name, table] : model.tables)
    save_table(model.config, name, table, nullptr, folder.path());
  LoadOptions load;
  load.threads = 1;
  const auto engine = Model::load(folder.path().string(), load);
  EXPECT_EQ(engine->config().layers, model.config.layers);
  SessionOptions options;
  options.kv = KvType::f32;
  AppendOptions all;
  all.all_logits = true;
  std::vector<Tensor> out;
  for (int64_t b = 0; b < model.tokens.size(0); ++b) {
    const Tensor row = model.tokens[b].to(at::kInt).contiguous();
    Session session(engine, options);
    const auto logits = session.append({row.data_ptr<int>(), static_cast<size_t>(row.numel())}, all);
    out.push_back(at::tensor(at::ArrayRef<float>(logits.data(), logits.size())).view({row.numel(), -1}));
  }
  return at::stack(out);
}

/// The share of positions whose logits agree within the tolerance of other blocks.
double agreeing(const Tensor& got, const Tensor& want) {
  const Tensor off = (got - want).abs().amax(-1) / want.square().mean().sqrt();
  return off.le(1e-4).to(at::kDouble).mean().item<double>();
}

class Spiking : public testing::TestWithParam<SpikingCase> {};

TEST_P(Spiking, TheEngineGivesTheTrainersLogits) {
  const SpikingModel model(GetParam());
  const Tensor engine = logits_of_engine(model);
  EXPECT_GE(agreeing(engine, model.logits(model.config)), 0.85);
  EXPECT_LT(agreeing(engine, model.logits(model.silent_config())), 0.1);  // spikes are no small matter
}

TEST_P(Spiking, LayersThatAreComputedAgainPayAndCountOnce) {
  std::vector<std::map<std::string, Tensor>> gradients(2);
  std::vector<Json> tallies;
  for (const bool again : {false, true}) {
    const SpikingModel model(GetParam(), 2, 12);
    SpikeTally tally;
    PassOptions options;
    options.checkpoint_layers = again;
    options.spikes = {0.7, 0.9, &tally};
    Decoder(model.config, model.parameters)
        .loss(model.tokens.narrow(1, 0, 11), model.tokens.narrow(1, 1, 11),
              touch_rows(model.config, model.ids, model.tables, model.tokens.narrow(1, 0, 11)), options)
        .backward();
    for (const std::string& name : model.parameters.names())
      gradients[again ? 1 : 0].emplace(name, model.parameters.at(name).grad());
    tallies.push_back(tally.state());
  }
  EXPECT_EQ(tallies[0].dump(), tallies[1].dump());
  for (const auto& [name, gradient] : gradients[0])
    EXPECT_TRUE(at::equal(gradient, gradients[1].at(name))) << name;
}

INSTANTIATE_TEST_SUITE_P(Blocks, Spiking, testing::ValuesIn(kSpikingCases),
                         [](const auto& at_case) { return std::string(at_case.param.name); });

TEST(SpikePenalty, ChangesGradientsAndNotTheLoss) {
  std::vector<double> losses;
  std::vector<Tensor> gradients;
  for (const double penalty : {0.0, 0.5, 1.0}) {
    const SpikingModel model(kSpikingCases[0], 2, 12);
    PassOptions options;
    options.spikes.penalty = penalty;
    const Tensor loss = Decoder(model.config, model.parameters)
                            .loss(model.tokens.narrow(1, 0, 11), model.tokens.narrow(1, 1, 11), {}, options);
    loss.backward();
    losses.push_back(loss.item<double>());
    gradients.push_back(model.parameters.at("blk.0.ffn_up.weight").grad());
  }
  EXPECT_EQ(losses[0], losses[1]);
  const Tensor half = gradients[1] - gradients[0], whole = gradients[2] - gradients[0];
  EXPECT_GT(half.norm().item<double>(), 1e-4 * gradients[0].norm().item<double>());
  EXPECT_LT((whole - 2 * half).norm().item<double>(), 1e-3 * whole.norm().item<double>());
}

TEST(SpikeTally, WeighsInputsByTheWeightsThatTheyRead) {
  SpikeTally tally;
  EXPECT_TRUE(tally.empty());
  tally.add(Projection::q, {100, 80, 300}, 10);
  tally.add(Projection::down, {200, 50, 100}, 40);
  const Json report = tally.report();
  EXPECT_NEAR(report["silent"].get<double>(), 1 - (800.0 + 2000) / (1000 + 8000), 1e-12);
  EXPECT_NEAR(report["projections"]["q"]["silent"].get<double>(), 0.2, 1e-12);
  EXPECT_NEAR(report["projections"]["down"]["mean_abs"].get<double>(), 0.5, 1e-12);
  EXPECT_FALSE(report["projections"].contains("up"));
  EXPECT_EQ(SpikeTally::restore(tally.state()).report().dump(), report.dump());
  EXPECT_THROW(SpikeTally::restore(Json::array({1, 2})), Error);
}

TEST(SpikingModels, WhoseRowsCannotFireAreRefusedByName) {
  ModelConfig config = spiking_config(kSpikingCases[0]);
  EXPECT_EQ(spiking_weights(config), 32u * (32 + 16 + 16 + 32) + 3u * 32 * 64);
  config.layers[0].ffn.hidden = 40;
  try {
    spiking_weights(config);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    EXPECT_NE(std::string(error.what()).find("layers[0].activation.down"), std::string::npos) << error.what();
  }
  EXPECT_THROW(Decoder(config, Parameters::create(config, 1)), Error);
}

}  // namespace
}  // namespace mneme::train::spiking_test
