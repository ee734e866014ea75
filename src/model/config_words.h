// Reading the words of config_names.h.
#pragma once
#include <string>

#include "core/fail.h"
#include "core/json_fields.h"
#include "model/config_names.h"

namespace mneme::config_names {

/// Sets `out` to the value that the field's word stands for; leaves it alone if the field is absent.
template <class E, size_t N>
void read_word(JsonFields& fields, const char* name, const Table<E, N>& table, E& out) {
  if (!fields.has(name)) return;
  const std::string word = fields.string(name);
  std::string allowed;
  for (const auto& [value, candidate] : table) {
    if (candidate == word) {
      out = value;
      return;
    }
    allowed += (allowed.empty() ? "" : ", ") + std::string(candidate);
  }
  fail(ErrorCode::invalid_argument, "{} is \"{}\", but must be one of: {}", fields.where(name),
       word.substr(0, 64), allowed);
}

}  // namespace mneme::config_names
