#include "train/convert/recipe.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <span>

#include "core/checksum.h"
#include "core/fail.h"
#include "core/json_fields.h"
#include "model/config_limits.h"
#include "model/config_names.h"
#include "model/tensor_names.h"

namespace mneme::train {
namespace {

constexpr std::array<std::string_view, 8> kKinds{"window",   "hybrid",  "parallel", "engram",
                                                 "transfer", "distill", "spike",    "upcycle"};
constexpr std::array<std::string_view, 5> kOf{"list", "all", "full", "converted", "recurrent"};
constexpr std::array<std::string_view, 12> kGroups{"all", "mixer",  "gate", "norm",   "qk",    "v",
                                                   "o",   "engram", "ffn",  "router", "norms", "embedding"};
constexpr uint64_t kMost = uint64_t{1} << 40;

template <size_t N>
size_t one_of(const std::array<std::string_view, N>& names, const std::string& value,
              const std::string& where, size_t first = 0) {
  const auto found = std::find(names.begin() + static_cast<ptrdiff_t>(first), names.end(), value);
  if (found != names.end()) return static_cast<size_t>(found - names.begin());
  const std::vector<std::string> known(names.begin() + static_cast<ptrdiff_t>(first), names.end());
  const std::string near = nearest_name(value, known);
  fail(ErrorCode::invalid_argument, "{} is \"{}\"{}; it must be {}", where, value,
       near.empty() ? "" : fmt::format(" (did you mean \"{}\"?)", near), fmt::join(known, ", "));
}

/// `groups`: what is trained unless the stage says it.
TuneSettings read_tune(JsonFields& fields, bool transfer, const char* groups = "mixer") {
  TuneSettings out;
  out.sequences = fields.u32("sequences", 1, 1 << 16, 1);
  out.length = fields.u32("length", 2, 1 << 20, out.length);
  const bool by_tokens = fields.has("tokens");
  require(by_tokens != fields.has("steps"), ErrorCode::invalid_argument,
          "{} must say either \"steps\" or \"tokens\"", fields.path());
  const uint64_t step = uint64_t{out.sequences} * out.length;
  out.steps = by_tokens ? (fields.u64("tokens", 0, kMost) + step - 1) / step : fields.u64("steps", 0, kMost);
  out.lr = fields.number("lr", 0, 10, transfer ? 2e-3 : 3e-4);
  if (!transfer) out.warmup = fields.u64("warmup", 0, kMost, std::min<uint64_t>(100, out.steps / 20));
  out.clip = fields.number("clip", 0, 1e9, 1.0);
  out.weight_decay = fields.number("weight_decay", 0, 10, 0.0);
  out.save_every = fields.u64("save_every", 1, kMost, 100);
  if (fields.has("train"))
    out.train = fields.strings("train", kGroups.size());
  else
    out.train = {groups};
  for (const std::string& group : out.train) one_of(kGroups, group, fields.where("train"));
  const std::string precision = fields.string("precision", "f32");
  require(precision == "f32" || precision == "bf16", ErrorCode::invalid_argument,
          "{} is \"{}\"; it must be f32 or bf16", fields.where("precision"), precision);
  out.bfloat16 = precision == "bf16";
  if (transfer) {
    out.solve = fields.u64("solve", 0, 1 << 20, 0);
    out.at_once = fields.u32("at_once", 0, 4096, 0);
    out.passes = fields.u32("passes", 1, 1 << 16, 1);
    out.warmup = fields.u64("warmup", 0, kMost, std::min<uint64_t>(100, out.steps * out.passes / 20));
    for (const std::string& group : out.train)
      require(group != "ffn" && group != "router" && group != "norms" && group != "embedding" &&
                  group != "engram" && group != "all",
              ErrorCode::invalid_argument,
              "{} names \"{}\", but a transfer trains mixers alone: mixer, gate, norm, qk, v or o",
              fields.where("train"), group);
  } else {
    out.temperature = fields.number("temperature", 0.01, 100, 1.0);
    out.cross_entropy = fields.number("cross_entropy", 0, 1, 0.0);
    out.checkpoint_layers = fields.boolean("checkpoint_layers", false);
    if (fields.has("experts")) out.experts = BalanceConfig::from_json(fields.object("experts"));
    if (fields.has("measure")) {
      JsonFields measure = fields.object("measure");
      out.measure_every = measure.u64("every", 1, kMost);
      out.measure_tokens = measure.u64("tokens", 2, kMost, out.measure_tokens);
      measure.finish();
    }
  }
  return out;
}

/// A number, or the first and the last of a stage.
void read_span(JsonFields& fields, const char* name, double least, double most, double& first, double& last) {
  const Json* const value = fields.find(name);
  if (!value) return;
  if (!value->is_array()) {
    first = last = fields.number(name, least, most);
    return;
  }
  const std::vector<double> both = fields.numbers(name, least, most, 2);
  require(both.size() == 2, ErrorCode::invalid_argument,
          "{} must be a number, or two: of the first step and of the last", fields.where(name));
  first = both[0], last = both[1];
}

SpikeSettings read_spikes(JsonFields& fields) {
  using namespace config_limits;
  SpikeSettings out;
  out.projections = {Projection::q,    Projection::k,  Projection::v,   Projection::o,
                     Projection::gate, Projection::up, Projection::down};
  if (fields.has("projections")) {
    std::array<std::string_view, kProjections> names;
    for (size_t i = 0; i < kProjections; ++i) names[i] = config_names::kProjectionNames[i].second;
    out.projections.clear();
    for (const std::string& name : fields.strings("projections", kProjections))
      out.projections.push_back(
          config_names::kProjectionNames[one_of(names, name, fields.where("projections"))].first);
    require(!out.projections.empty(), ErrorCode::invalid_argument, "{} is empty; name at least one",
            fields.where("projections"));
  }
  read_span(fields, "k", kMinFiringK, kMaxFiringK, out.first_k, out.k);
  read_span(fields, "dead_zone", 0, kMaxDeadZone, out.first_dead_zone, out.dead_zone);
  require(!fields.has("anneal") || out.first_k != out.k || out.first_dead_zone != out.dead_zone,
          ErrorCode::invalid_argument,
          "{} is given, but neither k nor dead_zone changes: write [first, last]", fields.where("anneal"));
  out.anneal = fields.number("anneal", 0, 1, out.anneal);
  out.penalty = fields.number("penalty", 0, 1e6, out.penalty);
  require(!fields.has("width") || out.penalty > 0, ErrorCode::invalid_argument,
          "{} is given, but it belongs to a penalty, which there is not", fields.where("width"));
  out.width = fields.number("width", 0.01, 1, out.width);
  out.log_every = fields.u64("log_every", 1, kMost, out.log_every);
  return out;
}

void read_list(const Json& value, const std::string& where, LayerChoice& out) {
  out.of = LayerChoice::Of::list;
  require(!value.empty(), ErrorCode::invalid_argument, "{} is empty; name at least one layer", where);
  for (const Json& number : value) {
    require(number.is_number_unsigned() && number.get<uint64_t>() < 4096, ErrorCode::invalid_argument,
            "{} holds {}, but layers are numbers from 0 on", where, number.dump());
    out.layers.push_back(number.get<uint32_t>());
  }
  std::sort(out.layers.begin(), out.layers.end());
  const auto twice = std::adjacent_find(out.layers.begin(), out.layers.end());
  require(twice == out.layers.end(), ErrorCode::invalid_argument, "{} names layer {} twice", where,
          twice == out.layers.end() ? 0 : *twice);
}

/// "all", "full", "converted", "recurrent" or a list of numbers.
void read_set(const Json& value, const std::string& where, LayerChoice& out) {
  if (value.is_string())
    out.of = static_cast<LayerChoice::Of>(one_of(kOf, value.get<std::string>(), where, 1));
  else {
    require(value.is_array(), ErrorCode::invalid_argument,
            "{} must be a list of layers, \"all\", \"full\", \"converted\" or \"recurrent\"", where);
    read_list(value, where, out);
  }
}

LayerChoice read_layers(JsonFields& fields, LayerChoice::Of fallback, bool may_choose) {
  LayerChoice out;
  out.of = fallback;
  const Json* value = fields.find("layers");
  if (!value) return out;
  const std::string where = fields.where("layers");
  if (!value->is_object()) {
    read_set(*value, where, out);
    return out;
  }
  require(may_choose, ErrorCode::invalid_argument,
          "{} cannot choose by sensitivity: this kind of stage does not change the kind of a layer", where);
  JsonFields choice(*value, where, ErrorCode::invalid_argument);
  out.choose = choice.u32("choose", 1, 4096);
  out.curve = choice.u32("curve", 0, 4096, out.choose);
  out.of = LayerChoice::Of::full;
  if (const Json* from = choice.find("from")) read_set(*from, choice.where("from"), out);
  out.tokens = choice.u64("tokens", 2, kMost, out.tokens);
  out.greedy = choice.boolean("greedy", false);
  out.untrained = choice.boolean("untrained", true);
  if (choice.has("transfer")) {
    JsonFields transfer = choice.object("transfer");
    out.transfer = read_tune(transfer, true);
    transfer.finish();
  }
  choice.finish();
  require(out.of != LayerChoice::Of::list || out.choose <= out.layers.size(), ErrorCode::invalid_argument,
          "{}.choose is {}, but \"from\" names only {} layers", where, out.choose, out.layers.size());
  return out;
}

Json mixer_of(JsonFields& fields, std::initializer_list<const char*> names, const char* type) {
  Json out = {{"type", type}};
  for (const char* name : names)
    if (const Json* value = fields.find(name)) out[name] = *value;
  return out;
}

Json object_of(JsonFields& fields, const char* name, bool required) {
  const Json* value = fields.find(name);
  if (!value && !required) return Json::object();
  require(value && value->is_object(), ErrorCode::invalid_argument, "{} {}", fields.where(name),
          value ? "must be an object" : "is missing");
  return *value;
}

bool read_rope_decay(JsonFields& fields) {
  return one_of(std::array<std::string_view, 2>{"published", "rope"}, fields.string("decay", "published"),
                fields.where("decay")) == 1;
}

Stage read_stage(const Json& json, size_t number) {
  JsonFields fields(json, fmt::format("stages[{}]", number), ErrorCode::invalid_argument);
  Stage out;
  out.kind = static_cast<Stage::Kind>(one_of(kKinds, fields.string("kind"), fields.where("kind")));
  using Of = LayerChoice::Of;
  switch (out.kind) {
    case Stage::Kind::window:
      out.layers = read_layers(fields, Of::full, true);
      fields.u32("window", 1, 1u << 30);
      out.mixer = mixer_of(fields, {"window", "sinks", "edge"}, "window");
      break;
    case Stage::Kind::hybrid:
      require(fields.has("layers"), ErrorCode::invalid_argument, "{} is missing: which layers are converted",
              fields.where("layers"));
      out.layers = read_layers(fields, Of::full, true);
      out.mixer = object_of(fields, "to", true);
      out.rope_decay = read_rope_decay(fields);
      require(out.mixer.contains("type") && (out.mixer["type"] == "gla" || out.mixer["type"] == "delta" ||
                                             out.mixer["type"] == "window"),
              ErrorCode::invalid_argument, "{}.type must be gla, delta or window", fields.where("to"));
      require(!out.rope_decay || out.mixer["type"] == "gla", ErrorCode::invalid_argument,
              "{} is \"rope\", which only gates of gla can start with", fields.where("decay"));
      break;
    case Stage::Kind::parallel:
      require(fields.has("layers"), ErrorCode::invalid_argument, "{} is missing: which layers are converted",
              fields.where("layers"));
      out.layers = read_layers(fields, Of::full, true);
      out.mixer = mixer_of(fields, {"of", "weights", "learned"}, "parallel");
      out.rope_decay = read_rope_decay(fields);
      require(out.mixer.contains("of"), ErrorCode::invalid_argument, "{} is missing: the two branches",
              fields.where("of"));
      require(!out.rope_decay || out.mixer["of"].dump().find("\"gla\"") != std::string::npos,
              ErrorCode::invalid_argument, "{} is \"rope\", but neither branch is gla",
              fields.where("decay"));
      break;
    case Stage::Kind::engram:
      require(fields.has("layers"), ErrorCode::invalid_argument, "{} is missing: which layers get a memory",
              fields.where("layers"));
      out.layers = read_layers(fields, Of::list, false);
      out.table = object_of(fields, "table", true);
      out.module = object_of(fields, "module", false);
      out.zero_values = one_of(std::array<std::string_view, 2>{"table", "values"},
                               fields.string("zero", "values"), fields.where("zero")) == 1;
      out.deviation = fields.number("deviation", 0, 100, 0.02);
      break;
    case Stage::Kind::transfer:
      out.layers = read_layers(fields, Of::recurrent, false);
      out.tune = read_tune(fields, true);
      break;
    case Stage::Kind::distill:
      out.layers = read_layers(fields, Of::all, false);
      out.tune = read_tune(fields, false);
      break;
    case Stage::Kind::upcycle:
      out.upcycle = read_upcycle_stage(fields);
      break;
    case Stage::Kind::spike:
      out.layers = read_layers(fields, Of::all, false);
      out.spikes = read_spikes(fields);
      out.tune = read_tune(fields, false, "all");
      break;
  }
  fields.finish();
  return out;
}

std::vector<fs::path> read_paths(JsonFields& fields, const char* name, const fs::path& folder) {
  std::vector<fs::path> out;
  if (!fields.has(name)) return out;
  for (const std::string& path : fields.strings(name, 4096)) {
    require(!path.empty(), ErrorCode::invalid_argument, "{} holds an empty path", fields.where(name));
    out.push_back(fs::path(path).is_absolute() ? fs::path(path) : folder / path);
  }
  return out;
}

std::string hash_of(const Json& json) {
  const std::string text = json.dump();
  return fmt::format("{:016x}", xxh3(std::as_bytes(std::span(text))));
}

bool trains(const Stage& stage) {
  return stage.kind == Stage::Kind::transfer || stage.kind == Stage::Kind::distill ||
         stage.kind == Stage::Kind::spike || stage.layers.transfer.has_value();
}

void check_texts(const Recipe& recipe) {
  for (size_t i = 0; i < recipe.stages.size(); ++i) {
    const Stage& stage = recipe.stages[i];
    require(!trains(stage) || !recipe.train.empty(), ErrorCode::invalid_argument,
            "stages[{}] trains, but data.train names no text", i);
    require(stage.layers.choose == 0 || !recipe.validation.empty(), ErrorCode::invalid_argument,
            "stages[{}] chooses layers by sensitivity, but data.validation names no text", i);
    require(stage.tune.measure_every == 0 || !recipe.validation.empty(), ErrorCode::invalid_argument,
            "stages[{}].measure needs held-out text, but data.validation names none", i);
  }
}

}  // namespace

std::string_view to_string(Stage::Kind kind) noexcept {
  return kKinds[static_cast<size_t>(kind)];
}

ActivationConfig SpikeSettings::last() const {
  return {Activation::spike, k, dead_zone};
}

ActivationConfig SpikeSettings::neuron(uint64_t step, uint64_t steps) const {
  const double length = anneal * static_cast<double>(steps);
  // The last value itself from the end of the change on: no rounding of a power or a sum.
  if (static_cast<double>(step) >= length) return last();
  const double part = static_cast<double>(step - std::min<uint64_t>(step, 1)) / length;
  return {Activation::spike, first_k * std::pow(k / first_k, part),
          first_dead_zone + (dead_zone - first_dead_zone) * part};
}

Recipe Recipe::from_json(std::string_view json, const fs::path& folder, std::string_view name) {
  const Json document = parse_json(json, name);
  Recipe out;
  try {
    JsonFields fields(document, "recipe", ErrorCode::invalid_argument);
    fields.u32("mneme_convert", 1, 1);
    fields.string("about", "");
    out.seed = fields.u64("seed", 0, uint64_t{1} << 53, 1);
    if (fields.has("data")) {
      JsonFields data = fields.object("data");
      out.train = read_paths(data, "train", folder);
      out.validation = read_paths(data, "validation", folder);
      out.text_field = data.string("text_field", "text");
      out.context = data.u32("context", 2, 1 << 24, out.context);
      out.tokens = data.u64("tokens", 2, kMost, out.tokens);
      data.finish();
      for (const fs::path& path : out.validation)
        require(std::find(out.train.begin(), out.train.end(), path) == out.train.end(),
                ErrorCode::invalid_argument, "data.validation and data.train both name {}", path.string());
    }
    const Json* stages = fields.find("stages");
    require(stages && stages->is_array() && !stages->empty(), ErrorCode::invalid_argument,
            "recipe.stages must be a list of at least one stage");
    for (size_t i = 0; i < stages->size(); ++i) out.stages.push_back(read_stage((*stages)[i], i));
    fields.finish();
    check_texts(out);
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("{}: {}", name, error.what()));
  }
  Json rest = document;
  for (const char* other : {"about", "stages"}) rest.erase(other);
  out.hashes = {hash_of(rest)};
  for (const Json& stage : document["stages"]) out.hashes.push_back(hash_of(stage));
  return out;
}

Recipe Recipe::load(const fs::path& file) {
  return from_json(read_text_file(file, uint64_t{1} << 20), fs::absolute(file).parent_path(), file.string());
}

std::string_view tensor_group(std::string_view name) noexcept {
  const auto at = layer_tensor_name_of(name);
  if (!at) return name.starts_with("output_norm") ? "norms" : "embedding";
  name = at->part;
  if (name.starts_with("mix") && name.find('.') != std::string_view::npos) {
    const std::string_view rest = name.substr(name.find('.') + 1);
    if (name.starts_with("mix_weights") || !rest.starts_with("attn_")) return "norm";
    name = rest;
  }
  const auto begins = [&](auto... words) { return (name.starts_with(words) || ...); };
  if (begins("engram_")) return "engram";
  if (begins("ffn_gate_inp", "exp_probs_b")) return "router";
  if (begins("attn_norm", "ffn_norm", "post_")) return "norms";
  if (begins("attn_gate", "attn_decay", "attn_beta", "attn_a_log", "attn_dt_bias", "attn_sinks"))
    return "gate";
  if (begins("attn_out_norm")) return "norm";
  if (begins("attn_q", "attn_k")) return "qk";
  if (begins("attn_v")) return "v";
  if (begins("attn_output")) return "o";
  return "ffn";
}

}  // namespace mneme::train
