// Operators, attribute and item access, iteration, printf-style formatting: Python's rules for the kinds at
// hand.
#include <algorithm>
#include <cmath>
#include <limits>

#include "text/jinja/builtins.h"
#include "text/jinja/evaluator.h"
#include "text/jinja/unicode.h"

namespace mneme::jinja {

namespace {

void require_defined(const Value& value) {
  if (const auto* undefined = value.get<Undefined>())
    fail(ErrorCode::invalid_argument, "{} is undefined", undefined->what ? *undefined->what : "a value");
}

[[noreturn]] void fail_operands(std::string_view op, const Value& a, const Value& b) {
  fail(ErrorCode::invalid_argument, "'{}' does not go with a {} and a {}", op, type_name(a), type_name(b));
}

[[noreturn]] void fail_overflow(std::string_view op) {
  fail(ErrorCode::limit, "'{}' gives an integer beyond 64 bits", op);
}

Value integer_power(int64_t base, int64_t exponent) {
  int64_t out = 1;
  for (int64_t i = 0; i < exponent; ++i) {
    if (__builtin_mul_overflow(out, base, &out)) fail_overflow("**");
    if (base == 0 || base == 1) return base;
    if (base == -1) return int64_t{exponent % 2 == 0 ? 1 : -1};
  }
  return out;
}

Value integer_operator(std::string_view op, int64_t a, int64_t b) {
  int64_t out = 0;
  if (op == "+") return __builtin_add_overflow(a, b, &out) ? fail_overflow(op) : void(), Value(out);
  if (op == "-" || op == "neg")
    return __builtin_sub_overflow(a, b, &out) ? fail_overflow(op) : void(), Value(out);
  if (op == "*") return __builtin_mul_overflow(a, b, &out) ? fail_overflow(op) : void(), Value(out);
  if (op == "**")
    return b < 0 ? Value(std::pow(static_cast<double>(a), static_cast<double>(b))) : integer_power(a, b);
  require(b != 0, ErrorCode::invalid_argument, "division by zero");
  if (op == "/") return static_cast<double>(a) / static_cast<double>(b);
  if (b == -1) return op == "%" ? Value(int64_t{0}) : integer_operator("neg", 0, a);
  const int64_t quotient = a / b - ((a % b != 0 && (a < 0) != (b < 0)) ? 1 : 0);
  return op == "//" ? quotient : a - quotient * b;
}

double float_modulo(double a, double b) {
  double out = std::fmod(a, b);
  if (out != 0 && (out < 0) != (b < 0)) out += b;
  return out;
}

Value float_operator(std::string_view op, double a, double b) {
  if (op == "+") return a + b;
  if (op == "-") return a - b;
  if (op == "neg") return -b;
  if (op == "*") return a * b;
  if (op == "**") return std::pow(a, b);
  require(b != 0, ErrorCode::invalid_argument, "division by zero");
  if (op == "/") return a / b;
  if (op == "%") return float_modulo(a, b);
  return (a - float_modulo(a, b)) / b;
}

Value number_operator(std::string_view op, const Value& a, const Value& b) {
  if (op == "pos") return b.get<double>() ? b : integer_operator("+", 0, require_integer(b, "a number"));
  int64_t x = 0, y = 0;
  if (a.as_integer(x) && b.as_integer(y)) return integer_operator(op, x, y);
  double u = 0, v = 0;
  a.as_number(u);
  b.as_number(v);
  return float_operator(op, u, v);
}

Value repeat(Evaluator& evaluator, const Value& value, int64_t count) {
  const uint64_t times = count < 0 ? 0 : static_cast<uint64_t>(count);
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(value.weight(), times, &bytes) || bytes > kMaxWeight)
    fail(ErrorCode::limit, "a value repeated {} times is larger than {} bytes", count, kMaxWeight);
  evaluator.charge_bytes(bytes);
  if (const std::string* text = value.string()) {
    std::string out;
    for (uint64_t i = 0; i < times; ++i) out += *text;
    return Value(std::move(out));
  }
  const Sequence& sequence = *value.sequence();
  std::vector<Value> items;
  for (uint64_t i = 0; i < times && !sequence.items.empty(); ++i)
    items.insert(items.end(), sequence.items.begin(), sequence.items.end());
  return evaluator.list_of(std::move(items), sequence.shape);
}

bool is_list_or_tuple(const Value& value) {
  const Sequence* sequence = value.sequence();
  return sequence && (sequence->shape == Shape::list || sequence->shape == Shape::tuple);
}

bool is_indexable(const Value& value) {
  return is_list_or_tuple(value) || (value.sequence() && value.sequence()->shape == Shape::range);
}

Value add(Evaluator& evaluator, const Value& a, const Value& b) {
  if (a.string() && b.string()) {
    evaluator.charge_bytes(a.string()->size() + b.string()->size());
    require(a.string()->size() + b.string()->size() <= kMaxWeight, ErrorCode::limit,
            "a text is longer than {} bytes", kMaxWeight);
    return *a.string() + *b.string();
  }
  if (is_list_or_tuple(a) && is_list_or_tuple(b) && a.sequence()->shape == b.sequence()->shape) {
    std::vector<Value> items = a.sequence()->items;
    items.insert(items.end(), b.sequence()->items.begin(), b.sequence()->items.end());
    return evaluator.list_of(std::move(items), a.sequence()->shape);
  }
  fail_operands("+", a, b);
}

bool contains(Evaluator& evaluator, const Value& item, const Value& container) {
  if (const std::string* text = container.string()) {
    const std::string* part = item.string();
    require(part != nullptr, ErrorCode::invalid_argument, "'in' looks for a {} in a str", type_name(item));
    evaluator.charge_bytes(text->size());
    return text->find(*part) != std::string::npos;
  }
  if (const Dict* dict = container.dict()) return dict->find(item) != nullptr;
  if (container.is_undefined()) return false;
  const std::vector<Value> items = iterate(evaluator, container);
  return std::any_of(items.begin(), items.end(), [&](const Value& other) {
    evaluator.charge_bytes(std::min(item.weight(), other.weight()));
    return equal(item, other);
  });
}

Value loop_attribute(const std::shared_ptr<Loop>& loop, std::string_view name) {
  const auto number = [](size_t n) { return Value(static_cast<int64_t>(n)); };
  const size_t size = loop->items.size(), index = loop->index;
  if (name == "index") return number(index + 1);
  if (name == "index0") return number(index);
  if (name == "revindex") return number(size - index);
  if (name == "revindex0") return number(size - index - 1);
  if (name == "first") return index == 0;
  if (name == "last") return index + 1 == size;
  if (name == "length") return number(size);
  if (name == "depth") return number(1);
  if (name == "depth0") return number(0);
  if (name == "previtem")
    return index > 0 ? loop->items[index - 1] : Value::undefined("there is no previous item; it");
  if (name == "nextitem")
    return index + 1 < size ? loop->items[index + 1] : Value::undefined("there is no next item; it");
  return Value();
}

Value method_of(const Value& object, std::string_view name) {
  auto callable = std::make_shared<Callable>();
  callable->kind = Callable::Kind::method;
  callable->name = name;
  callable->self = object;
  return Value(std::shared_ptr<const Callable>(std::move(callable)));
}

/// An attribute in Python's sense: a method, or a field of a namespace or loop. Undefined if there is none.
Value python_attribute(const Value& object, std::string_view name) {
  if (const auto* space = object.get<std::shared_ptr<Namespace>>()) {
    if (const Value* value = (*space)->find(name)) return *value;
    return Value();
  }
  if (has_method(object, name)) return method_of(object, name);
  if (const auto* loop = object.get<std::shared_ptr<Loop>>()) return loop_attribute(*loop, name);
  // What Python's numbers and objects carry besides is outside the subset.
  static constexpr std::string_view kNumbers[] = {"real",       "imag",      "numerator",  "denominator",
                                                  "bit_length", "conjugate", "is_integer", "as_integer_ratio",
                                                  "hex",        "bit_count", "to_bytes"};
  const bool of_number =
      object.is_number() && std::find(std::begin(kNumbers), std::end(kNumbers), name) != std::end(kNumbers);
  require(!of_number && !name.starts_with("__"), ErrorCode::unsupported, "the attribute '{}'", name);
  return Value();
}

Value item_or_undefined(const Value& object, const Value& key) {
  if (const Dict* dict = object.dict()) {
    const Value* value = dict->find(key);
    return value ? *value : Value();
  }
  int64_t index = 0;
  if (!key.as_integer(index)) return Value();
  if (is_indexable(object)) {
    const auto& items = object.sequence()->items;
    const auto size = static_cast<int64_t>(items.size());
    if (index < 0) index += size;
    return index >= 0 && index < size ? items[static_cast<size_t>(index)] : Value();
  }
  if (const std::string* text = object.string()) {
    const auto points = code_points(*text);
    const auto size = static_cast<int64_t>(points.size());
    if (index < 0) index += size;
    return index >= 0 && index < size ? Value(points[static_cast<size_t>(index)]) : Value();
  }
  return Value();
}

std::string path_of(const Value& object, std::string_view name) {
  return fmt::format("'{}' of a {}", name, type_name(object));
}

/// Indices that object[first:last:step] takes, for a length.
std::vector<size_t> slice_indices(int64_t length, const Value* first, const Value* last, const Value* step) {
  const auto bound = [&](const Value* value, int64_t otherwise, int64_t low, int64_t high) {
    if (!value || value->is_none()) return otherwise;
    int64_t at = require_integer(*value, "a slice bound");
    if (at < 0) at = at < -length ? low : at + length;
    return std::clamp(at, low, high);
  };
  const int64_t by = step && !step->is_none() ? require_integer(*step, "a slice step") : 1;
  require(by != 0, ErrorCode::invalid_argument, "the step of a slice is zero");
  std::vector<size_t> out;
  if (by > 0) {
    const int64_t end = bound(last, length, 0, length);
    for (int64_t at = bound(first, 0, 0, length); at < end; at += std::min(by, length))
      out.push_back(static_cast<size_t>(at));
  } else {
    const int64_t end = bound(last, -1, -1, length - 1);
    for (int64_t at = bound(first, length - 1, -1, length - 1); at > end; at += std::max(by, -length - 1))
      out.push_back(static_cast<size_t>(at));
  }
  return out;
}

}  // namespace

Value binary_operator(Evaluator& evaluator, std::string_view op, const Value& a, const Value& b) {
  require_defined(a);
  require_defined(b);
  if (op == "%" && a.string()) {
    const Sequence* values = b.sequence();
    return format_printf(evaluator, *a.string(),
                         values && values->shape == Shape::tuple ? values->items : std::vector<Value>{b});
  }
  if (a.is_number() && b.is_number()) return number_operator(op, a, b);
  if (op == "+") return add(evaluator, a, b);
  int64_t count = 0;
  if (op == "*" && (a.string() || is_list_or_tuple(a)) && b.as_integer(count))
    return repeat(evaluator, a, count);
  if (op == "*" && (b.string() || is_list_or_tuple(b)) && a.as_integer(count))
    return repeat(evaluator, b, count);
  fail_operands(op, a, b);
}

bool compare_operator(Evaluator& evaluator, std::string_view op, const Value& a, const Value& b) {
  if (op == "in") return contains(evaluator, a, b);
  if (op == "not in") return !contains(evaluator, a, b);
  evaluator.charge_bytes(std::min(a.weight(), b.weight()));
  if (op == "==") return equal(a, b);
  if (op == "!=") return !equal(a, b);
  require_defined(a);
  require_defined(b);
  if (op == "<") return less(a, b);
  if (op == ">") return less(b, a);
  // With NaN both < and > are false, and so are <= and >=.
  if (op == "<=") return less(a, b) || equal(a, b);
  return less(b, a) || equal(a, b);
}

Value get_attribute(const Value& object, std::string_view name) {
  require_defined(object);
  if (Value found = python_attribute(object, name); !found.is_undefined()) return found;
  if (const Dict* dict = object.dict())
    if (const Value* value = dict->find(name)) return *value;
  return Value::undefined(path_of(object, name));
}

Value get_item(const Value& object, const Value& key) {
  require_defined(object);
  if (const Dict* dict = object.dict())
    if (const Value* value = dict->find(key)) return *value;
  if (Value found = item_or_undefined(object, key); !found.is_undefined()) return found;
  if (const std::string* name = key.string()) {
    if (Value found = python_attribute(object, *name); !found.is_undefined()) return found;
    return Value::undefined(path_of(object, *name));
  }
  return Value::undefined(fmt::format("that item of a {}", type_name(object)));
}

Value get_slice(Evaluator& evaluator, const Value& object, const Value* first, const Value* last,
                const Value* step) {
  require_defined(object);
  if (const std::string* text = object.string()) {
    const auto points = code_points(*text);
    evaluator.charge_bytes(text->size());
    std::string out;
    for (const size_t at : slice_indices(static_cast<int64_t>(points.size()), first, last, step))
      out += points[at];
    return Value(std::move(out));
  }
  require(is_indexable(object), ErrorCode::invalid_argument, "a {} cannot be sliced", type_name(object));
  const Sequence& sequence = *object.sequence();
  std::vector<Value> items;
  for (const size_t at : slice_indices(static_cast<int64_t>(sequence.items.size()), first, last, step))
    items.push_back(sequence.items[at]);
  return evaluator.list_of(std::move(items), sequence.shape);
}

std::vector<Value> iterate(Evaluator& evaluator, const Value& value) {
  std::vector<Value> out;
  if (value.is_undefined()) return out;
  if (Sequence* sequence = value.sequence()) {
    evaluator.charge(1 + sequence->items.size());
    if (sequence->shape != Shape::generator) return sequence->items;
    out.assign(sequence->items.begin() + static_cast<std::ptrdiff_t>(sequence->taken), sequence->items.end());
    sequence->taken = sequence->items.size();
    return out;
  }
  if (const Dict* dict = value.dict()) {
    evaluator.charge(1 + dict->entries.size());
    for (const auto& entry : dict->entries) out.push_back(entry.first);
    return out;
  }
  if (const std::string* text = value.string()) {
    evaluator.charge(1 + text->size());
    for (const std::string_view one : code_points(*text)) out.emplace_back(one);
    return out;
  }
  fail(ErrorCode::invalid_argument, "a {} cannot be iterated over", type_name(value));
}

int64_t require_integer(const Value& value, std::string_view what) {
  int64_t out = 0;
  require_defined(value);
  require(value.as_integer(out), ErrorCode::invalid_argument, "{} must be an integer, not a {}", what,
          type_name(value));
  return out;
}

const std::string& require_string(const Value& value, std::string_view what) {
  require_defined(value);
  require(value.string() != nullptr, ErrorCode::invalid_argument, "{} must be a str, not a {}", what,
          type_name(value));
  return *value.string();
}

std::string format_printf(Evaluator& evaluator, std::string_view text, const std::vector<Value>& values) {
  std::string out;
  size_t used = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    const char kind = ++i < text.size() ? text[i] : '\0';
    if (kind == '%') {
      out += '%';
      continue;
    }
    require(kind == 's' || kind == 'd' || kind == 'i' || kind == 'r', ErrorCode::unsupported,
            "the format '%{}'; %s, %d, %i, %r and %% are", kind ? std::string(1, kind) : "");
    require(used < values.size(), ErrorCode::invalid_argument, "'{}' needs more values than the {} given",
            text, values.size());
    const Value& value = values[used++];
    evaluator.charge_bytes(value.weight());
    if (kind == 's')
      out += to_text(value);
    else if (kind == 'r')
      out += to_repr(value);
    else if (const double* real = value.get<double>(); real && std::abs(*real) < 9e18)
      out += std::to_string(static_cast<int64_t>(*real));
    else
      out += std::to_string(require_integer(value, "the value of %d"));
  }
  require(used == values.size(), ErrorCode::invalid_argument, "'{}' needs fewer values than the {} given",
          text, values.size());
  return out;
}

}  // namespace mneme::jinja
