// What may change between the parts of a run that is resumed, and what may not.
#include <algorithm>
#include <set>

#include "train/run/run_config.h"

namespace mneme::train {
namespace {

/// Fields that change what is shown or kept, and no number that is learned.
const std::set<std::string, std::less<>>& watching() {
  static const std::set<std::string, std::less<>> names{
      "validate",   "samples", "save",     "early_stop",      "threads",         "device",   "out",
      "data.train", "steps",   "schedule", "data.validation", "data.text_field", "tokenizer"};
  return names;
}

std::string differing(const Json& a, const Json& b, const std::string& path) {
  if (watching().contains(path) || a == b) return {};
  if (path == "model" && (a.is_string() || b.is_string())) return {};
  const auto below = [&](const std::string& name) { return path.empty() ? name : path + "." + name; };
  if (a.is_object() && b.is_object()) {
    for (const auto& [key, value] : a.items()) {
      const auto other = b.find(key);
      if (other == b.end()) return below(key);
      if (std::string found = differing(value, *other, below(key)); !found.empty()) return found;
    }
    for (const auto& [key, value] : b.items())
      if (!a.contains(key)) return below(key);
    return {};
  }
  if (a.is_array() && b.is_array() && a.size() == b.size()) {
    for (size_t i = 0; i < a.size(); ++i) {
      const std::string at = path + "[" + std::to_string(i) + "]";
      if (std::string found = differing(a[i], b[i], at); !found.empty()) return found;
    }
    return {};
  }
  return path;
}

ScheduleConfig schedule_of(const Json& run) {
  const Json& json = run.at("schedule");
  ScheduleConfig out;
  const std::string type = json.at("type").get<std::string>();
  out.type = type == "wsd"        ? ScheduleConfig::Type::wsd
             : type == "constant" ? ScheduleConfig::Type::constant
                                  : ScheduleConfig::Type::cosine;
  out.warmup = json.at("warmup").get<uint64_t>();
  out.floor = json.value("floor", out.floor);
  out.decay = json.value("decay", out.decay);
  return out;
}

}  // namespace

std::string first_difference(const Json& saved, const Json& resumed, uint64_t done) {
  Json known = saved;
  // A run that began before there were experts has none.
  if (!known.contains("experts")) known["experts"] = BalanceConfig().to_json();
  if (std::string found = differing(known, resumed, ""); !found.empty()) return found;
  const ScheduleConfig before = schedule_of(saved), after = schedule_of(resumed);
  const auto steps_before = saved.at("steps").get<uint64_t>(),
             steps_after = resumed.at("steps").get<uint64_t>();
  if (before == after && steps_before == steps_after) return {};
  for (uint64_t step = 1; step <= std::min(done, uint64_t{1} << 22); ++step)
    if (schedule_factor(before, step, steps_before) != schedule_factor(after, step, steps_after))
      return steps_before != steps_after ? "steps" : "schedule";
  return {};
}

Json model_fields(const ModelConfig& model) {
  Json json = Json::parse(model.to_json());
  json.erase("name");
  return json;
}

std::string first_difference_of_models(const ModelConfig& saved, const ModelConfig& resumed) {
  return differing(model_fields(saved), model_fields(resumed), "model");
}

}  // namespace mneme::train
