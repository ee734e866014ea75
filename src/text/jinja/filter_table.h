// The type of a filter, and how sequence_filters.cpp adds its own to the table of filters.cpp.
#pragma once
#include <functional>
#include <map>
#include <string_view>

#include "text/jinja/builtins.h"

namespace mneme::jinja {

using Filter = std::function<Value(Evaluator&, const Value& input, const Arguments&)>;

void add_sequence_filters(std::map<std::string_view, Filter>& filters);

}  // namespace mneme::jinja
