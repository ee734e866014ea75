#include "convert/calibration_recipe.h"

#include <algorithm>

#include "core/fail.h"
#include "core/json_fields.h"
#include "model/config_limits.h"
#include "model/config_names.h"

namespace mneme {
namespace {

constexpr uint64_t kMostTokens = uint64_t{1} << 40;
constexpr double kMostBudget = 10;
constexpr size_t kMostFiles = 4096, kMostValues = 64;

bool is_calibration(const Json& stage) {
  return stage.is_object() && stage.contains("kind") && stage["kind"] == "calibrate";
}

std::vector<fs::path> paths_of(JsonFields& data, const char* name, const fs::path& folder) {
  std::vector<fs::path> out;
  for (const std::string& text : data.strings(name, kMostFiles)) {
    require(!text.empty(), ErrorCode::invalid_argument, "{} holds an empty path", data.where(name));
    out.push_back(fs::path(text).is_absolute() ? fs::path(text) : folder / text);
  }
  require(!out.empty(), ErrorCode::invalid_argument, "{} is empty; name at least one text file",
          data.where(name));
  return out;
}

Projection projection_named(const std::string& name, const std::string& where) {
  std::vector<std::string> known;
  for (const auto& [projection, word] : config_names::kProjectionNames) {
    if (projection == Projection::recurrence || projection == Projection::memory) continue;
    if (word == name) return projection;
    known.emplace_back(word);
  }
  const std::string near = nearest_name(name, known);
  fail(ErrorCode::invalid_argument, "{} has \"{}\"{}; it may have {}", where, name.substr(0, 64),
       near.empty() ? "" : fmt::format(" (did you mean \"{}\"?)", near), fmt::join(known, ", "));
}

void read_data(JsonFields& data, const fs::path& folder, CalibrationRecipe& out) {
  out.train = paths_of(data, "train", folder);
  if (data.has("validation")) out.validation = paths_of(data, "validation", folder);
  out.context = data.u32("context", 4, 1 << 24, out.context);
  out.held_out = data.u64("tokens", out.context, kMostTokens, std::max<uint64_t>(out.held_out, out.context));
  data.finish();
}

void read_stage(JsonFields& stage, CalibrationRecipe& out) {
  stage.string("kind");
  out.budget = stage.number("budget", 0, kMostBudget, out.budget);
  require(out.budget > 0, ErrorCode::invalid_argument,
          "{} is 0, but must be above: 0.02 allows 2 % more perplexity", stage.where("budget"));
  out.tokens = stage.u64("tokens", 2 * uint64_t{out.context}, kMostTokens,
                         std::max<uint64_t>(out.tokens, 2 * uint64_t{out.context}));
  out.probe_tokens = stage.u64("probe_tokens", 1, kMostTokens, out.probe_tokens);
  out.rounds = stage.u32("rounds", 1, 8, out.rounds);
  out.share = stage.boolean("share", out.share);
  if (stage.has("k")) {
    out.ks = stage.numbers("k", config_limits::kMinFiringK, config_limits::kMaxFiringK, kMostValues);
    require(!out.ks.empty(), ErrorCode::invalid_argument, "{} is empty; name at least one", stage.where("k"));
  }
  if (stage.has("curve")) out.curve = stage.numbers("curve", 1e-9, kMostBudget, kMostValues);
  if (stage.has("projections")) {
    for (const std::string& name : stage.strings("projections", kProjections)) {
      const Projection projection = projection_named(name, stage.where("projections"));
      require(!std::ranges::count(out.projections, projection), ErrorCode::invalid_argument,
              "{} names {} twice", stage.where("projections"), name);
      out.projections.push_back(projection);
    }
    require(!out.projections.empty(), ErrorCode::invalid_argument, "{} is empty; name at least one",
            stage.where("projections"));
  }
  out.weights = stage.string("weights", std::string());
  require(out.weights.empty() || out.weights == "q8_0", ErrorCode::invalid_argument,
          "{} is \"{}\"; it must be q8_0, or left out for weights as they are stored", stage.where("weights"),
          out.weights.substr(0, 64));
  stage.finish();
}

}  // namespace

std::optional<CalibrationRecipe> CalibrationRecipe::from_json(std::string_view text, const fs::path& folder,
                                                              std::string_view name) {
  const Json json = parse_json(text, name);
  if (!json.is_object() || !json.contains("stages") || !json["stages"].is_array()) return std::nullopt;
  const Json& stages = json["stages"];
  const auto found = std::find_if(stages.begin(), stages.end(), is_calibration);
  if (found == stages.end()) return std::nullopt;
  require(
      stages.size() == 1, ErrorCode::invalid_argument,
      "{}: stages[{}] calibrates, and must be the only stage: convert with the others first, then calibrate "
      "what comes out",
      name, found - stages.begin());
  CalibrationRecipe out;
  JsonFields fields(json, std::string(name), ErrorCode::invalid_argument);
  fields.u32("mneme_convert", 1, 1);
  fields.string("about", std::string());
  fields.find("stages");
  JsonFields data = fields.object("data");
  read_data(data, folder, out);
  JsonFields stage(*found, fmt::format("{}: stages[0]", name), ErrorCode::invalid_argument);
  read_stage(stage, out);
  fields.finish();
  return out;
}

std::optional<CalibrationRecipe> CalibrationRecipe::load(const fs::path& file) {
  return from_json(read_text_file(file, uint64_t{1} << 20), fs::absolute(file).parent_path(), file.string());
}

}  // namespace mneme
