// The trainer beside the engine: the same weights, through files, give the same logits, for every block and
// for all of them together, in both directions. Blocks with a discrete choice are compared twice: how many
// choices agree, and how close the logits are with the trainer's choices forced on the engine.
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>

#include "core/fail.h"
#include "engine/session_impl.h"
#include "mneme/session.h"
#include "model/block_hook.h"
#include "model/router.h"
#include "scratch.h"
#include "train/blocks/block_cases.h"
#include "train/blocks/decoder.h"
#include "train/blocks/model_files.h"

namespace mneme::train::parity_test {
namespace {

/// The agreement that is asked for, in units of the logits' root mean square.
constexpr double kTolerance = 1e-4;

std::shared_ptr<const Model> load_engine(const fs::path& folder) {
  LoadOptions options;
  options.threads = 2;
  options.activation = Activation::float_;
  return Model::load(folder.string(), options);
}

Tensor engine_logits(const std::shared_ptr<const Model>& model, const Tensor& tokens,
                     BlockHook* hook = nullptr, RouteObserver* routes = nullptr) {
  SessionOptions options;
  options.kv = KvType::f32;
  AppendOptions all;
  all.all_logits = true;
  std::vector<Tensor> out;
  for (int64_t b = 0; b < tokens.size(0); ++b) {
    const Tensor row = tokens[b].to(at::kInt).contiguous();
    Session session(model, options);
    session.impl().block_hook = hook;
    session.impl().routes = routes;
    const auto logits = session.append({row.data_ptr<int>(), static_cast<size_t>(row.numel())}, all);
    out.push_back(at::tensor(at::ArrayRef<float>(logits.data(), logits.size())).view({row.numel(), -1}));
  }
  return at::stack(out);
}

/// Largest difference in units of the reference's root mean square.
double difference(const Tensor& got, const Tensor& reference) {
  if (got.sizes() != reference.sizes()) return HUGE_VAL;
  const double most = (got - reference).abs().max().item<double>();
  return std::isfinite(most) ? most / reference.square().mean().sqrt().item<double>() : HUGE_VAL;
}

/// Equal but for the name, which a nameless model takes from its folder.
bool same(ModelConfig a, const ModelConfig& b) {
  a.name = b.name;
  return a == b;
}

/// A model of a case with random weights, saved for the engine.
struct Saved {
  explicit Saved(const BlockCase& block, uint64_t seed = 5)
      : config(config_of(block)),
        parameters(random_parameters(config, seed)),
        tables(random_tables(config, seed)),
        ids(make_table_ids(config, nullptr)),
        tokens(random_tokens(config, 2, block.length, seed)) {
    save_model(config, parameters, folder.path());
    for (const auto& [name, table] : tables) save_table(config, name, table, nullptr, folder.path());
  }
  Tensor logits(const PassOptions& options = {}) const {
    const at::NoGradGuard no_grad;
    return Decoder(config, parameters).logits(tokens, touch_rows(config, ids, tables, tokens), options);
  }

  ModelConfig config;
  Parameters parameters;
  RowTables tables;
  TableIds ids;
  Tensor tokens;
  ScratchFolder folder;
};

/// Counts how often the engine chooses as the trainer did for one sequence, and forces the trainer's choice.
class Forcing final : public BlockHook {
 public:
  Forcing(const Choices& choices, int64_t sequence, bool force)
      : choices_(choices), sequence_(sequence), force_(force) {}
  void chosen(size_t mixer, int64_t head, int64_t position, std::vector<uint32_t>& blocks) override {
    const Tensor mine =
        choices_.blocks.at(static_cast<uint32_t>(mixer))[sequence_][head][position].contiguous();
    std::vector<uint32_t> wanted;
    for (int64_t i = 0; i < mine.numel(); ++i)
      if (const int64_t b = mine.data_ptr<int64_t>()[i]; b >= 0) wanted.push_back(static_cast<uint32_t>(b));
    all_ += wanted.size();
    for (const uint32_t b : blocks) equal_ += std::count(wanted.begin(), wanted.end(), b) > 0 ? 1 : 0;
    if (force_) blocks = wanted;
  }
  uint64_t all() const { return all_; }
  uint64_t equal() const { return equal_; }

 private:
  const Choices& choices_;
  const int64_t sequence_;
  const bool force_;
  std::atomic<uint64_t> all_{0}, equal_{0};
};

/// The same of experts: places are compared, so that two experts whose ranks are swapped count as two.
class ForcingRoutes final : public RouteObserver {
 public:
  ForcingRoutes(const Choices& choices, int64_t sequence, bool force) : force_(force) {
    for (const auto& [layer, chosen] : choices.experts)
      chosen_.emplace(layer, chosen[sequence].to(at::kInt).contiguous());
  }
  void see(size_t layer, int, int64_t position, std::span<const Route> routes,
           std::span<const float>) override {
    const int32_t* const mine = at(layer, position);
    for (size_t place = 0; place < routes.size(); ++place)
      equal_ += routes[place].expert == mine[place] ? 1 : 0;
    all_ += routes.size();
  }
  const int32_t* forced(size_t layer, int64_t position) override {
    return force_ ? at(layer, position) : nullptr;
  }
  uint64_t all() const { return all_; }
  uint64_t equal() const { return equal_; }

 private:
  const int32_t* at(size_t layer, int64_t position) const {
    const Tensor& of_layer = chosen_.at(static_cast<uint32_t>(layer));
    return of_layer.data_ptr<int32_t>() + position * of_layer.size(1);
  }
  std::map<uint32_t, Tensor> chosen_;
  const bool force_;
  std::atomic<uint64_t> all_{0}, equal_{0};
};

bool chooses(const ModelConfig& config) {
  for (const LayerConfig& layer : config.layers)
    if (layer.ffn.moe()) return true;
  for (const LayerConfig& layer : config.layers)
    for (const MixerConfig& mixer : layer.mixer.branches())
      if (mixer.type == MixerType::sparse) return true;
  return false;
}

class Parity : public testing::TestWithParam<BlockCase> {};

TEST_P(Parity, TheEngineGivesTheTrainersLogits) {
  const Saved saved(GetParam());
  const auto engine = load_engine(saved.folder.path());
  EXPECT_TRUE(same(engine->config(), saved.config));
  if (!chooses(saved.config)) {
    EXPECT_LE(difference(engine_logits(engine, saved.tokens), saved.logits()), kTolerance);
    return;
  }
  Choices choices;
  PassOptions options;
  options.record = &choices;
  const Tensor mine = saved.logits(options);
  uint64_t all = 0, equal = 0;
  for (const bool force : {false, true}) {
    std::vector<Tensor> logits;
    for (int64_t b = 0; b < saved.tokens.size(0); ++b) {
      Forcing hook(choices, b, force);
      ForcingRoutes routes(choices, b, force);
      logits.push_back(engine_logits(engine, saved.tokens.narrow(0, b, 1),
                                     choices.blocks.empty() ? nullptr : &hook,
                                     choices.experts.empty() ? nullptr : &routes));
      EXPECT_TRUE(!force || routes.all() == routes.equal());
      if (!force) all += hook.all() + routes.all(), equal += hook.equal() + routes.equal();
    }
    if (force) {
      EXPECT_LE(difference(at::cat(logits), mine), kTolerance);
    }
  }
  EXPECT_GE(all, 80u);
  EXPECT_GE(static_cast<double>(equal), 0.999 * static_cast<double>(all)) << equal << " of " << all;
}

TEST_P(Parity, LoadingGivesBackWhatWasSaved) {
  const Saved saved(GetParam());
  const TrainedModel loaded = load_model(saved.folder.path());
  EXPECT_TRUE(same(loaded.config, saved.config));
  ASSERT_EQ(loaded.parameters.names(), saved.parameters.names());
  for (const std::string& name : saved.parameters.names())
    EXPECT_TRUE(at::equal(loaded.parameters.at(name), saved.parameters.at(name))) << name;
  for (const auto& [name, table] : saved.tables) {
    const LoadedRows rows = load_table(saved.folder / saved.config.tables.at(name).file);
    EXPECT_TRUE(at::equal(rows.rows.values(), table.values()));
  }
}

TEST_P(Parity, RecomputedLayersAndForcedChoicesChangeNoBit) {
  const Saved saved(GetParam());
  Choices choices;
  PassOptions plain, again;
  plain.record = &choices;
  again.forced = &choices;
  again.checkpoint_layers = true;
  const Tensor first = saved.logits(plain);
  EXPECT_TRUE(at::equal(first, saved.logits(again)));
}

INSTANTIATE_TEST_SUITE_P(Blocks, Parity, testing::ValuesIn(block_cases()),
                         [](const auto& at_case) { return std::string(at_case.param.name); });

// The way back: checkpoints that the trainer did not write, GGUF files and quantized weights among them.
class TrainedFrom : public testing::TestWithParam<const char*> {};

TEST_P(TrainedFrom, TheTrainerGivesTheEnginesLogits) {
  const fs::path path = fs::path(MNEME_TEST_DATA) / GetParam();
  const TrainedModel model = load_model(path);
  const Tensor tokens = random_tokens(model.config, 1, 100, 8);
  const at::NoGradGuard no_grad;
  EXPECT_LE(difference(Decoder(model.config, model.parameters).logits(tokens),
                       engine_logits(load_engine(path), tokens)),
            kTolerance);
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, TrainedFrom,
                         testing::Values("models/llama.gguf", "models/llama_q8_0.gguf", "models/qwen3.gguf",
                                         "models/gemma3_pattern.gguf", "models/spikingbrain", "mixers/hybrid",
                                         "mixers/parallel", "mixers/sinks_hybrid", "mixers/moe_softmax",
                                         "mixers/moe_sigmoid", "mixers/moe_adaptive", "models/mixtral",
                                         "models/qwen2_moe", "models/qwen3_moe", "models/granitemoeshared",
                                         "models/dots1", "models/olmoe"));

// Weights that are rounded to scales, queries that spike and an int8 cache. A number beside a tie may go
// either way in float arithmetic, so the text is short.
TEST(W8ASpikeParity, TheTrainerRoundsAsTheEngineDoes) {
  const fs::path path = fs::path(MNEME_TEST_DATA) / "models/spikingbrain_w8aspike";
  TrainedModel model = load_model(path);
  for (LayerConfig& layer : model.config.layers) layer.activation = Activation::float_;
  const Tensor tokens = random_tokens(model.config, 1, 8, 8);
  const at::NoGradGuard no_grad;
  const Tensor engine = engine_logits(load_engine(path), tokens);
  EXPECT_LE(difference(Decoder(model.config, model.parameters).logits(tokens), engine), kTolerance);
  for (LayerConfig& layer : model.config.layers) {
    layer.mixer.query = {};
    layer.mixer.kv_int8 = false;
  }
  EXPECT_GT(difference(Decoder(model.config, model.parameters).logits(tokens), engine), 10 * kTolerance);
}

TEST(Files, ThatDoNotFitAreRefused) {
  const Saved saved(block_cases().back());
  ModelConfig other = saved.config;
  other.layers[0].ffn.hidden += 8;
  EXPECT_THROW(Decoder(other, saved.parameters), Error);
  const RowTable few(10, 6, 1, 1.0);
  EXPECT_THROW(save_table(saved.config, "facts", few, nullptr, saved.folder.path()), Error);
  EXPECT_THROW(save_table(saved.config, "fcats", few, nullptr, saved.folder.path()), Error);
  EXPECT_THROW(load_table(saved.folder / "config.json"), Error);
  EXPECT_THROW(Decoder(saved.config, saved.parameters).logits(saved.tokens), Error);  // no rows
  EXPECT_THROW(make_table_ids(saved.config, nullptr).at("facts").rows(saved.tokens, 7), Error);
}

}  // namespace
}  // namespace mneme::train::parity_test
