// The names that templates may use without defining them: filters, tests, methods, global functions.
#pragma once
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/value.h"

namespace mneme::jinja {

class Evaluator;

/// Evaluated arguments of a call.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  /// Checks the arguments against the parameter names of `function`; throws Error(invalid_argument) when
  /// there are too many, an unknown name, or one given twice.
  void match(std::string_view function, std::initializer_list<std::string_view> parameters) const;
  /// The argument at a position or of a name, or null. Call match() first.
  const Value* find(size_t position, std::string_view name) const;
  /// The same, and an error when it is missing.
  const Value& at(size_t position, std::string_view name) const;
};

bool has_filter(std::string_view name);
bool has_test(std::string_view name);
/// Whether Python's str, dict, list or tuple has this method (supported here or not).
bool has_method(const Value& object, std::string_view name);

Value apply_filter(Evaluator& evaluator, std::string_view name, const Value& input,
                   const Arguments& arguments);
bool apply_test(Evaluator& evaluator, std::string_view name, const Value& input, const Arguments& arguments);
Value call_method(Evaluator& evaluator, const Value& object, std::string_view name,
                  const Arguments& arguments);
Value call_global(Evaluator& evaluator, std::string_view name, const Arguments& arguments);

// Operators (operators.cpp).
Value binary_operator(Evaluator& evaluator, std::string_view op, const Value& a, const Value& b);
bool compare_operator(Evaluator& evaluator, std::string_view op, const Value& a, const Value& b);
/// object.name: a method or attribute first, then the key.
Value get_attribute(const Value& object, std::string_view name);
/// object[key]: the key first, then a method or attribute.
Value get_item(const Value& object, const Value& key);
Value get_slice(Evaluator& evaluator, const Value& object, const Value* first, const Value* last,
                const Value* step);
/// The items that a for loop walks over. Throws for kinds that cannot be iterated.
std::vector<Value> iterate(Evaluator& evaluator, const Value& value);
/// printf-style formatting: text % values.
std::string format_printf(Evaluator& evaluator, std::string_view text, const std::vector<Value>& values);

/// Integer argument, or an error that names `what`.
int64_t require_integer(const Value& value, std::string_view what);
const std::string& require_string(const Value& value, std::string_view what);

}  // namespace mneme::jinja
