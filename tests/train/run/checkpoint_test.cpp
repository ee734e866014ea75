// Checkpoints of a small model with a memory table: everything comes back to the bit, damage is found, and
// what a killed process leaves is not taken for a checkpoint.
#include "train/run/checkpoint.h"

#include <gmock/gmock.h>

#include <fstream>

#include "mneme/error.h"
#include "scratch.h"
#include "train/run/diagnosis.h"
#include "train/run/flops.h"
#include "train/run/report.h"

namespace mneme::train::checkpoint_test {
namespace {

using ::testing::HasSubstr;

ModelConfig small(const std::string& format) {
  return ModelConfig::from_json(R"({"mneme": 1, "d_model": 32, "vocab": 96, "context": 64, "tied": true,
    "tables": {"facts": {"file": "facts.engram", "compressed_vocab": 96, "raw_ids": true, "max_ngram": 2, "heads": 2,
               "head_dim": 8, "base_rows": [101], "layer_ids": [1], "format": ")" +
                                format + R"("}},
    "defaults": {"mixer": {"heads": 4, "kv_heads": 2, "head_dim": 8}, "ffn": {"type": "dense", "hidden": 48}},
    "layers": [{"mixer": {"type": "full"}}, {"mixer": {"type": "gla", "gate_rank": 4},
               "memory": {"table": "facts", "layer_id": 1}}]})");
}

std::unique_ptr<Training> make(const ModelConfig& config, uint64_t seed,
                               const OptimiserConfig& optimiser = {}) {
  auto out = std::make_unique<Training>();
  out->config = config;
  out->parameters = Parameters::create(config, seed);
  out->ids = make_table_ids(config, nullptr);
  for (const auto& [name, table] : config.tables) {
    out->tables.emplace(name, RowTable(out->ids.at(name).hash().rows(), table.head_dim, seed, 0.02));
    out->row_optimisers.emplace(
        name, RowOptimiser(optimiser.rows, out->ids.at(name).hash().rows(), table.head_dim));
  }
  out->optimiser = std::make_unique<Optimiser>(optimiser, out->parameters, config.tied);
  out->decoder = std::make_unique<Decoder>(config, out->parameters);
  return out;
}

Tensor some_tokens() {
  return at::arange(0, 48, at::kLong).reshape({3, 16}).remainder(96);
}

/// One step on fixed tokens; the loss.
double step(Training& training) {
  const Tensor tokens = some_tokens();
  BatchRows rows = touch_rows(training.config, training.ids, training.tables, tokens);
  const Tensor loss = training.decoder->loss(tokens, tokens.roll(1, 1), rows);
  loss.backward();
  training.optimiser->step(1e-2);
  for_leaves(rows, [&](const std::string& table, const TouchedRows& touched) {
    training.row_optimisers.at(table).update(training.tables.at(table).values(), touched.ids,
                                             touched.rows.grad(), 1e-2);
  });
  for (const std::string& name : training.parameters.names())
    training.parameters.at(name).mutable_grad().reset();
  return loss.item<double>();
}

class CheckpointFiles : public ::testing::Test {
 protected:
  void SetUp() override { tokenizer_.files["tokenizer.json"] = "{}"; }

  fs::path save(const Training& training, uint64_t at, uint32_t keep = 0) {
    RunState state;
    state.step = at;
    state.sequence = at * 3;
    state.run = {{"seed", 1}};
    state.data = {{"train", "x"}};
    return save_checkpoint(out_.path(), training, WholeTables(training), tokenizer_, state, keep);
  }
  static void restore(const CheckpointFolder& checkpoint, Training& training) {
    WholeTables rows(training);
    restore_checkpoint(checkpoint, training, rows);
  }
  std::optional<CheckpointFolder> newest() {
    return newest_checkpoint(out_.path(), [this](const std::string& text) { warnings_.push_back(text); });
  }

  ScratchFolder out_;
  RunTokenizer tokenizer_;
  std::vector<std::string> warnings_;
};

TEST_F(CheckpointFiles, EverythingComesBackToTheBit) {
  OptimiserConfig plain, muon;
  muon.type = OptimiserConfig::Type::muon;
  muon.rows.type = RowOptimiserConfig::Type::scalar;
  for (const auto& [format, optimiser] : {std::pair<std::string, OptimiserConfig>{"f32", plain},
                                          {"bf16", plain},
                                          {"f32", muon},
                                          {"bf16", muon}}) {
    SCOPED_TRACE(format);
    auto training = make(small(format), 1, optimiser);
    for (int i = 0; i < 3; ++i) step(*training);
    save(*training, 3);
    auto other = make(small(format), 2, optimiser);
    const auto found = newest();
    ASSERT_TRUE(found);
    EXPECT_EQ(found->state.step, 3u);
    EXPECT_EQ(found->state.sequence, 9u);
    EXPECT_EQ(found->state.run.at("seed"), 1);
    restore(*found, *other);
    EXPECT_TRUE(at::equal(other->tables.at("facts").values(), training->tables.at("facts").values()));
    for (int i = 0; i < 3; ++i) EXPECT_EQ(step(*training), step(*other)) << i;
    fs::remove_all(out_ / "step-00000003");
  }
}

TEST_F(CheckpointFiles, DamageIsFoundAndTheOneBeforeIsTaken) {
  auto training = make(small("f32"), 1);
  save(*training, 3);
  step(*training);
  const fs::path newer = save(*training, 4);
  EXPECT_EQ(newest()->state.step, 4u);
  for (const char* const name :
       {"model.safetensors", "facts.engram", "optimiser.safetensors", "config.json", "state.json"}) {
    const std::string before = read_text_file(newer / name);
    std::string after = before;
    after[after.size() - 3] ^= 1;
    std::ofstream(newer / name, std::ios::binary) << after;
    EXPECT_EQ(newest()->state.step, 3u) << name;
    EXPECT_THAT(warnings_.back(), HasSubstr(name));
    std::ofstream(newer / name, std::ios::binary) << before;
  }
  for (const char* const number : {"\"sequence\": 1", "\"seed\": 1", "\"log_bytes\": 0"}) {
    const std::string before = read_text_file(newer / "state.json");
    std::string after = before;
    const size_t at = after.find(number);
    ASSERT_NE(at, std::string::npos) << number;
    after[at + std::strlen(number) - 1] ^= 2;  // another digit
    std::ofstream(newer / "state.json", std::ios::binary) << after;
    EXPECT_EQ(newest()->state.step, 3u) << number;
    EXPECT_THAT(warnings_.back(), HasSubstr("state.json is damaged"));
    std::ofstream(newer / "state.json", std::ios::binary) << before;
  }
  EXPECT_EQ(newest()->state.step, 4u);
  fs::remove(newer / "tokenizer.json");
  EXPECT_EQ(newest()->state.step, 3u);
  EXPECT_THAT(warnings_.back(), HasSubstr("tokenizer.json is missing"));
}

TEST_F(CheckpointFiles, UnfinishedWorkIsNoCheckpoint) {
  auto training = make(small("f32"), 1);
  EXPECT_FALSE(newest());
  const fs::path folder = save(*training, 3);
  fs::copy(folder, out_ / ".unfinished-step-00000009", fs::copy_options::recursive);
  fs::copy(folder, out_ / ".removed-step-00000002", fs::copy_options::recursive);
  fs::copy(folder, out_ / "step-00000005", fs::copy_options::recursive);  // renamed by hand
  EXPECT_EQ(newest()->path, folder);
  EXPECT_THAT(warnings_.back(), HasSubstr("is of step 3"));
  remove_leftovers(out_.path());
  EXPECT_FALSE(fs::exists(out_ / ".unfinished-step-00000009"));
  EXPECT_FALSE(fs::exists(out_ / ".removed-step-00000002"));
}

TEST_F(CheckpointFiles, TheNewestStayAndAStepIsReplaced) {
  auto training = make(small("f32"), 1);
  for (const uint64_t at : {1, 2, 3, 3, 4}) save(*training, at, 2);
  EXPECT_FALSE(fs::exists(out_ / "step-00000002"));
  EXPECT_TRUE(fs::exists(out_ / "step-00000003"));
  EXPECT_TRUE(fs::exists(out_ / "step-00000004"));
  EXPECT_EQ(read_text_file(out_ / "latest"), "step-00000004\n");
}

TEST_F(CheckpointFiles, ANewerOneThatWasLeftAsideTakesNobodysPlace) {
  auto training = make(small("f32"), 1);
  save(*training, 9);
  fs::remove(out_ / "step-00000009/model.safetensors");
  save(*training, 5, 1);
  EXPECT_EQ(newest()->state.step, 5u);
  save(*training, 6, 1);
  EXPECT_EQ(newest()->state.step, 6u);
  EXPECT_FALSE(fs::exists(out_ / "step-00000005"));
  EXPECT_TRUE(fs::exists(out_ / "step-00000009"));
}

TEST_F(CheckpointFiles, ValuesThatNoRunCouldGoOnFromAreNotSaved) {
  auto training = make(small("f32"), 1);
  save(*training, 3, 1);
  const at::NoGradGuard guard;
  const auto refused = [&] {
    try {
      save(*training, 4, 1);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("saved");
  };
  Tensor values = training->tables.at("facts").values();
  values[7][2] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(refused(), HasSubstr("step 4: the table facts is not finite"));
  values[7][2] = 0;
  Tensor weight = training->parameters.at("blk.1.ffn_up.weight").detach();
  weight[3][3] = -std::numeric_limits<float>::infinity();
  EXPECT_THAT(refused(), HasSubstr("step 4: the parameter blk.1.ffn_up.weight is not finite"));
  weight[3][3] = 3e38f;
  weight[3][4] = 3e38f;  // finite, though their sum is not
  EXPECT_EQ(newest()->state.step, 3u);
  EXPECT_FALSE(fs::exists(out_ / ".unfinished-step-00000004"));
  EXPECT_EQ(refused(), "saved");
}

TEST(SharedRows, AreMovedOnceAStep) {
  ModelConfig config = small("f32");
  config.layers[0].memory = config.layers[1].memory;
  auto training = make(config, 1);
  const Tensor tokens = some_tokens();
  const BatchRows rows = touch_rows(config, training->ids, training->tables, tokens);
  EXPECT_TRUE(rows.at("facts").at(0).rows.is_same(rows.at("facts").at(1).rows));
  int leaves = 0;
  for_leaves(rows, [&](const std::string&, const TouchedRows&) { ++leaves; });
  EXPECT_EQ(leaves, 1);
  for (int i = 0; i < 3; ++i) step(*training);
  EXPECT_EQ(training->row_optimisers.at("facts").state().at("touched").max().item<float>(), 3);
}

TEST_F(CheckpointFiles, OfAnotherModelIsRefused) {
  auto training = make(small("f32"), 1);
  save(*training, 3);
  const auto refused = [&](const ModelConfig& config, const OptimiserConfig& optimiser = {}) {
    auto other = make(config, 1, optimiser);
    try {
      restore(*newest(), *other);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("restored");
  };
  ModelConfig changed = small("f32");
  EXPECT_EQ(refused(changed), "restored");
  changed.layers[0].ffn.hidden = 64;
  EXPECT_THAT(refused(changed), HasSubstr("hidden\" differs"));
  changed = small("f32");
  changed.norm.eps *= 2;  // no tensor has another shape
  EXPECT_THAT(refused(changed), HasSubstr("\"model.norm.eps\" differs"));
  OptimiserConfig scalar;
  scalar.rows.type = RowOptimiserConfig::Type::scalar;
  EXPECT_THAT(refused(small("f32"), scalar), HasSubstr("is its row optimiser another one?"));
}

TEST(Diagnosis, NamesWhereItBegan) {
  auto training = make(small("f32"), 1);
  const at::NoGradGuard guard;
  const Tensor tokens = some_tokens();
  const auto where = [&] {
    return first_not_finite(*training, tokens,
                            touch_rows(training->config, training->ids, training->tables, tokens), {});
  };
  training->parameters.at("blk.0.ffn_up.weight").detach()[0][0] = 3e38f;
  EXPECT_EQ(where(), "the output of layer 0");
  training->parameters.at("blk.1.attn_q.weight").detach()[0][0] = std::numeric_limits<float>::infinity();
  EXPECT_EQ(where(), "parameter blk.1.attn_q.weight");
  training->parameters.at("blk.0.ffn_up.weight").detach()[0][0] = 0;
  training->parameters.at("blk.1.attn_q.weight").detach()[0][0] = 0;
  training->tables.at("facts").values().fill_(std::numeric_limits<float>::quiet_NaN());
  EXPECT_EQ(where(), "rows of the table facts");
}

TEST(Diagnosis, NamesARouterThatIsNotFinite) {
  Training training;
  training.config = small("f32");
  training.config.layers.resize(1);
  training.config.layers[0].memory.reset();
  training.config.tables.clear();
  training.config.layers[0].ffn.type = FfnType::moe;
  training.config.layers[0].ffn.experts = 4;
  training.config.layers[0].ffn.top_k = 2;
  training.parameters = Parameters::create(training.config, 3);
  // Finite weights, whose product with the normed values is not.
  training.parameters.at("blk.0.ffn_gate_inp.weight").detach()[2].fill_(3e38);
  const Tensor tokens = at::zeros({1, 3}, at::kLong);
  const std::string where = first_not_finite(training, tokens, {}, {});
  EXPECT_NE(where.find("layer 0: the router's score of expert 2"), std::string::npos) << where;
}

TEST(Diagnosis, NamesTheGradientNearestToTheLoss) {
  auto training = make(small("f32"), 1);
  const Tensor tokens = some_tokens();
  BatchRows rows = touch_rows(training->config, training->ids, training->tables, tokens);
  training->decoder->loss(tokens, tokens.roll(1, 1), rows).backward();
  EXPECT_EQ(first_gradient_not_finite(*training, rows), "");
  const at::NoGradGuard guard;
  rows.at("facts").at(1).rows.mutable_grad().fill_(std::numeric_limits<float>::infinity());
  EXPECT_EQ(first_gradient_not_finite(*training, rows), "the gradient of rows of the table facts");
  training->parameters.at("blk.0.attn_q.weight").mutable_grad()[0][0] =
      std::numeric_limits<float>::quiet_NaN();
  training->parameters.at("blk.0.attn_norm.weight").mutable_grad()[0] =
      std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(first_gradient_not_finite(*training, rows), "the gradient of blk.0.attn_q.weight");
}

TEST(Flops, CountWhatMultiplies) {
  ModelConfig config = small("f32");
  config.layers.resize(1);  // the full layer alone
  config.layers[0].memory.reset();
  config.tables.clear();
  const double projections = 32 * 32 + 2 * 16 * 32 + 32 * 32, ffn = 3 * 32 * 48, head = 96 * 32;
  const double attention = 3 * 4 * 32 * (16 + 1) / 2.0;
  EXPECT_DOUBLE_EQ(flops_per_token(config, 16), 6 * (projections + ffn + head) + attention);
  config.layers[0].mixer.type = MixerType::window;
  config.layers[0].mixer.window = 4;  // 1, 2, 3 and thirteen times 4 keys
  EXPECT_DOUBLE_EQ(flops_per_token(config, 16), 6 * (projections + ffn + head) + 3 * 4 * 32 * (58 / 16.0));
  config.layers[0].ffn = {};  // 3 of 12 experts, a shared one and the router
  config.layers[0].ffn.type = FfnType::moe;
  config.layers[0].ffn.hidden = 16;
  config.layers[0].ffn.experts = 12;
  config.layers[0].ffn.top_k = 3;
  config.layers[0].ffn.shared = 1;
  EXPECT_DOUBLE_EQ(flops_per_token(config, 16),
                   6 * (projections + 4 * 3 * 32 * 16 + 12 * 32 + head) + 3 * 4 * 32 * (58 / 16.0));
}

TEST(Report, TheLineTellsTheTimeLeft) {
  StepReport report;
  report.step = 120;
  report.steps = 2000;
  report.loss = 3.41204;
  report.tokens = 120 * 1000;
  report.mfu = 0.434;
  EXPECT_EQ(progress_text(report, 12345), "step 120/2000  loss 3.4120  12,345 tokens/s  MFU 43 %  2:33 left");
  report.experts = StepReport::Experts{1.834, 0.214, 2};
  EXPECT_EQ(
      progress_text(report, 12345),
      "step 120/2000  loss 3.4120  12,345 tokens/s  MFU 43 %  experts 1.83, CV 0.21, 2 starved  2:33 left");
}

}  // namespace
}  // namespace mneme::train::checkpoint_test
