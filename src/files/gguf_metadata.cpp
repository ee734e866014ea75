// Typed look-ups in GGUF metadata. Writers disagree about integer widths and signs, so a value is accepted
// wherever the number itself fits.
#include <limits>
#include <utility>

#include "core/fail.h"
#include "files/gguf.h"

namespace mneme {
namespace {

const char* kind(const GgufValue& value) {
  constexpr const char* kKinds[] = {"an unsigned integer",
                                    "an integer",
                                    "a float",
                                    "a bool",
                                    "a string",
                                    "an array of numbers",
                                    "an array of numbers",
                                    "an array of floats",
                                    "an array of bools",
                                    "an array of strings"};
  return kKinds[value.index()];
}

[[noreturn]] void fail_missing(std::string_view key) {
  fail(ErrorCode::corrupt, "GGUF metadata has no \"{}\", which is required", key);
}

[[noreturn]] void fail_kind(std::string_view key, const GgufValue& value, const char* wanted) {
  fail(ErrorCode::corrupt, "GGUF metadata \"{}\" is {}; it must be {}", key, kind(value), wanted);
}

template <class T>
const T& as(std::string_view key, const GgufValue& value, const char* wanted) {
  if (const auto* found = std::get_if<T>(&value)) return *found;
  fail_kind(key, value, wanted);
}

uint64_t as_uint(std::string_view key, const GgufValue& value) {
  if (const auto* u = std::get_if<uint64_t>(&value)) return *u;
  if (const auto* i = std::get_if<int64_t>(&value)) {
    require(*i >= 0, ErrorCode::corrupt, "GGUF metadata \"{}\" is {}; it must not be negative", key, *i);
    return static_cast<uint64_t>(*i);
  }
  fail_kind(key, value, "an unsigned integer");
}

double as_float(std::string_view key, const GgufValue& value) {
  if (const auto* f = std::get_if<double>(&value)) return *f;
  if (const auto* u = std::get_if<uint64_t>(&value)) return static_cast<double>(*u);
  if (const auto* i = std::get_if<int64_t>(&value)) return static_cast<double>(*i);
  fail_kind(key, value, "a number");
}

int64_t narrow(std::string_view key, uint64_t value) {
  require(std::in_range<int64_t>(value), ErrorCode::corrupt,
          "GGUF metadata \"{}\" holds {}, which is too large", key, value);
  return static_cast<int64_t>(value);
}

}  // namespace

const GgufValue* GgufMetadata::find(std::string_view key) const {
  const auto at = values_.find(key);
  return at == values_.end() ? nullptr : &at->second;
}

std::string GgufMetadata::get_string(std::string_view key) const {
  const auto* value = find(key);
  if (value == nullptr) fail_missing(key);
  return as<std::string>(key, *value, "a string");
}

std::string GgufMetadata::get_string(std::string_view key, std::string_view fallback) const {
  const auto* value = find(key);
  return value == nullptr ? std::string(fallback) : as<std::string>(key, *value, "a string");
}

uint64_t GgufMetadata::get_uint(std::string_view key) const {
  const auto* value = find(key);
  if (value == nullptr) fail_missing(key);
  return as_uint(key, *value);
}

uint64_t GgufMetadata::get_uint(std::string_view key, uint64_t fallback) const {
  const auto* value = find(key);
  return value == nullptr ? fallback : as_uint(key, *value);
}

double GgufMetadata::get_float(std::string_view key) const {
  const auto* value = find(key);
  if (value == nullptr) fail_missing(key);
  return as_float(key, *value);
}

double GgufMetadata::get_float(std::string_view key, double fallback) const {
  const auto* value = find(key);
  return value == nullptr ? fallback : as_float(key, *value);
}

bool GgufMetadata::get_bool(std::string_view key, bool fallback) const {
  const auto* value = find(key);
  return value == nullptr ? fallback : as<bool>(key, *value, "a bool");
}

const std::vector<std::string>* GgufMetadata::find_strings(std::string_view key) const {
  const auto* value = find(key);
  return value == nullptr ? nullptr : &as<std::vector<std::string>>(key, *value, "an array of strings");
}

std::vector<std::string> GgufMetadata::get_strings(std::string_view key) const {
  const auto* strings = find_strings(key);
  return strings == nullptr ? std::vector<std::string>{} : *strings;
}

std::vector<int64_t> GgufMetadata::get_ints(std::string_view key) const {
  const auto* value = find(key);
  if (value == nullptr) return {};
  if (const auto* ints = std::get_if<std::vector<int64_t>>(value)) return *ints;
  std::vector<int64_t> out;
  if (const auto* uints = std::get_if<std::vector<uint64_t>>(value)) {
    for (const uint64_t u : *uints) out.push_back(narrow(key, u));
  } else if (const auto* bools = std::get_if<std::vector<bool>>(value)) {
    out.assign(bools->begin(), bools->end());
  } else {
    fail_kind(key, *value, "an array of integers");
  }
  return out;
}

std::vector<double> GgufMetadata::get_floats(std::string_view key) const {
  const auto* value = find(key);
  if (value == nullptr) return {};
  if (const auto* floats = std::get_if<std::vector<double>>(value)) return *floats;
  if (const auto* uints = std::get_if<std::vector<uint64_t>>(value)) return {uints->begin(), uints->end()};
  if (const auto* ints = std::get_if<std::vector<int64_t>>(value)) return {ints->begin(), ints->end()};
  fail_kind(key, *value, "an array of numbers");
}

}  // namespace mneme
