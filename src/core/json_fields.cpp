#include "core/json_fields.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>

#include "core/fail.h"

namespace mneme {
namespace {

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t up = row[j];
      row[j] = std::min({up + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = up;
    }
  }
  return row[b.size()];
}

/// A value as messages show it: short, on one line.
std::string shown(const Json& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return "an array";
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > 40) text = text.substr(0, 40) + "…";
  return text;
}

}  // namespace

std::string nearest_name(std::string_view name, const std::vector<std::string>& known) {
  if (name.size() > 64) return {};
  std::string best;
  size_t best_distance = std::max<size_t>(2, name.size() / 2);
  for (const std::string& candidate : known) {
    const size_t distance = edit_distance(name, candidate);
    if (distance < best_distance || (distance == best_distance && best.empty())) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

JsonFields::JsonFields(const Json& value, std::string path, ErrorCode code, Nulls nulls)
    : object_(&value), path_(std::move(path)), code_(code), nulls_(nulls) {
  require(value.is_object(), code_, "{} is {}, but must be an object",
          path_.empty() ? std::string("the document") : path_, shown(value));
}

std::string JsonFields::where(std::string_view name) const {
  return path_.empty() ? std::string(name) : fmt::format("{}.{}", path_, name);
}

const Json* JsonFields::find(std::string_view name) {
  const Json* value = raw(name);
  return value && nulls_ == Nulls::absent && value->is_null() ? nullptr : value;
}

const Json* JsonFields::raw(std::string_view name) {
  known_.emplace(name);
  const auto it = object_->find(name);
  return it == object_->end() ? nullptr : &*it;
}

bool JsonFields::has(std::string_view name) {
  return find(name) != nullptr;
}

const Json& JsonFields::need(std::string_view name) {
  const Json* value = find(name);
  if (value == nullptr) {
    std::vector<std::string> unknown;
    for (const auto& item : object_->items())
      if (!known_.contains(item.key())) unknown.push_back(item.key());
    // Of short names almost any other is near.
    const std::string meant = name.size() < 4 ? "" : nearest_name(name, unknown);
    fail(code_, "{} is missing{}", where(name),
         meant.empty() ? "" : fmt::format(" (is it meant by \"{}\"?)", meant));
  }
  return *value;
}

uint32_t JsonFields::u32(std::string_view name, uint32_t least, uint32_t most,
                         std::optional<uint32_t> fallback) {
  if (fallback && !has(name)) return *fallback;
  const Json& value = need(name);
  // Python writes some counts as 8192.0
  const bool whole = value.is_number_integer() ||
                     (value.is_number_float() && std::trunc(value.get<double>()) == value.get<double>());
  const bool in_range =
      whole && (value.is_number_unsigned() ? value.get<uint64_t>() >= least && value.get<uint64_t>() <= most
                : value.is_number_integer()
                    ? value.get<int64_t>() >= int64_t{least} && value.get<int64_t>() <= int64_t{most}
                    : value.get<double>() >= least && value.get<double>() <= most);
  require(in_range, code_, "{} is {}, but must be a whole number from {} to {}", where(name), shown(value),
          least, most);
  return value.is_number_float() ? static_cast<uint32_t>(value.get<double>()) : value.get<uint32_t>();
}

uint64_t JsonFields::check_u64(const Json& value, const std::string& at, uint64_t least,
                               uint64_t most) const {
  std::optional<uint64_t> number;
  if (value.is_number_unsigned()) {
    number = value.get<uint64_t>();
  } else if (value.is_string()) {
    const auto& digits = value.get_ref<const std::string&>();
    uint64_t parsed = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), parsed);
    if (error == std::errc() && end == digits.data() + digits.size()) number = parsed;
  } else if (value.is_number_float()) {  // 1e6; beyond 2^53 a double no longer says which number was meant
    const double real = value.get<double>();
    if (std::trunc(real) == real && real >= 0 && real <= 9007199254740992.0)
      number = static_cast<uint64_t>(real);
  }
  require(number && *number >= least && *number <= most, code_,
          "{} is {}, but must be a whole number from {} to {}", at, shown(value), least, most);
  return *number;
}

uint64_t JsonFields::u64(std::string_view name, uint64_t least, uint64_t most,
                         std::optional<uint64_t> fallback) {
  if (fallback && !has(name)) return *fallback;
  return check_u64(need(name), where(name), least, most);
}

std::vector<uint64_t> JsonFields::u64s(std::string_view name, uint64_t least, uint64_t most,
                                       size_t most_values) {
  const Json& value = need(name);
  require(value.is_array() && value.size() <= most_values, code_,
          "{} must be an array of at most {} whole numbers", where(name), most_values);
  std::vector<uint64_t> out;
  for (size_t i = 0; i < value.size(); ++i)
    out.push_back(check_u64(value[i], fmt::format("{}[{}]", where(name), i), least, most));
  return out;
}

double JsonFields::check_number(const Json& value, const std::string& at, double least, double most) const {
  require(value.is_number(), code_, "{} is {}, but must be a number", at, shown(value));
  const double number = value.get<double>();
  require(std::isfinite(number) && number >= least && number <= most, code_,
          "{} is {}, but must be a number from {} to {}", at, shown(value), least, most);
  return number;
}

double JsonFields::number(std::string_view name, double least, double most, std::optional<double> fallback) {
  if (fallback && !has(name)) return *fallback;
  return check_number(need(name), where(name), least, most);
}

bool JsonFields::boolean(std::string_view name, std::optional<bool> fallback) {
  if (fallback && !has(name)) return *fallback;
  const Json& value = need(name);
  require(value.is_boolean(), code_, "{} is {}, but must be true or false", where(name), shown(value));
  return value.get<bool>();
}

std::string JsonFields::string(std::string_view name, std::optional<std::string> fallback) {
  if (fallback && !has(name)) return *fallback;
  const Json& value = need(name);
  require(value.is_string(), code_, "{} is {}, but must be a string", where(name), shown(value));
  return value.get<std::string>();
}

std::vector<double> JsonFields::numbers(std::string_view name, double least, double most,
                                        size_t most_values) {
  const Json& value = need(name);
  require(value.is_array() && value.size() <= most_values, code_, "{} must be an array of at most {} numbers",
          where(name), most_values);
  std::vector<double> out;
  for (size_t i = 0; i < value.size(); ++i)
    out.push_back(check_number(value[i], fmt::format("{}[{}]", where(name), i), least, most));
  return out;
}

std::vector<std::string> JsonFields::strings(std::string_view name, size_t most_values) {
  const Json& value = need(name);
  require(value.is_array() && value.size() <= most_values, code_, "{} must be an array of at most {} strings",
          where(name), most_values);
  std::vector<std::string> out;
  for (size_t i = 0; i < value.size(); ++i) {
    require(value[i].is_string(), code_, "{}[{}] is {}, but must be a string", where(name), i,
            shown(value[i]));
    out.push_back(value[i].get<std::string>());
  }
  return out;
}

JsonFields JsonFields::object(std::string_view name) {
  return JsonFields(need(name), where(name), code_, nulls_);
}

void JsonFields::finish() const {
  for (const auto& [key, value] : object_->items()) {
    if (known_.contains(key)) continue;
    const std::string nearest = nearest_name(key, {known_.begin(), known_.end()});
    if (nearest.empty()) fail(code_, "{} is not a known field", where(key.substr(0, 64)));
    fail(code_, "{} is not a known field; did you mean \"{}\"?", where(key), nearest);
  }
}

}  // namespace mneme
