#include "core/json.h"

#include <set>
#include <string>
#include <vector>

#include "core/fail.h"

namespace mneme {

namespace {

template <class AnyJson>
AnyJson parse(std::string_view text, std::string_view what, int max_depth) {
  std::vector<std::set<std::string>> keys;  // of the objects that are open
  const auto on_event = [&](int depth, typename AnyJson::parse_event_t event, AnyJson& value) {
    require(depth <= max_depth, ErrorCode::corrupt, "{} is nested more than {} levels deep", what, max_depth);
    if (event == AnyJson::parse_event_t::object_start) {
      keys.emplace_back();
    } else if (event == AnyJson::parse_event_t::object_end) {
      keys.pop_back();
    } else if (event == AnyJson::parse_event_t::key) {
      const auto& key = value.template get_ref<const std::string&>();
      require(keys.back().insert(key).second, ErrorCode::corrupt, "{} has the key \"{}\" twice in one object",
              what, key);
    }
    return true;
  };
  try {
    return AnyJson::parse(text.begin(), text.end(), on_event);
  } catch (const typename AnyJson::exception& error) {
    constexpr size_t kMost = 300;  // the parser quotes what it read last, which may be megabytes
    fail(ErrorCode::corrupt, "{} is not valid JSON: {:.{}}", what, error.what(), kMost);
  }
}

}  // namespace

Json parse_json(std::string_view text, std::string_view what, int max_depth) {
  return parse<Json>(text, what, max_depth);
}

OrderedJson parse_ordered_json(std::string_view text, std::string_view what, int max_depth) {
  return parse<OrderedJson>(text, what, max_depth);
}

}  // namespace mneme
