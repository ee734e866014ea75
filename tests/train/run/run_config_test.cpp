// What a run's config accepts, what it refuses and with which words, and what a resumed run may change.
#include "train/run/run_config.h"

#include <gmock/gmock.h>

#include "mneme/error.h"
#include "train/run/together.h"

namespace mneme::train::run_config_test {
namespace {

using ::testing::HasSubstr;

Json small() {
  return Json::parse(R"({"mneme_train": 1,
    "model": {"mneme": 1, "d_model": 16, "vocab": 64, "context": 32, "tied": true,
              "defaults": {"mixer": {"heads": 2, "kv_heads": 1, "head_dim": 8}, "ffn": {"type": "dense", "hidden": 16}},
              "layers": [{"mixer": {"type": "full"}}]},
    "tokenizer": "t.json", "data": {"train": ["a.txt"], "validation": ["b.txt"], "length": 32}, "steps": 100})");
}

RunConfig parsed(const Json& json) {
  return RunConfig::from_json(json.dump(), "/folder", "run.json");
}

std::string refused(const Json& json) {
  try {
    parsed(json);
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

TEST(RunConfig, WritesEveryFieldAndReadsItBack) {
  Json json = small();
  json["optimiser"] = {{"type", "muon"}, {"momentum", 0.9}, {"rows", {{"type", "scalar"}, {"lr_scale", 2}}}};
  json["schedule"] = {{"type", "wsd"}, {"warmup", 3}, {"decay", 0.5}};
  json["experts"] = {{"balance", 0.5}, {"null_share", 0.25}};
  const RunConfig run = parsed(json);
  EXPECT_EQ(run.experts, (BalanceConfig{0.5, 0, 1e-3, 0.25}));
  EXPECT_EQ(run.tokenizer, "/folder/t.json");
  EXPECT_EQ(run.data.train.at(0), "/folder/a.txt");
  EXPECT_EQ(run.batch.global(), 8u);
  const Json written = run.to_json();
  EXPECT_EQ(parsed(written).to_json(), written);
}

TEST(RunConfig, TokensBecomeWholeSteps) {
  Json json = small();
  json.erase("steps");
  json["tokens"] = 8 * 32 * 10 + 1;
  EXPECT_EQ(parsed(json).steps, 11u);
  json["steps"] = 5;
  EXPECT_THAT(refused(json), HasSubstr("steps and tokens are both given"));
}

TEST(RunConfig, RefusesByPathWithTheNearestName) {
  const auto with = [](const char* pointer, Json value) {
    Json json = small();
    json[Json::json_pointer(pointer)] = std::move(value);
    return refused(json);
  };
  EXPECT_THAT(with("/batch", Json{{"sequencs", 4}}),
              HasSubstr("run.json: batch.sequencs is not a known field; did you mean \"sequences\"?"));
  EXPECT_THAT(with("/optimizer", Json::object()), HasSubstr("did you mean \"optimiser\"?"));
  EXPECT_THAT(with("/model/layers/0/mixer/type", "fuul"),
              HasSubstr("model: layers[0].mixer.type is \"fuul\""));
  EXPECT_THAT(with("/optimiser", Json{{"momentum", 0.9}}),
              HasSubstr("optimiser.momentum is given, but only the type \"muon\" has it"));
  EXPECT_THAT(with("/optimiser", Json{{"betas", {0.9, 1.0}}}), HasSubstr("optimiser.betas must be two"));
  EXPECT_THAT(with("/precision", "f16"), HasSubstr("one of: f32, bf16"));
  EXPECT_THAT(with("/schedule", Json{{"warmup", 100}}),
              HasSubstr("schedule.warmup is 100 steps, but the whole run has 100"));
  EXPECT_THAT(with("/schedule", Json{{"type", "constant"}, {"floor", 0.5}}), HasSubstr("never falls"));
  EXPECT_THAT(with("/early_stop", Json{{"patience", 3}}), HasSubstr("validate.every is 0"));
  EXPECT_THAT(with("/data/length", 33), HasSubstr("data.length is 33, but model.context is 32"));
  EXPECT_THAT(with("/data/train", Json::array()), HasSubstr("data.train names no text"));
  EXPECT_THAT(with("/samples", Json{{"every", 3}}), HasSubstr("samples.prompts is empty"));
  EXPECT_THAT(with("/steps", -1), HasSubstr("steps is -1"));
  EXPECT_THAT(with("/mneme_train", 2), HasSubstr("mneme_train must be 1"));
  EXPECT_THAT(with("/optimiser", Json{{"eps", 0}}),
              HasSubstr("optimiser.eps is 0"));  // 0 / 0 without gradient
  EXPECT_THAT(with("/optimiser", Json{{"rows", {{"eps", 1e-46}}}}), HasSubstr("optimiser.rows.eps is 1e-46"));
}

TEST(RunConfig, SizesThatMultiplyBeyondAllNumbersAreRefused) {
  Json json = small();
  json.erase("steps");
  json["tokens"] = 1;
  json["batch"] = {{"sequences", 1 << 20}, {"accumulate", 1 << 20}};
  json["data"]["length"] = 1 << 24;  // 2^64 tokens a step
  EXPECT_THAT(refused(json), HasSubstr("1048576 x 1048576 x 16777216, which is too large"));
  json = small();
  json.erase("steps");
  json["tokens"] = uint64_t{1} << 62;
  EXPECT_THAT(refused(json), HasSubstr("tokens is 4611686018427387904"));
}

TEST(RunConfig, NamesThatAreNoTextDoNotHurt) {
  const RunConfig run = RunConfig::from_json(small().dump(), "/folder\xff", "run.json");
  EXPECT_EQ(run_identity(run), run_identity(run));
}

TEST(Schedule, RisesAndFallsAsDescribed) {
  ScheduleConfig cosine{ScheduleConfig::Type::cosine, 10, 0.1, 0.2};
  EXPECT_DOUBLE_EQ(schedule_factor(cosine, 1, 110), 0.1);
  EXPECT_DOUBLE_EQ(schedule_factor(cosine, 10, 110), 1.0);
  EXPECT_NEAR(schedule_factor(cosine, 60, 110), 0.55, 1e-12);  // half way: (1 + 0.1) / 2
  EXPECT_NEAR(schedule_factor(cosine, 35, 110), 0.1 + 0.9 * 0.5 * (1 + std::sqrt(0.5)), 1e-12);
  EXPECT_NEAR(schedule_factor(cosine, 110, 110), 0.1, 1e-12);
  const ScheduleConfig wsd{ScheduleConfig::Type::wsd, 0, 0.0, 0.2};
  EXPECT_DOUBLE_EQ(schedule_factor(wsd, 80, 100), 1.0);
  EXPECT_DOUBLE_EQ(schedule_factor(wsd, 90, 100), 0.5);
  EXPECT_DOUBLE_EQ(schedule_factor(wsd, 100, 100), 0.0);
  EXPECT_DOUBLE_EQ(schedule_factor({ScheduleConfig::Type::constant, 0, 0.1, 0.2}, 1, 100), 1.0);
}

TEST(RunConfig, AResumedRunMayWatchOtherwiseButNotLearnOtherwise) {
  const Json saved = parsed(small()).to_json();
  const auto changed = [&](const char* pointer, Json value, uint64_t done = 50) {
    Json json = small();
    json[Json::json_pointer(pointer)] = std::move(value);
    return first_difference(saved, parsed(json).to_json(), done);
  };
  EXPECT_EQ(changed("/save", Json{{"every", 7}}), "");
  EXPECT_EQ(changed("/threads", 3), "");
  EXPECT_EQ(changed("/seed", 3), "seed");
  EXPECT_EQ(changed("/optimiser", Json{{"lr", 0.5}}), "optimiser.lr");
  EXPECT_EQ(changed("/model/layers/0/mixer", Json{{"type", "window"}, {"window", 8}}),
            "model.defaults.mixer.type");
  EXPECT_EQ(changed("/steps", 200), "steps");  // the cosine would have been another
  EXPECT_EQ(changed("/steps", 200, 0), "");    // nothing was learned yet
  EXPECT_EQ(changed("/batch", Json{{"accumulate", 2}}), "batch.accumulate");
  EXPECT_EQ(changed("/experts", Json{{"balance", 0.5}}), "experts.balance");
  Json before = saved;  // a run of a time without experts
  before.erase("experts");
  EXPECT_EQ(first_difference(before, saved, 50), "");
}

TEST(RunConfig, AModelThatIsAPathIsComparedByWhatItIs) {
  const Json saved = parsed(small()).to_json();
  Json json = small();
  json["model"] = "other.json";
  EXPECT_EQ(first_difference(saved, parsed(json).to_json(), 5), "");
  const ModelConfig model = *parsed(small()).model;
  ModelConfig changed = model;
  changed.name = "renamed";
  EXPECT_EQ(first_difference_of_models(model, changed), "");
  changed.embedding_scale = 2;
  EXPECT_EQ(first_difference_of_models(model, changed), "model.embedding_scale");
}

}  // namespace
}  // namespace mneme::train::run_config_test
