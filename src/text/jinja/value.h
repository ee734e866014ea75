// Values of the template language: what a Jinja expression evaluates to.
//
// The kinds are Python's, because templates are written against Python: integers and floats are different,
// strings are immutable and count in code points, dictionaries keep insertion order, tuples and lists compare
// unequal, and an undefined value is falsy, prints as nothing, but may not be looked into.
//
// Every container is immutable once built (transformers renders in jinja2's immutable sandbox), so values
// share their storage and a graph of values can have no cycle; the one mutable thing, namespace(), is owned
// by the render call that made it. Containers carry their nesting depth and their weight, the size they would
// have if nothing were shared; beyond kMaxNesting and kMaxWeight a container is refused when it is built, so
// that printing, comparing and destroying a value needs bounded stack, time and memory.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "core/fail.h"

namespace mneme::jinja {

inline constexpr uint32_t kMaxNesting = 128;
inline constexpr uint64_t kMaxWeight = uint64_t{1} << 28;

class Value;
struct Macro;  // ast.h
struct Scope;  // evaluator.h

struct Undefined {
  std::shared_ptr<const std::string> what;  // how the lookup that failed reads, for the error message
};
struct None {};

enum class Shape : uint8_t {
  list,
  tuple,
  generator,  // what select, map, reverse, ... return: can be walked once, has no length
  view,       // dict.items(), dict.keys(), dict.values(): has a length, no indexing
  range       // range(): like a list, but prints differently, which is refused
};

struct Sequence;
struct Dict;
struct Namespace;
struct Loop;
struct Callable;
using String = std::shared_ptr<const std::string>;
using Pairs = std::vector<std::pair<Value, Value>>;

class Value {
 public:
  using Store = std::variant<Undefined, None, bool, int64_t, double, String, std::shared_ptr<Sequence>,
                             std::shared_ptr<const Dict>, std::shared_ptr<Namespace>, std::shared_ptr<Loop>,
                             std::shared_ptr<const Callable>>;

  Value() = default;
  Value(None none) : store_(none) {}
  Value(bool value) : store_(value) {}
  Value(int64_t value) : store_(value) {}
  Value(double value) : store_(value) {}
  Value(std::string text) : store_(std::make_shared<const std::string>(std::move(text))) {}
  Value(std::string_view text) : Value(std::string(text)) {}
  Value(const char* text) : Value(std::string(text)) {}
  Value(String text) : store_(std::move(text)) {}
  Value(std::shared_ptr<Namespace> space) : store_(std::move(space)) {}
  Value(std::shared_ptr<Loop> loop) : store_(std::move(loop)) {}
  Value(std::shared_ptr<const Callable> callable) : store_(std::move(callable)) {}

  static Value undefined(std::string what);
  /// Throws Error(limit) beyond kMaxNesting or kMaxWeight; so does dict().
  static Value sequence(std::vector<Value> items, Shape shape = Shape::list);
  /// Later pairs replace earlier ones of an equal key. Throws for an unhashable key.
  static Value dict(Pairs entries);

  template <class T>
  const T* get() const noexcept {
    return std::get_if<T>(&store_);
  }
  const Store& store() const noexcept { return store_; }

  bool is_undefined() const noexcept { return get<Undefined>() != nullptr; }
  bool is_none() const noexcept { return get<None>() != nullptr; }
  const std::string* string() const noexcept {
    const String* text = get<String>();
    return text ? text->get() : nullptr;
  }
  Sequence* sequence() const noexcept {
    const auto* items = get<std::shared_ptr<Sequence>>();
    return items ? items->get() : nullptr;
  }
  const Dict* dict() const noexcept {
    const auto* entries = get<std::shared_ptr<const Dict>>();
    return entries ? entries->get() : nullptr;
  }
  /// Integer value of an integer or a boolean (Python's bool is an int).
  bool as_integer(int64_t& out) const noexcept;
  bool as_number(double& out) const noexcept;
  bool is_number() const noexcept {
    return get<int64_t>() != nullptr || get<double>() != nullptr || get<bool>() != nullptr;
  }

  /// Python's truth value.
  bool truth() const;
  uint32_t nesting() const noexcept;
  /// About how many bytes the value prints as.
  uint64_t weight() const noexcept;

 private:
  explicit Value(Store store) : store_(std::move(store)) {}
  Store store_;
};

struct Sequence {
  std::vector<Value> items;
  Shape shape = Shape::list;
  uint32_t nesting = 1;
  uint64_t weight = 1;
  size_t taken = 0;  // of a generator: how many items have been walked over
};

struct Dict {
  Pairs entries;                                         // in insertion order
  std::unordered_map<std::string_view, size_t> by_name;  // entries whose key is a string
  uint32_t nesting = 1;
  uint64_t weight = 1;

  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
};

struct Namespace {
  std::vector<std::pair<std::string, Value>> attributes;
  Value* find(std::string_view name);
};

/// The `loop` variable.
struct Loop {
  std::vector<Value> items;
  size_t index = 0;
  uint32_t nesting = 1;
  uint64_t weight = 1;
};

struct Callable {
  enum class Kind { global, method, macro };
  Kind kind = Kind::global;
  std::string name;
  Value self;  // method: the object
  const Macro* macro = nullptr;
  std::weak_ptr<Scope> scope;  // macro: where it was defined
};

/// Python's ==.
bool equal(const Value& a, const Value& b);
/// Python's <; throws for kinds that have no order.
bool less(const Value& a, const Value& b);
/// Python's name of the kind, for messages: "str", "int", "dict", ...
std::string_view type_name(const Value& value);

/// str(value): what {{ value }} prints.
std::string to_text(const Value& value);
/// repr(value): how a value prints inside a list.
std::string to_repr(const Value& value);

struct JsonStyle {
  int indent = -1;  // -1: on one line
  bool sort_keys = false;
  bool ensure_ascii = false;
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};
/// json.dumps(value), with transformers' defaults.
std::string to_json(const Value& value, const JsonStyle& style);

}  // namespace mneme::jinja
