#include "model/activation_policy.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/fail.h"
#include "model/config_limits.h"
#include "model/config_names.h"
#include "model/config_words.h"

namespace mneme {
namespace {

using Ordered = nlohmann::ordered_json;
using namespace config_limits;
using namespace config_names;

constexpr double kAnyNumber = 1e300;  // validate() knows the ranges

/// What most projections have; of several, what the first one has.
const ActivationConfig& most_common(const ActivationPolicy& policy) {
  const auto votes = [&](const ActivationConfig& one) { return std::ranges::count(policy.of, one); };
  return *std::ranges::max_element(policy.of, {}, votes);
}

double number_of(std::string_view key, std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  require(error == std::errc() && end == text.data() + text.size(), ErrorCode::invalid_argument,
          "activation: {}={} must be a number", key, text.substr(0, 64));
  return value;
}

Activation type_of(std::string_view text) {
  std::vector<std::string> known;
  for (const auto& [type, name] : kActivations) {
    if (name == text) return type;
    known.emplace_back(name);
  }
  const std::string nearest = nearest_name(text, known);
  fail(ErrorCode::invalid_argument, "activation \"{}\" is none of auto, float, int8, spike, int4{}",
       text.substr(0, 64), nearest.empty() ? "" : "; did you mean " + nearest + "?");
}

/// One key=value of a command line. "k" is the neuron's before a number, and the projection before a word.
void set(std::string_view key, std::string_view value, ActivationConfig& all,
         std::vector<std::pair<Projection, Activation>>& apart) {
  const bool neuron_k = key == "k" && !value.empty() && (value[0] < 'a' || value[0] > 'z');
  if (neuron_k || key == "dead_zone") {
    require(all.type == Activation::spike, ErrorCode::invalid_argument,
            "activation: {} belongs to spike only", key);
    (neuron_k ? all.k : all.dead_zone) = number_of(key, value);
    return;
  }
  for (const auto& [projection, name] : kProjectionNames) {
    if (name != key) continue;
    const auto is_value = [&](const auto& entry) { return entry.second == value; };
    require(key != "k" || std::ranges::any_of(kActivations, is_value), ErrorCode::invalid_argument,
            "activation: k={} is neither a number, the neuron's k, nor what the key projection reads: auto, "
            "float, int8, spike or int4",
            value.substr(0, 64));
    apart.emplace_back(projection, type_of(value));
    return;
  }
  std::vector<std::string> known{"dead_zone"};
  for (const auto& entry : kProjectionNames) known.emplace_back(entry.second);
  const std::string nearest = nearest_name(key, known);
  fail(ErrorCode::invalid_argument, "activation: \"{}\" is neither k, dead_zone nor a projection{}",
       key.substr(0, 64), nearest.empty() ? "" : "; did you mean " + nearest + "?");
}

}  // namespace

ActivationConfig read_activation(JsonFields& fields, const char* name) {
  ActivationConfig out;
  if (!fields.find(name)->is_object()) {
    read_word(fields, name, kActivations, out.type);
    return out;
  }
  JsonFields inner = fields.object(name);
  require(inner.has("type"), ErrorCode::invalid_argument, "{} is missing", inner.where("type"));
  read_word(inner, "type", kActivations, out.type);
  out.k = inner.number("k", -kAnyNumber, kAnyNumber, out.k);
  out.dead_zone = inner.number("dead_zone", -kAnyNumber, kAnyNumber, out.dead_zone);
  inner.finish();
  return out;
}

nlohmann::ordered_json activation_json(const ActivationConfig& activation) {
  const ActivationConfig omitted(activation.type);
  const std::string type(word(kActivations, activation.type));
  if (activation == omitted) return type;
  Ordered out = {{"type", type}};
  if (activation.k != omitted.k) out["k"] = activation.k;
  if (activation.dead_zone != omitted.dead_zone) out["dead_zone"] = activation.dead_zone;
  return out;
}

ActivationPolicy read_activation_policy(JsonFields& fields, const char* name) {
  const Json* value = fields.find(name);
  if (!value->is_object() || value->contains("type")) return read_activation(fields, name);
  JsonFields inner = fields.object(name);
  ActivationPolicy out;
  if (inner.has("default")) out = read_activation(inner, "default");
  for (const auto& [projection, key] : kProjectionNames)
    if (inner.has(key)) out[projection] = read_activation(inner, std::string(key).c_str());
  inner.finish();
  return out;
}

nlohmann::ordered_json activation_json(const ActivationPolicy& policy) {
  const ActivationConfig& most = most_common(policy);
  if (policy == ActivationPolicy(most)) return activation_json(most);
  Ordered out = Ordered::object();
  if (!(most == ActivationConfig())) out["default"] = activation_json(most);
  for (const auto& [projection, key] : kProjectionNames)
    if (!(policy[projection] == most)) out[std::string(key)] = activation_json(policy[projection]);
  return out;
}

void validate(const ActivationConfig& one, const std::string& at) {
  require(one.type == Activation::spike || one == ActivationConfig(one.type), ErrorCode::invalid_argument,
          "{} has k or dead_zone, but only \"spike\" has them", at);
  require(std::isfinite(one.k) && one.k >= kMinFiringK && one.k <= kMaxFiringK, ErrorCode::invalid_argument,
          "{}.k is {}, but must be a number from {} to {}", at, one.k, kMinFiringK, kMaxFiringK);
  require(std::isfinite(one.dead_zone) && one.dead_zone >= 0 && one.dead_zone <= kMaxDeadZone,
          ErrorCode::invalid_argument, "{}.dead_zone is {}, but must be a number from 0 to {}", at,
          one.dead_zone, kMaxDeadZone);
}

void validate(const ActivationPolicy& policy, const std::string& where) {
  const bool uniform = policy == ActivationPolicy(policy.of[0]);
  for (const auto& [projection, key] : kProjectionNames)
    validate(policy[projection], uniform ? where : fmt::format("{}.{}", where, key));
}

std::string ActivationPolicy::to_json() const {
  return activation_json(*this).dump();
}

ActivationPolicy ActivationPolicy::parse(std::string_view text) {
  const size_t colon = text.find(':');
  ActivationConfig all(type_of(text.substr(0, colon)));
  std::vector<std::pair<Projection, Activation>> apart;
  std::string_view rest = colon == std::string_view::npos ? std::string_view() : text.substr(colon + 1);
  require(colon == std::string_view::npos || !rest.empty(), ErrorCode::invalid_argument,
          "activation \"{}\": k=NUMBER, dead_zone=NUMBER or PROJECTION=TYPE is wanted after the colon",
          text.substr(0, 64));
  while (!rest.empty()) {
    const std::string_view part = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(part.size() + 1, rest.size()));
    const size_t equals = part.find('=');
    require(equals != std::string_view::npos, ErrorCode::invalid_argument,
            "activation: \"{}\" must be k=NUMBER, dead_zone=NUMBER or PROJECTION=TYPE", part.substr(0, 64));
    set(part.substr(0, equals), part.substr(equals + 1), all, apart);
  }
  ActivationPolicy out(all);
  for (const auto& [projection, type] : apart)
    out[projection] = type == Activation::spike ? all.type == type ? all : ActivationConfig(type) : type;
  validate(out, "activation");
  return out;
}

}  // namespace mneme
