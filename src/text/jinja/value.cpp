// Construction, truth, equality and order of template values.
#include "text/jinja/value.h"

#include <algorithm>
#include <cmath>

namespace mneme::jinja {

namespace {

/// Adds a member to the nesting and weight of its container.
template <class Container>
void count_member(Container& out, const Value& member) {
  out.nesting = std::max(out.nesting, member.nesting() + 1);
  out.weight += member.weight() + 1;
  require(out.nesting <= kMaxNesting, ErrorCode::limit, "a value is nested more than {} levels deep",
          kMaxNesting);
  require(out.weight <= kMaxWeight, ErrorCode::limit, "a value is larger than {} bytes", kMaxWeight);
}

void check_hashable(const Value& key) {
  const Sequence* items = key.sequence();
  if (items && items->shape == Shape::tuple)
    for (const Value& item : items->items) check_hashable(item);
  else
    require(!items && !key.dict(), ErrorCode::invalid_argument, "a {} cannot be the key of a dictionary",
            type_name(key));
}

}  // namespace

Value Value::undefined(std::string what) {
  return Value(Store(Undefined{std::make_shared<const std::string>(std::move(what))}));
}

Value Value::sequence(std::vector<Value> items, Shape shape) {
  auto out = std::make_shared<Sequence>();
  for (const Value& item : items) count_member(*out, item);
  out->items = std::move(items);
  out->shape = shape;
  return Value(Store(std::move(out)));
}

Value Value::dict(Pairs entries) {
  auto out = std::make_shared<Dict>();
  for (auto& [key, value] : entries) {
    check_hashable(key);
    count_member(*out, key);
    count_member(*out, value);
    if (const Value* old = out->find(key)) {
      *const_cast<Value*>(old) = std::move(value);  // the entry is ours, still being built
      continue;
    }
    out->entries.emplace_back(std::move(key), std::move(value));
    if (const std::string* name = out->entries.back().first.string())
      out->by_name.emplace(*name, out->entries.size() - 1);
  }
  return Value(Store(std::shared_ptr<const Dict>(std::move(out))));
}

bool Value::as_integer(int64_t& out) const noexcept {
  if (const auto* integer = get<int64_t>()) return out = *integer, true;
  if (const auto* boolean = get<bool>()) return out = *boolean ? 1 : 0, true;
  return false;
}

bool Value::as_number(double& out) const noexcept {
  if (const auto* real = get<double>()) return out = *real, true;
  int64_t integer = 0;
  if (!as_integer(integer)) return false;
  out = static_cast<double>(integer);
  return true;
}

bool Value::truth() const {
  if (is_undefined() || is_none()) return false;
  double number = 0;
  if (as_number(number)) return number != 0;
  if (const std::string* text = string()) return !text->empty();
  if (const Sequence* items = sequence()) return items->shape == Shape::generator || !items->items.empty();
  if (const Dict* entries = dict()) return !entries->entries.empty();
  if (const auto* loop = get<std::shared_ptr<Loop>>()) return !(*loop)->items.empty();
  return true;
}

uint32_t Value::nesting() const noexcept {
  if (const Sequence* items = sequence()) return items->nesting;
  if (const Dict* entries = dict()) return entries->nesting;
  if (const auto* loop = get<std::shared_ptr<Loop>>()) return (*loop)->nesting;
  if (const auto* callable = get<std::shared_ptr<const Callable>>()) return (*callable)->self.nesting() + 1;
  return 0;
}

uint64_t Value::weight() const noexcept {
  if (const std::string* text = string()) return text->size() + 2;
  if (const Sequence* items = sequence()) return items->weight;
  if (const Dict* entries = dict()) return entries->weight;
  if (const auto* loop = get<std::shared_ptr<Loop>>()) return (*loop)->weight;
  if (const auto* callable = get<std::shared_ptr<const Callable>>()) return (*callable)->self.weight() + 1;
  return 4;
}

const Value* Dict::find(std::string_view key) const {
  const auto found = by_name.find(key);
  return found == by_name.end() ? nullptr : &entries[found->second].second;
}

const Value* Dict::find(const Value& key) const {
  if (const std::string* name = key.string()) return find(std::string_view(*name));
  if (entries.size() == by_name.size()) return nullptr;  // only string keys
  for (const auto& [own, value] : entries)
    if (equal(own, key)) return &value;
  return nullptr;
}

Value* Namespace::find(std::string_view name) {
  for (auto& [own, value] : attributes)
    if (own == name) return &value;
  return nullptr;
}

namespace {

bool equal_sequences(const Sequence& a, const Sequence& b) {
  if (&a == &b) return true;
  if (a.shape != b.shape || a.shape == Shape::generator || a.shape == Shape::view) return false;
  return std::equal(a.items.begin(), a.items.end(), b.items.begin(), b.items.end(), equal);
}

bool equal_dicts(const Dict& a, const Dict& b) {
  if (a.entries.size() != b.entries.size()) return false;
  return std::all_of(a.entries.begin(), a.entries.end(), [&](const auto& entry) {
    const Value* other = b.find(entry.first);
    return other && equal(entry.second, *other);
  });
}

/// -1, 0, 1, or 2 when one of them is NaN. Integers are compared exactly.
int compare_numbers(const Value& a, const Value& b) {
  int64_t x = 0, y = 0;
  if (a.as_integer(x) && b.as_integer(y)) return x < y ? -1 : x > y;
  const auto wide = [](const Value& value) {
    int64_t integer = 0;
    if (value.as_integer(integer)) return static_cast<long double>(integer);
    return static_cast<long double>(*value.get<double>());
  };
  const long double u = wide(a), v = wide(b);
  if (std::isnan(u) || std::isnan(v)) return 2;
  return u < v ? -1 : u > v;
}

}  // namespace

bool equal(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) return compare_numbers(a, b) == 0;
  if (a.store().index() != b.store().index()) return false;
  if (const std::string* text = a.string()) return *text == *b.string();
  if (const Sequence* items = a.sequence()) return equal_sequences(*items, *b.sequence());
  if (const Dict* entries = a.dict()) return equal_dicts(*entries, *b.dict());
  if (const auto* space = a.get<std::shared_ptr<Namespace>>())
    return *space == *b.get<std::shared_ptr<Namespace>>();
  if (const auto* loop = a.get<std::shared_ptr<Loop>>()) return *loop == *b.get<std::shared_ptr<Loop>>();
  if (const auto* callable = a.get<std::shared_ptr<const Callable>>())
    return *callable == *b.get<std::shared_ptr<const Callable>>();
  return true;  // both undefined, or both none
}

bool less(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) return compare_numbers(a, b) == -1;
  if (a.string() && b.string()) return *a.string() < *b.string();  // UTF-8 sorts like its code points
  const Sequence *x = a.sequence(), *y = b.sequence();
  if (x && y && x->shape == y->shape && (x->shape == Shape::list || x->shape == Shape::tuple)) {
    for (size_t i = 0; i < std::min(x->items.size(), y->items.size()); ++i)
      if (!equal(x->items[i], y->items[i])) return less(x->items[i], y->items[i]);
    return x->items.size() < y->items.size();
  }
  fail(ErrorCode::invalid_argument, "a {} and a {} have no order", type_name(a), type_name(b));
}

std::string_view type_name(const Value& value) {
  if (const Sequence* items = value.sequence()) {
    static constexpr std::string_view kShapes[] = {"list", "tuple", "generator", "dictionary view", "range"};
    return kShapes[static_cast<size_t>(items->shape)];
  }
  static constexpr std::string_view kKinds[] = {"undefined value", "None", "bool",    "int",
                                                "float",           "str",  "list",    "dict",
                                                "namespace",       "loop", "function"};
  return kKinds[value.store().index()];
}

}  // namespace mneme::jinja
