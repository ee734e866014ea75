#include "train/run/run_config.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/fail.h"
#include "core/json_fields.h"

namespace mneme::train {
namespace {

constexpr uint64_t kMostSteps = uint64_t{1} << 40;
constexpr double kMostRate = 1e30;
constexpr double kLeastEps = 1e-30;  // below, f32 may round it to 0, and a gradient of 0 moves by 0 / 0
constexpr uint64_t kMostTokens = uint64_t{1} << 48;  // of a step
constexpr size_t kMostPaths = 100000;

template <class E>
struct Word {
  E value;
  std::string_view word;
};
constexpr std::array kRowTypes{Word{RowOptimiserConfig::Type::adam, "adam"},
                               Word{RowOptimiserConfig::Type::scalar, "scalar"}};
constexpr std::array kOptimisers{Word{OptimiserConfig::Type::adamw, "adamw"},
                                 Word{OptimiserConfig::Type::muon, "muon"}};
constexpr std::array kSchedules{Word{ScheduleConfig::Type::cosine, "cosine"},
                                Word{ScheduleConfig::Type::wsd, "wsd"},
                                Word{ScheduleConfig::Type::constant, "constant"}};
constexpr std::array kPrecisions{Word{Precision::f32, "f32"}, Word{Precision::bf16, "bf16"}};

template <class E, size_t N>
E read_word(JsonFields& fields, const char* name, const std::array<Word<E>, N>& table, E fallback) {
  if (!fields.has(name)) return fallback;
  const std::string word = fields.string(name);
  std::string allowed;
  for (const auto& [value, candidate] : table) {
    if (candidate == word) return value;
    allowed += (allowed.empty() ? "" : ", ") + std::string(candidate);
  }
  fail(ErrorCode::invalid_argument, "{} is \"{}\", but must be one of: {}", fields.where(name),
       word.substr(0, 64), allowed);
}

template <class E, size_t N>
std::string to_word(const std::array<Word<E>, N>& table, E value) {
  for (const auto& entry : table)
    if (entry.value == value) return std::string(entry.word);
  fail(ErrorCode::internal, "a run config holds a value without a name");
}

/// Refuses a field that means something for another `type` only.
void only_for(JsonFields& fields, const char* name, bool fits, std::string_view type) {
  require(fits || !fields.has(name), ErrorCode::invalid_argument,
          "{} is given, but only the type \"{}\" has it", fields.where(name), type);
}

fs::path resolved(const std::string& path, const fs::path& folder) {
  const fs::path p(path);
  return p.empty() || p.is_absolute() ? p : (folder / p).lexically_normal();
}

std::vector<fs::path> read_paths(JsonFields& fields, const char* name, const fs::path& folder) {
  std::vector<fs::path> out;
  if (!fields.has(name)) return out;
  for (const std::string& path : fields.strings(name, kMostPaths)) {
    require(!path.empty(), ErrorCode::invalid_argument, "{} holds an empty path", fields.where(name));
    out.push_back(resolved(path, folder));
  }
  return out;
}

std::array<double, 2> read_betas(JsonFields& fields, std::array<double, 2> fallback) {
  if (!fields.has("betas")) return fallback;
  const std::vector<double> values = fields.numbers("betas", 0.0, 1.0, 2);
  require(values.size() == 2 && values[0] < 1 && values[1] < 1, ErrorCode::invalid_argument,
          "{} must be two numbers from 0 to below 1", fields.where("betas"));
  return {values[0], values[1]};
}

DataConfig read_data(JsonFields fields, const fs::path& folder) {
  DataConfig out;
  out.train = read_paths(fields, "train", folder);
  out.validation = read_paths(fields, "validation", folder);
  out.hold_out = fields.number("hold_out", 0.0, 0.5, out.hold_out);
  out.length = fields.u32("length", 1, 1u << 24, out.length);
  out.text_field = fields.string("text_field", out.text_field);
  fields.finish();
  return out;
}

BatchConfig read_batch(JsonFields fields) {
  BatchConfig out;
  out.sequences = fields.u32("sequences", 1, 1u << 20, out.sequences);
  out.accumulate = fields.u32("accumulate", 1, 1u << 20, out.accumulate);
  fields.finish();
  return out;
}

RowOptimiserConfig read_rows(JsonFields fields) {
  RowOptimiserConfig out;
  out.type = read_word(fields, "type", kRowTypes, out.type);
  out.lr_scale = fields.number("lr_scale", 0.0, 1e6, out.lr_scale);
  out.betas = read_betas(fields, out.betas);
  out.eps = fields.number("eps", kLeastEps, 1.0, out.eps);
  fields.finish();
  return out;
}

OptimiserConfig read_optimiser(JsonFields fields) {
  OptimiserConfig out;
  out.type = read_word(fields, "type", kOptimisers, out.type);
  const bool muon = out.type == OptimiserConfig::Type::muon;
  only_for(fields, "momentum", muon, "muon");
  only_for(fields, "iterations", muon, "muon");
  out.lr = fields.number("lr", 0.0, kMostRate, out.lr);
  out.betas = read_betas(fields, out.betas);
  out.eps = fields.number("eps", kLeastEps, 1.0, out.eps);
  out.weight_decay = fields.number("weight_decay", 0.0, 1e3, out.weight_decay);
  out.clip = fields.number("clip", 0.0, kMostRate, out.clip);
  out.momentum = fields.number("momentum", 0.0, 0.9999, out.momentum);
  out.iterations = fields.u32("iterations", 1, 20, out.iterations);
  if (fields.has("rows")) out.rows = read_rows(fields.object("rows"));
  fields.finish();
  return out;
}

uint64_t default_warmup(uint64_t steps) {
  return std::min<uint64_t>(steps / 20, 200);
}

ScheduleConfig read_schedule(JsonFields fields, uint64_t steps) {
  ScheduleConfig out;
  out.type = read_word(fields, "type", kSchedules, out.type);
  only_for(fields, "decay", out.type == ScheduleConfig::Type::wsd, "wsd");
  require(out.type != ScheduleConfig::Type::constant || !fields.has("floor"), ErrorCode::invalid_argument,
          "{} is given, but the type \"constant\" never falls", fields.where("floor"));
  out.warmup = fields.u64("warmup", 0, kMostSteps, default_warmup(steps));
  out.floor = fields.number("floor", 0.0, 1.0, out.floor);
  out.decay = fields.number("decay", 0.0, 1.0, out.decay);
  fields.finish();
  return out;
}

ValidateConfig read_validate(JsonFields fields) {
  ValidateConfig out;
  out.every = fields.u64("every", 0, kMostSteps, out.every);
  out.tokens = fields.u64("tokens", 1, uint64_t{1} << 40, out.tokens);
  fields.finish();
  return out;
}

SamplesConfig read_samples(JsonFields fields) {
  SamplesConfig out;
  out.every = fields.u64("every", 0, kMostSteps, out.every);
  if (fields.has("prompts")) out.prompts = fields.strings("prompts", 64);
  out.tokens = fields.u32("tokens", 1, 1u << 16, out.tokens);
  out.temperature = fields.number("temperature", 0.0, 100.0, out.temperature);
  fields.finish();
  return out;
}

SaveConfig read_save(JsonFields fields) {
  SaveConfig out;
  out.every = fields.u64("every", 0, kMostSteps, out.every);
  out.keep = fields.u32("keep", 0, 1u << 20, out.keep);
  fields.finish();
  return out;
}

EarlyStopConfig read_early_stop(JsonFields fields) {
  EarlyStopConfig out;
  out.patience = fields.u32("patience", 0, 1u << 20, out.patience);
  out.min_delta = fields.number("min_delta", 0.0, 100.0, out.min_delta);
  fields.finish();
  return out;
}

void read_model(JsonFields& fields, const fs::path& folder, RunConfig& out) {
  const Json* const model = fields.find("model");
  require(model != nullptr, ErrorCode::invalid_argument,
          "model is missing: a description (docs/config.md), or the path of one or of a checkpoint");
  if (model->is_string()) {
    out.model_path = resolved(model->get<std::string>(), folder);
    return;
  }
  require(model->is_object(), ErrorCode::invalid_argument,
          "model must be a description (docs/config.md), or the path of one or of a checkpoint");
  try {
    out.model = ModelConfig::from_json(model->dump());
  } catch (const Error& error) {
    fail(error.code(), "model: {}", error.what());
  }
}

RunConfig read_run(const Json& document, const fs::path& folder) {
  JsonFields fields(document, "", ErrorCode::invalid_argument);
  RunConfig out;
  require(fields.u32("mneme_train", 0, 1u << 30) == 1, ErrorCode::unsupported,
          "mneme_train must be 1, the only version of this schema");
  read_model(fields, folder, out);
  out.tokenizer = resolved(fields.string("tokenizer", ""), folder);
  out.data = read_data(fields.object("data"), folder);
  if (fields.has("batch")) out.batch = read_batch(fields.object("batch"));
  require(out.batch.global() <= kMostTokens / out.data.length, ErrorCode::invalid_argument,
          "batch.sequences x batch.accumulate x data.length is {} x {} x {}, which is too large",
          out.batch.sequences, out.batch.accumulate, out.data.length);
  require(!(fields.has("steps") && fields.has("tokens")), ErrorCode::invalid_argument,
          "steps and tokens are both given, but say the same thing: keep one");
  require(fields.has("steps") || fields.has("tokens"), ErrorCode::invalid_argument,
          "steps (or tokens) is missing: how long to train");
  if (fields.has("tokens")) {
    const uint64_t tokens = fields.u64("tokens", 1, uint64_t{1} << 62), step = out.tokens_per_step();
    out.steps = (tokens + step - 1) / step;
    require(out.steps <= kMostSteps, ErrorCode::invalid_argument,
            "tokens is {}: {} steps of {} tokens, at most {} can be", tokens, out.steps, step, kMostSteps);
  } else {
    out.steps = fields.u64("steps", 1, kMostSteps);
  }
  if (fields.has("optimiser")) out.optimiser = read_optimiser(fields.object("optimiser"));
  out.schedule.warmup = default_warmup(out.steps);
  if (fields.has("schedule")) out.schedule = read_schedule(fields.object("schedule"), out.steps);
  if (fields.has("experts")) out.experts = BalanceConfig::from_json(fields.object("experts"));
  out.precision = read_word(fields, "precision", kPrecisions, out.precision);
  out.checkpoint_layers = fields.boolean("checkpoint_layers", out.checkpoint_layers);
  if (fields.has("validate")) out.validate = read_validate(fields.object("validate"));
  if (fields.has("samples")) out.samples = read_samples(fields.object("samples"));
  if (fields.has("save")) out.save = read_save(fields.object("save"));
  if (fields.has("early_stop")) out.early_stop = read_early_stop(fields.object("early_stop"));
  out.seed = fields.u64("seed", 0, UINT64_MAX, out.seed);
  out.threads = fields.u32("threads", 0, 1024, out.threads);
  out.device = fields.string("device", out.device);
  out.out = resolved(fields.string("out", ""), folder);
  fields.finish();
  return out;
}

Json paths_json(const std::vector<fs::path>& paths) {
  Json out = Json::array();
  for (const fs::path& path : paths) out.push_back(path.string());
  return out;
}

}  // namespace

void RunConfig::check() const {
  const auto wrong = [](bool is, std::string_view message) {
    require(!is, ErrorCode::invalid_argument, "{}", message);
  };
  wrong(data.train.empty(), "data.train names no text and no shards to train on");
  wrong(
      validate.every > 0 && data.validation.empty() && data.hold_out == 0,
      "validate.every is given, but there is nothing to validate on: name texts in data.validation, or give "
      "data.hold_out");
  wrong(!data.validation.empty() && data.hold_out > 0,
        "data.validation and data.hold_out are both given: keep one");
  wrong(early_stop.patience > 0 && validate.every == 0,
        "early_stop.patience is given, but validate.every is 0: without validation nothing can stop early");
  wrong(samples.every > 0 && samples.prompts.empty(), "samples.every is given, but samples.prompts is empty");
  wrong(schedule.warmup >= steps && schedule.warmup > 0,
        fmt::format("schedule.warmup is {} steps, but the whole run has {}", schedule.warmup, steps));
  wrong(model && data.length > model->context && model->context > 0,
        fmt::format("data.length is {}, but model.context is {}: the model would run shorter than it was "
                    "trained",
                    data.length, model ? model->context : 0));
  wrong(optimiser.lr <= 0, "optimiser.lr must be above 0");
  wrong(device.empty(), "device is empty; \"cpu\" is the usual one");
}

Json RunConfig::to_json() const {
  const auto& o = optimiser;
  Json rows{{"type", to_word(kRowTypes, o.rows.type)},
            {"lr_scale", o.rows.lr_scale},
            {"betas", o.rows.betas},
            {"eps", o.rows.eps}};
  Json optimiser_json{
      {"type", to_word(kOptimisers, o.type)}, {"lr", o.lr},     {"betas", o.betas},       {"eps", o.eps},
      {"weight_decay", o.weight_decay},       {"clip", o.clip}, {"rows", std::move(rows)}};
  if (o.type == OptimiserConfig::Type::muon) {
    optimiser_json["momentum"] = o.momentum;
    optimiser_json["iterations"] = o.iterations;
  }
  Json schedule_json{{"type", to_word(kSchedules, schedule.type)}, {"warmup", schedule.warmup}};
  if (schedule.type != ScheduleConfig::Type::constant) schedule_json["floor"] = schedule.floor;
  if (schedule.type == ScheduleConfig::Type::wsd) schedule_json["decay"] = schedule.decay;
  return {{"mneme_train", 1},
          {"model", model ? Json::parse(model->to_json()) : Json(model_path.string())},
          {"tokenizer", tokenizer.string()},
          {"data",
           {{"train", paths_json(data.train)},
            {"validation", paths_json(data.validation)},
            {"hold_out", data.hold_out},
            {"length", data.length},
            {"text_field", data.text_field}}},
          {"batch", {{"sequences", batch.sequences}, {"accumulate", batch.accumulate}}},
          {"steps", steps},
          {"optimiser", std::move(optimiser_json)},
          {"schedule", std::move(schedule_json)},
          {"experts", experts.to_json()},
          {"precision", to_word(kPrecisions, precision)},
          {"checkpoint_layers", checkpoint_layers},
          {"validate", {{"every", validate.every}, {"tokens", validate.tokens}}},
          {"samples",
           {{"every", samples.every},
            {"prompts", samples.prompts},
            {"tokens", samples.tokens},
            {"temperature", samples.temperature}}},
          {"save", {{"every", save.every}, {"keep", save.keep}}},
          {"early_stop", {{"patience", early_stop.patience}, {"min_delta", early_stop.min_delta}}},
          {"seed", seed},
          {"threads", threads},
          {"device", device},
          {"out", out.string()}};
}

RunConfig RunConfig::from_document(const Json& document, const fs::path& folder, std::string_view name) {
  try {
    RunConfig out = read_run(document, folder);
    out.check();
    return out;
  } catch (const Error& error) {
    fail(error.code(), "{}: {}", name, error.what());
  }
}

RunConfig RunConfig::from_json(std::string_view json, const fs::path& folder, std::string_view name) {
  return from_document(parse_json(json, name), folder, name);
}

RunConfig RunConfig::load(const fs::path& file, const Json& instead) {
  const std::string name = file.string();
  Json document = parse_json(read_text_file(file, uint64_t{64} << 20), name);
  require(document.is_object(), ErrorCode::corrupt, "{}: a JSON object is wanted", name);
  for (const auto& [key, value] : instead.items()) document[key] = value;
  if (instead.contains("steps")) document.erase("tokens");
  return from_document(document, fs::absolute(file).parent_path(), name);
}

double schedule_factor(const ScheduleConfig& schedule, uint64_t step, uint64_t steps) {
  const auto real = [](uint64_t n) { return static_cast<double>(n); };
  if (step <= schedule.warmup) return real(step) / real(schedule.warmup);
  const double left = steps > schedule.warmup
                          ? std::clamp(real(step - schedule.warmup) / real(steps - schedule.warmup), 0.0, 1.0)
                          : 1.0;
  switch (schedule.type) {
    case ScheduleConfig::Type::constant:
      return 1.0;
    case ScheduleConfig::Type::cosine:
      return schedule.floor + (1 - schedule.floor) * 0.5 * (1 + std::cos(std::numbers::pi * left));
    case ScheduleConfig::Type::wsd: {
      const double length = std::max(schedule.decay * real(steps), 1.0);
      const double into = real(step) - (real(steps) - length);
      return into <= 0 ? 1.0 : 1.0 - (1.0 - schedule.floor) * std::min(into / length, 1.0);
    }
  }
  return 1.0;
}

}  // namespace mneme::train
