// JsonFields: one JSON object read field by field, with ranges, and with a path for messages.
//
//   JsonFields ffn(json, "layers[3].ffn", ErrorCode::invalid_argument);
//   const uint32_t hidden = ffn.u32("hidden", 1, 1 << 24);   // "layers[3].ffn.hidden is -1, but must be ..."
//   ffn.finish();                                            // "layers[3].ffn.hiden is unknown; did you mean
//   ..."
//
// Every name that is asked for counts as known; finish() refuses what was never asked for.
#pragma once
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "mneme/error.h"

namespace mneme {

/// The name of `known` that is closest to `name` by edit distance, or "" if none is close.
std::string nearest_name(std::string_view name, const std::vector<std::string>& known);

/// Refers to the JSON it was made from, which must outlive it. Not thread-safe.
class JsonFields {
 public:
  enum class Nulls { refuse, absent };  // what a field with the value null is

  /// Throws Error(code) if `value` is not an object; all other errors have the same code.
  JsonFields(const Json& value, std::string path, ErrorCode code, Nulls nulls = Nulls::refuse);

  bool has(std::string_view name);
  /// The raw value, or nullptr if absent.
  const Json* find(std::string_view name);
  /// As find(), but a null is a value also under Nulls::absent.
  const Json* raw(std::string_view name);

  // Typed look-ups. Without a fallback the field must be there.
  uint32_t u32(std::string_view name, uint32_t least, uint32_t most, std::optional<uint32_t> fallback = {});
  /// As u32(); beyond 2^53 other programs write such numbers as strings of digits, which are accepted too.
  uint64_t u64(std::string_view name, uint64_t least, uint64_t most, std::optional<uint64_t> fallback = {});
  std::vector<uint64_t> u64s(std::string_view name, uint64_t least, uint64_t most, size_t most_values);
  double number(std::string_view name, double least, double most, std::optional<double> fallback = {});
  bool boolean(std::string_view name, std::optional<bool> fallback = {});
  std::string string(std::string_view name, std::optional<std::string> fallback = {});
  std::vector<double> numbers(std::string_view name, double least, double most, size_t most_values);
  std::vector<std::string> strings(std::string_view name, size_t most_values);
  JsonFields object(std::string_view name);

  /// "path.name", as messages have it.
  std::string where(std::string_view name) const;
  const std::string& path() const { return path_; }
  ErrorCode code() const { return code_; }
  /// Throws for the first field that no look-up has asked for.
  void finish() const;

 private:
  const Json* object_;
  std::string path_;
  ErrorCode code_;
  Nulls nulls_;
  std::set<std::string, std::less<>> known_;

  const Json& need(std::string_view name);
  uint64_t check_u64(const Json& value, const std::string& at, uint64_t least, uint64_t most) const;
  double check_number(const Json& value, const std::string& at, double least, double most) const;
};

}  // namespace mneme
