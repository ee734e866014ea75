#include "train/convert/conversion.h"

#include <algorithm>

#include "convert/export_hf.h"
#include "core/fail.h"
#include "model/checkpoint.h"
#include "model/load.h"
#include "model/load_tokenizer.h"
#include "train/convert/output.h"
#include "train/convert/stages.h"

namespace mneme::train {
namespace {

bool needs_map(const ModelConfig& config) {
  return std::any_of(config.tables.begin(), config.tables.end(),
                     [](const auto& entry) { return !entry.second.raw_ids; });
}

bool adds_memory(const Recipe& recipe) {
  return std::any_of(recipe.stages.begin(), recipe.stages.end(),
                     [](const Stage& s) { return s.kind == Stage::Kind::engram; });
}

uint64_t trained_tokens(const Json& report) {
  uint64_t sum = report.value("tokens", uint64_t{0});
  if (report.contains("transfer")) sum += report["transfer"].value("tokens", uint64_t{0});
  return sum;
}

}  // namespace

ConversionWork::ConversionWork(const ConversionOptions& options, ConvertedModel original,
                               std::shared_ptr<const Tokenizer> tokenizer, StateFolder& folder)
    : options_(options),
      recipe_(options.recipe),
      original_(std::move(original)),
      student_(original_),
      tokenizer_(std::move(tokenizer)),
      folder_(folder) {}

void ConversionWork::show(const std::string& what, uint64_t done, uint64_t of, uint64_t tokens,
                          const std::string& figures) const {
  if (options_.progress)
    options_.progress({state_.stage, recipe_.stages.size(), what, done, of, tokens, figures});
}

Tick ConversionWork::tick(const std::string& what) const {
  return [this, what](uint64_t done, uint64_t of) {
    show(what, done, of);
    require(!stopping(), ErrorCode::cancelled,
            "stopped in stage {} ({}); the same command goes on from there", state_.stage, what);
  };
}

void ConversionWork::collect(const ConvertedModel& model, const std::string& prefix,
                             NamedTensors& out) const {
  for (const std::string& name : model.parameters.names()) {
    const Tensor& tensor = model.parameters.at(name);
    const bool shared =
        original_.parameters.has(name) && original_.parameters.at(name).data_ptr() == tensor.data_ptr();
    if (!shared) out.emplace(prefix + name, tensor);
  }
}

ConvertedModel ConversionWork::model_from(const ModelConfig& config, const NamedTensors& tensors,
                                          const std::string& prefix) const {
  ConvertedModel out{config, {}, original_.tables, original_.ids};
  for (const ExpectedTensor& expected : expected_tensors(config)) {
    const auto saved = tensors.find(prefix + expected.name);
    const Tensor& value = saved != tensors.end() ? saved->second : original_.parameters.at(expected.name);
    require(value.sizes().vec() == std::vector<int64_t>(expected.shape.begin(), expected.shape.end()),
            ErrorCode::corrupt, "the saved state of the conversion holds a tensor {} of another shape",
            expected.name);
    out.parameters.add(expected.name, value);
  }
  for (const auto& [name, table] : config.tables) {
    if (const auto saved = tensors.find("table." + name); saved != tensors.end()) {
      out.tables.erase(name);
      out.tables.emplace(name, RowTable(saved->second));
    }
    if (!out.ids.contains(name)) out.ids.emplace(name, EngramIds(table, table.raw_ids ? nullptr : map_));
    require(out.tables.contains(name), ErrorCode::corrupt,
            "the saved state of the conversion holds no rows of table {}", name);
  }
  return out;
}

void ConversionWork::count_seconds() {
  const auto now = Clock::now();
  state_.seconds += std::chrono::duration<double>(now - since_).count();
  since_ = now;
}

void ConversionWork::save(const NamedTensors& stage) {
  count_seconds();
  SavedState all{state_.stage, state_.reports, state_.inner, state_.seconds, student_.config, {}};
  collect(student_, "model.", all.tensors);
  for (const auto& [name, table] : student_.tables) {
    const auto original = original_.tables.find(name);
    if (original == original_.tables.end() ||
        original->second.values().data_ptr() != table.values().data_ptr())
      all.tensors.emplace("table." + name, table.values());
  }
  for (const auto& [name, tensor] : stage) all.tensors.emplace("stage." + name, tensor);
  folder_.save(all);
}

void ConversionWork::save_numbers() {
  count_seconds();
  folder_.save_numbers(state_);
}

void ConversionWork::restore(const SavedState& saved) {
  require(saved.stage <= recipe_.stages.size(), ErrorCode::corrupt,
          "the saved state of the conversion is beyond the recipe's end");
  state_ = saved;
  student_ = model_from(saved.config, saved.tensors, "model.");
}

void ConversionWork::open_models() {
  if (needs_map(original_.config) || adds_memory(recipe_)) {
    require(tokenizer_ != nullptr, ErrorCode::not_found,
            "the model has no tokenizer, which a memory's token map is made from");
    map_ = std::make_shared<const TokenMap>(TokenMap::build(*tokenizer_));
  }
  check_recipe(recipe_, original_.config, map_ ? map_->classes() : 0);
}

void ConversionWork::open() {
  open_models();
  texts_ = open_texts(recipe_, tokenizer_.get(), folder_.path() / "shards", std::max(1, options_.threads),
                      tick("reading texts"));
  if (const auto saved = folder_.load()) restore(*saved);
}

void ConversionWork::report_quality(Json& report, const char* field) {
  if (texts_.held_out.empty()) return;
  SpikeTally tally;
  report[field] =
      measure(student_, texts_.held_out, recipe_.tokens, tick("measuring perplexity"), &tally).ppl();
  if (!tally.empty()) report["activity"] = tally.report();
}

void ConversionWork::run_stage(size_t number) {
  const Stage& stage = recipe_.stages[number];
  const std::vector<uint32_t> layers =
      candidate_layers(stage.layers, student_.config, original_.config, fmt::format("stages[{}]", number));
  Json report = {{"kind", to_string(stage.kind)}};
  const auto save_student = [this](const NamedTensors& moments) { save(moments); };
  switch (stage.kind) {
    case Stage::Kind::window:
    case Stage::Kind::hybrid:
    case Stage::Kind::parallel:
      if (stage.layers.choose > 0)
        choose(stage, layers, report);
      else
        swap(stage, layers, report);
      break;
    case Stage::Kind::engram:
      add_memory(stage, layers);
      report["layers"] = layers;
      break;
    case Stage::Kind::upcycle:
      upcycle(stage, report);
      break;
    case Stage::Kind::transfer:
      report["layers"] = layers;
      converted_config(student_.config, original_.config, stage, number, layers,
                       0);  // that they are converted
      transfer(student_, layers, stage.tune, state_.inner, save_student, report);
      break;
    case Stage::Kind::distill:
      distill(layers, stage.tune, nullptr, report);
      break;
    case Stage::Kind::spike:
      report["layers"] = layers;
      distill(layers, stage.tune, &stage.spikes, report);
      break;
  }
  if (!texts_.held_out.empty())
    report["ppl_before"] = state_.reports.back()[number == 0 ? "ppl" : "ppl_after"];
  report_quality(report, "ppl_after");
  count_seconds();
  report["seconds"] = state_.seconds;
  state_.reports.push_back(report);
  state_.stage = number + 1;
  state_.inner = nullptr;
  state_.seconds = 0;
  state_.tensors.clear();
  save({});
}

Json ConversionWork::run() {
  open();
  if (state_.reports.empty()) {
    Json report = {{"kind", "original"}};
    report_quality(report, "ppl");
    state_.reports.push_back(report);
    state_.seconds = 0;
    save({});
  }
  since_ = Clock::now();
  while (state_.stage < recipe_.stages.size()) run_stage(state_.stage);
  return summary();
}

Json ConversionWork::saved() {
  open_models();
  const auto saved = folder_.load();
  require(saved.has_value(), ErrorCode::not_found,
          "nothing of a conversion into {} is saved yet: there is no snapshot to write",
          options_.out.string());
  restore(*saved);
  Json out = summary();
  if (state_.stage < recipe_.stages.size()) {
    out["unfinished"] = {{"stage", state_.stage}, {"kind", to_string(recipe_.stages[state_.stage].kind)}};
    for (const char* number : {"step", "quality"})
      if (state_.inner.is_object() && state_.inner.contains(number))
        out["unfinished"][number] = state_.inner[number];
  }
  return out;
}

Json ConversionWork::summary() const {
  const Json& reports = state_.reports;
  Json out = {{"original", reports.front()}, {"stages", Json::array()}};
  out["original"].erase("kind");
  double seconds = 0;
  uint64_t tokens = 0;
  for (size_t i = 1; i < reports.size(); ++i) {
    out["stages"].push_back(reports[i]);
    seconds += reports[i].value("seconds", 0.0);
    tokens += trained_tokens(reports[i]);
  }
  if (reports.back().contains("ppl_after")) out["ppl"] = reports.back()["ppl_after"];
  out["tokens"] = tokens;
  out["seconds"] = seconds;
  return out;
}

Json convert_model(const ConversionOptions& options) {
  const bool snapshot = !options.snapshot.empty();
  check_new_folder(snapshot ? options.snapshot : options.out);
  at::set_num_threads(std::max(1, options.threads));
  const Checkpoint checkpoint = open_checkpoint(options.in);
  std::shared_ptr<const Tokenizer> tokenizer = load_tokenizer(checkpoint);
  StateFolder folder(options.out, options.recipe.hashes, checkpoint_hash(options.in.string()));
  if (options.restart && !snapshot) folder.clear();
  ConversionWork work(options, load_original(options.in), tokenizer, folder);
  const Json summary = snapshot ? work.saved() : work.run();
  write_output(work.model(), checkpoint, summary, snapshot ? options.snapshot : options.out);
  if (!snapshot) folder.remove();
  return summary;
}

}  // namespace mneme::train
