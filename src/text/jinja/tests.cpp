// Tests: `value is name`.
#include <algorithm>
#include <functional>
#include <map>

#include "text/jinja/builtins.h"
#include "text/jinja/evaluator.h"
#include "text/jinja/unicode.h"

namespace mneme::jinja {

namespace {

using Test = std::function<bool(Evaluator&, const Value&, const Arguments&)>;
using Predicate = bool (*)(const Value&);

Test plain(Predicate predicate) {
  return [predicate](Evaluator&, const Value& value, const Arguments& arguments) {
    arguments.match("the test", {});
    return predicate(value);
  };
}

Test comparison(std::string_view op) {
  return [op](Evaluator& evaluator, const Value& value, const Arguments& arguments) {
    arguments.match("the test", {"other"});
    return compare_operator(evaluator, op, value, arguments.at(0, "other"));
  };
}

bool is_iterable(const Value& value) {
  return value.is_undefined() || value.sequence() || value.dict() || value.string() ||
         value.get<std::shared_ptr<Loop>>();
}

bool is_sequence(const Value& value) {
  const Sequence* items = value.sequence();
  if (items) return items->shape != Shape::generator && items->shape != Shape::view;
  return value.dict() || value.string() || value.is_undefined();
}

/// str.islower / str.isupper: at least one cased character, and none of the other case.
bool has_case(const Value& value, std::string (*convert)(std::string_view)) {
  const std::string text = to_text(value);
  bool cased = false;
  for (size_t at = 0; at < text.size(); at += code_point_bytes(text, at))
    cased |= is_cased(code_point(text, at));
  return cased && convert(text) == text;
}

bool is_same(const Value& a, const Value& b) {
  if (a.store().index() != b.store().index()) return false;
  if (a.sequence()) return a.sequence() == b.sequence();
  if (a.dict()) return a.dict() == b.dict();
  require(a.is_none() || a.get<bool>(), ErrorCode::unsupported, "the test 'sameas' of a {}", type_name(a));
  return equal(a, b);
}

int64_t integer_of(const Value& value) {
  return require_integer(value, "the value of a parity test");
}

const std::map<std::string_view, Test>& tests() {
  static const std::map<std::string_view, Test> kTests = [] {
    std::map<std::string_view, Test> out;
    out["defined"] = plain([](const Value& v) { return !v.is_undefined(); });
    out["undefined"] = plain([](const Value& v) { return v.is_undefined(); });
    out["none"] = plain([](const Value& v) { return v.is_none(); });
    out["boolean"] = plain([](const Value& v) { return v.get<bool>() != nullptr; });
    out["true"] = plain([](const Value& v) { return v.get<bool>() && *v.get<bool>(); });
    out["false"] = plain([](const Value& v) { return v.get<bool>() && !*v.get<bool>(); });
    out["integer"] = plain([](const Value& v) { return v.get<int64_t>() != nullptr; });
    out["float"] = plain([](const Value& v) { return v.get<double>() != nullptr; });
    out["number"] = plain([](const Value& v) { return v.is_number(); });
    out["string"] = plain([](const Value& v) { return v.string() != nullptr; });
    out["mapping"] = plain([](const Value& v) { return v.dict() != nullptr; });
    out["sequence"] = plain(is_sequence);
    out["iterable"] = plain(is_iterable);
    out["callable"] =
        plain([](const Value& v) { return v.get<std::shared_ptr<const Callable>>() != nullptr; });
    out["lower"] = plain([](const Value& v) { return has_case(v, lower); });
    out["upper"] = plain([](const Value& v) { return has_case(v, upper); });
    out["odd"] = plain([](const Value& v) { return integer_of(v) % 2 != 0; });
    out["even"] = plain([](const Value& v) { return integer_of(v) % 2 == 0; });
    for (const auto& [names, op] :
         std::initializer_list<std::pair<std::vector<std::string_view>, std::string_view>>{
             {{"eq", "equalto", "=="}, "=="},
             {{"ne", "!="}, "!="},
             {{"lt", "lessthan", "<"}, "<"},
             {{"le", "<="}, "<="},
             {{"gt", "greaterthan", ">"}, ">"},
             {{"ge", ">="}, ">="},
             {{"in"}, "in"}})
      for (const std::string_view name : names) out[name] = comparison(op);
    out["divisibleby"] = [](Evaluator& evaluator, const Value& value, const Arguments& arguments) {
      arguments.match("divisibleby", {"num"});
      return equal(binary_operator(evaluator, "%", value, arguments.at(0, "num")), Value(int64_t{0}));
    };
    out["sameas"] = [](Evaluator&, const Value& value, const Arguments& arguments) {
      arguments.match("sameas", {"other"});
      return is_same(value, arguments.at(0, "other"));
    };
    return out;
  }();
  return kTests;
}

}  // namespace

bool has_test(std::string_view name) {
  return tests().contains(name);
}

bool apply_test(Evaluator& evaluator, std::string_view name, const Value& input, const Arguments& arguments) {
  const auto test = tests().find(name);
  require(test != tests().end(), ErrorCode::unsupported, "the test '{}' is not supported", name);
  return test->second(evaluator, input, arguments);
}

}  // namespace mneme::jinja
