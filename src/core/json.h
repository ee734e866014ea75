// JSON from outside, read strictly: bounded nesting, no duplicate keys, errors that say where.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

namespace mneme {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;  // keeps the order of keys, where that matters

/// Parses one document. `what` names it in messages ("config.json"). Throws Error(corrupt) for malformed
/// text, nesting beyond `max_depth`, or a duplicate key in an object.
Json parse_json(std::string_view text, std::string_view what, int max_depth = 64);
OrderedJson parse_ordered_json(std::string_view text, std::string_view what, int max_depth = 64);

}  // namespace mneme
