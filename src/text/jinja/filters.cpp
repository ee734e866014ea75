// Filters on single values: `value | name(arguments)`. Filters that walk over a sequence are in
// sequence_filters.cpp. Each behaves as jinja2's filter of the same name; tojson as transformers defines it.
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <map>

#include "core/markup.h"
#include "text/jinja/builtins.h"
#include "text/jinja/evaluator.h"
#include "text/jinja/filter_table.h"
#include "text/jinja/unicode.h"

namespace mneme::jinja {

void Arguments::match(std::string_view function, std::initializer_list<std::string_view> parameters) const {
  require(positional.size() <= parameters.size(), ErrorCode::invalid_argument,
          "{} takes at most {} arguments, {} given", function, parameters.size(), positional.size());
  for (const auto& [name, value] : named) {
    const auto found = std::find(parameters.begin(), parameters.end(), name);
    require(found != parameters.end(), ErrorCode::invalid_argument, "{} has no parameter '{}'", function,
            name);
    require(static_cast<size_t>(found - parameters.begin()) >= positional.size(), ErrorCode::invalid_argument,
            "{} got the argument '{}' twice", function, name);
  }
}

const Value* Arguments::find(size_t position, std::string_view name) const {
  if (position < positional.size()) return &positional[position];
  for (const auto& [own, value] : named)
    if (own == name) return &value;
  return nullptr;
}

const Value& Arguments::at(size_t position, std::string_view name) const {
  const Value* value = find(position, name);
  require(value != nullptr, ErrorCode::invalid_argument, "the argument '{}' is missing", name);
  return *value;
}

namespace {

/// A filter that turns the text of its input into another text and takes no arguments.
Filter on_text(std::string (*convert)(std::string_view)) {
  return [convert](Evaluator& evaluator, const Value& input, const Arguments& arguments) {
    arguments.match("the filter", {});
    return Value(convert(evaluator.text_of(input)));
  };
}

/// jinja2's title: words start after white space and after - ( { [ <.
std::string title(std::string_view text) {
  std::string out;
  size_t start = 0;
  const auto add_word = [&](size_t end) {
    if (end == start) return;
    const size_t first = code_point_bytes(text, start);
    out += upper(text.substr(start, first)) + lower(text.substr(start + first, end - start - first));
  };
  for (size_t at = 0; at < text.size();) {
    const size_t bytes = code_point_bytes(text, at);
    const char32_t code = code_point(text, at);
    if (is_space(code) ||
        (code < 0x80 && std::string_view("-({[<").find(static_cast<char>(code)) != std::string_view::npos)) {
      add_word(at);
      out += text.substr(at, bytes);
      start = at + bytes;
    }
    at += bytes;
  }
  add_word(text.size());
  return out;
}

// jinja2's `escape`.
std::string escape(std::string_view text) {
  static constexpr std::array kEntities{Entity{'&', "&amp;"}, Entity{'<', "&lt;"}, Entity{'>', "&gt;"},
                                        Entity{'\'', "&#39;"}, Entity{'"', "&#34;"}};
  return replace_entities(text, kEntities);
}

Value trim(Evaluator& evaluator, const Value& input, const Arguments& arguments) {
  arguments.match("trim", {"chars"});
  const std::string text = evaluator.text_of(input);
  const Value* chars = arguments.find(0, "chars");
  if (!chars || chars->is_none()) return strip(text, nullptr, true, true);
  const std::string_view set = require_string(*chars, "the characters of trim");
  return strip(text, &set, true, true);
}

Value replace(Evaluator& evaluator, const Value& input, const Arguments& arguments) {
  arguments.match("replace", {"old", "new", "count"});
  Arguments method;
  method.positional = {Value(evaluator.text_of(arguments.at(0, "old"))),
                       Value(evaluator.text_of(arguments.at(1, "new")))};
  const Value* count = arguments.find(2, "count");
  if (count && !count->is_none()) method.positional.push_back(*count);
  return call_method(evaluator, Value(evaluator.text_of(input)), "replace", method);
}

Value default_value(Evaluator&, const Value& input, const Arguments& arguments) {
  arguments.match("default", {"default_value", "boolean"});
  const Value* boolean = arguments.find(1, "boolean");
  if (!input.is_undefined() && !(boolean && boolean->truth() && !input.truth())) return input;
  const Value* other = arguments.find(0, "default_value");
  return other ? *other : Value("");
}

Value indent(Evaluator& evaluator, const Value& input, const Arguments& arguments) {
  arguments.match("indent", {"width", "first", "blank"});
  const Value* width = arguments.find(0, "width");
  const std::string text = evaluator.text_of(input) + '\n';  // so that a trailing newline keeps its line
  std::string step(4, ' ');
  if (width && width->string())
    step = *width->string();
  else if (width)
    step.assign(
        static_cast<size_t>(std::clamp<int64_t>(require_integer(*width, "the width of indent"), 0, 4096)),
        ' ');
  const Value *first = arguments.find(1, "first"), *blank = arguments.find(2, "blank");
  const auto lines = split_lines(text, false);
  evaluator.charge_bytes(text.size() + lines.size() * step.size());
  require(lines.size() * (step.size() + 1) + text.size() <= kMaxWeight, ErrorCode::limit,
          "an indented text is longer than {} bytes", kMaxWeight);
  std::string out;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out += '\n';
    const bool wanted = i == 0 ? first && first->truth() : !lines[i].empty() || (blank && blank->truth());
    if (wanted) out += step;
    out += lines[i];
  }
  return Value(std::move(out));
}

/// Text to a number as Python's int() and float() read it: spaces around, a sign, `_` between digits.
template <class Number>
bool parse_number(std::string_view text, Number& out, int base = 10) {
  text = strip(text, nullptr, true, true);
  std::string digits;
  const bool sign = text.starts_with('+') || text.starts_with('-');
  if (text.starts_with('-')) digits = '-';
  if (sign) text.remove_prefix(1);
  const char prefix = base == 16 ? 'x' : base == 8 ? 'o' : base == 2 ? 'b' : '\0';
  if (prefix && text.size() > 2 && text[0] == '0' && (text[1] | 0x20) == prefix) text.remove_prefix(2);
  for (size_t i = 0; i < text.size(); ++i) {
    const bool between = i > 0 && i + 1 < text.size() && text[i - 1] != '_' && text[i + 1] != '_';
    if (text[i] == '_' && !between) return false;
    if (text[i] != '_') digits += text[i];
  }
  if (digits.empty() || text.empty() || text[0] == '-') return false;
  const char* end = digits.data() + digits.size();
  std::from_chars_result result{};
  if constexpr (std::is_same_v<Number, double>)
    result = std::from_chars(digits.data(), end, out);
  else
    result = std::from_chars(digits.data(), end, out, base);
  require(result.ec != std::errc::result_out_of_range, ErrorCode::limit, "the number {} does not fit 64 bits",
          digits);
  return result.ec == std::errc() && result.ptr == end;
}

Value truncated(double value, const Value& otherwise) {
  if (std::isnan(value) || std::isinf(value)) return otherwise;
  require(std::abs(value) < 9.2e18, ErrorCode::limit, "the number {} does not fit 64 bits", value);
  return static_cast<int64_t>(value);
}

Value to_int(Evaluator&, const Value& input, const Arguments& arguments) {
  arguments.match("int", {"default", "base"});
  const Value* given = arguments.find(0, "default");
  const Value otherwise = given ? *given : Value(int64_t{0});
  const Value* base = arguments.find(1, "base");
  const int64_t radix = base ? require_integer(*base, "the base of int") : 10;
  require(radix >= 2 && radix <= 36, ErrorCode::unsupported, "int in base {}", radix);
  int64_t integer = 0;
  double real = 0;
  if (const std::string* text = input.string()) {
    if (parse_number(*text, integer, static_cast<int>(radix))) return integer;
    return parse_number(*text, real) ? truncated(real, otherwise) : otherwise;
  }
  if (input.as_integer(integer)) return integer;
  return input.as_number(real) ? truncated(real, otherwise) : otherwise;
}

Value to_float(Evaluator&, const Value& input, const Arguments& arguments) {
  arguments.match("float", {"default"});
  const Value* otherwise = arguments.find(0, "default");
  double real = 0;
  if (input.as_number(real)) return real;
  if (const std::string* text = input.string(); text && parse_number(*text, real)) return real;
  return otherwise ? *otherwise : Value(0.0);
}

Value absolute(Evaluator& evaluator, const Value& input, const Arguments& arguments) {
  arguments.match("abs", {});
  require(input.is_number(), ErrorCode::invalid_argument, "abs of a {}", type_name(input));
  double real = 0;
  input.as_number(real);
  return real < 0 ? binary_operator(evaluator, "neg", Value(int64_t{0}), input)
                  : binary_operator(evaluator, "pos", Value(int64_t{0}), input);
}

Value round(Evaluator&, const Value& input, const Arguments& arguments) {
  arguments.match("round", {"precision", "method"});
  const Value *precision = arguments.find(0, "precision"), *method = arguments.find(1, "method");
  const int64_t digits = precision ? require_integer(*precision, "the precision of round") : 0;
  const std::string how(method ? require_string(*method, "the method of round") : std::string_view("common"));
  require(how == "common" || how == "ceil" || how == "floor", ErrorCode::invalid_argument,
          "the method of round is '{}'; it can be common, ceil or floor", how);
  double value = 0;
  require(input.as_number(value), ErrorCode::invalid_argument, "round of a {}", type_name(input));
  require(std::abs(digits) <= 300, ErrorCode::unsupported, "round to {} digits", digits);
  const double scale = std::pow(10.0, static_cast<double>(digits));
  if (how != "common") return (how == "ceil" ? std::ceil(value * scale) : std::floor(value * scale)) / scale;
  int64_t integer = 0;
  if (input.as_integer(integer)) {
    require(digits >= 0, ErrorCode::unsupported, "round of an integer to {} digits", digits);
    return integer;
  }
  if (!std::isfinite(value)) return value;
  require(digits >= 0, ErrorCode::unsupported, "round to {} digits", digits);
  // Correctly rounded decimal digits, halves to even as they are stored: what Python's round does.
  return std::strtod(fmt::format("{:.{}f}", value, digits).c_str(), nullptr);
}

Value to_json_filter(Evaluator& evaluator, const Value& input, const Arguments& arguments) {
  arguments.match("tojson", {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  if (const Value* ascii = arguments.find(0, "ensure_ascii")) style.ensure_ascii = ascii->truth();
  if (const Value* width = arguments.find(1, "indent"); width && !width->is_none()) {
    style.indent =
        static_cast<int>(std::clamp<int64_t>(require_integer(*width, "the indent of tojson"), 0, 32));
    style.item_separator.assign(1, ',');
  }
  if (const Value* separators = arguments.find(2, "separators"); separators && !separators->is_none()) {
    const std::vector<Value> parts = iterate(evaluator, *separators);
    require(parts.size() == 2, ErrorCode::invalid_argument, "tojson takes two separators, {} given",
            parts.size());
    style.item_separator = require_string(parts[0], "a separator of tojson");
    style.key_separator = require_string(parts[1], "a separator of tojson");
  }
  if (const Value* sorted = arguments.find(3, "sort_keys")) style.sort_keys = sorted->truth();
  const uint64_t indented = static_cast<uint64_t>(std::max(style.indent, 0)) * input.nesting();
  const uint64_t separators = style.item_separator.size() + style.key_separator.size();
  evaluator.charge_bytes(input.weight() * (1 + indented + separators / 2));
  return Value(to_json(input, style));
}

Value format(Evaluator& evaluator, const Value& input, const Arguments& arguments) {
  require(arguments.named.empty(), ErrorCode::unsupported, "the filter 'format' with named arguments");
  return Value(format_printf(evaluator, evaluator.text_of(input), arguments.positional));
}

std::string unchanged(std::string_view text) {
  return std::string(text);
}

/// `safe` marks text as HTML for jinja2's autoescape, which chat templates render without.
Value safe(Evaluator& evaluator, const Value& input, const Arguments& arguments) {
  arguments.match("safe", {});
  return Value(evaluator.text_of(input));
}

const std::map<std::string_view, Filter>& filters() {
  static const std::map<std::string_view, Filter> kFilters = [] {
    std::map<std::string_view, Filter> out = {
        {"abs", absolute},
        {"capitalize", on_text(capitalize)},
        {"d", default_value},
        {"default", default_value},
        {"e", on_text(escape)},
        {"escape", on_text(escape)},
        {"float", to_float},
        {"format", format},
        {"indent", indent},
        {"int", to_int},
        {"lower", on_text(lower)},
        {"replace", replace},
        {"round", round},
        {"safe", safe},
        {"string", on_text(unchanged)},
        {"title", on_text(title)},
        {"tojson", to_json_filter},
        {"trim", trim},
        {"upper", on_text(upper)},
    };
    add_sequence_filters(out);
    return out;
  }();
  return kFilters;
}

}  // namespace

bool has_filter(std::string_view name) {
  return filters().contains(name);
}

Value apply_filter(Evaluator& evaluator, std::string_view name, const Value& input,
                   const Arguments& arguments) {
  const auto filter = filters().find(name);
  require(filter != filters().end(), ErrorCode::unsupported, "the filter '{}' is not supported", name);
  return filter->second(evaluator, input, arguments);
}

}  // namespace mneme::jinja
