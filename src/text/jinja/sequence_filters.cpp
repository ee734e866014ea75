// Filters that walk over a sequence or a dictionary. Those that are lazy in jinja2 return a generator, which
// can be walked once and has no length: `messages | select(...) | length` fails here as it does there.
#include <algorithm>
#include <charconv>

#include "text/jinja/evaluator.h"
#include "text/jinja/filter_table.h"
#include "text/jinja/unicode.h"

namespace mneme::jinja {

namespace {

/// `a.b.0` looked up step by step, as jinja2's attribute arguments are.
class AttributePath {
 public:
  explicit AttributePath(const Value* attribute) {
    if (!attribute || attribute->is_none()) return;
    const std::string* text = attribute->string();
    if (!text) {
      parts_.push_back(*attribute);
      return;
    }
    for (size_t start = 0; start <= text->size();) {
      const size_t end = std::min(text->find('.', start), text->size());
      const std::string part = text->substr(start, end - start);
      int64_t index = 0;
      const auto result = std::from_chars(part.data(), part.data() + part.size(), index);
      const bool number =
          result.ec == std::errc() && result.ptr == part.data() + part.size() && part[0] != '-';
      parts_.push_back(number ? Value(index) : Value(part));
      start = end + 1;
    }
  }

  Value of(Value item, const Value* otherwise = nullptr) const {
    for (const Value& part : parts_) {
      item = get_item(item, part);
      if (otherwise && item.is_undefined()) item = *otherwise;
    }
    return item;
  }

 private:
  std::vector<Value> parts_;
};

/// The key under which an item is compared: an attribute of it, lower-cased unless case matters.
class SortKey {
 public:
  SortKey(const Value* case_sensitive, const Value* attribute)
      : ignore_case_(!case_sensitive || !case_sensitive->truth()), path_(attribute) {
    const std::string* text = attribute ? attribute->string() : nullptr;
    require(!text || text->find(',') == std::string::npos, ErrorCode::unsupported,
            "sorting by several attributes");
  }

  Value of(const Value& item) const { return fold(path_.of(item)); }
  Value fold(const Value& key) const {
    return ignore_case_ && key.string() ? Value(lower(*key.string())) : key;
  }

 private:
  bool ignore_case_;
  AttributePath path_;
};

/// Sorts by precomputed keys, stably; `reverse` keeps equal items in their order, as Python does.
std::vector<Value> sorted(Evaluator& evaluator, std::vector<std::pair<Value, Value>> keyed, bool reverse) {
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
    evaluator.charge(1);
    return reverse ? less(b.first, a.first) : less(a.first, b.first);
  });
  std::vector<Value> out;
  for (auto& [key, item] : keyed) out.push_back(std::move(item));
  return out;
}

Value sort(Evaluator& evaluator, const Value& input, const Arguments& arguments) {
  arguments.match("sort", {"reverse", "case_sensitive", "attribute"});
  const SortKey key(arguments.find(1, "case_sensitive"), arguments.find(2, "attribute"));
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& item : iterate(evaluator, input)) keyed.emplace_back(key.of(item), item);
  const Value* reverse = arguments.find(0, "reverse");
  return evaluator.list_of(sorted(evaluator, std::move(keyed), reverse && reverse->truth()));
}

Value dictsort(Evaluator& evaluator, const Value& input, const Arguments& arguments) {
  arguments.match("dictsort", {"case_sensitive", "by", "reverse"});
  const Value *by = arguments.find(1, "by"), *reverse = arguments.find(2, "reverse");
  const std::string part = by ? require_string(*by, "'by' of dictsort") : "key";
  require(part == "key" || part == "value", ErrorCode::invalid_argument,
          "dictsort sorts by 'key' or 'value', not '{}'", part);
  require(input.dict() != nullptr, ErrorCode::invalid_argument, "dictsort of a {}", type_name(input));
  const SortKey key(arguments.find(0, "case_sensitive"), nullptr);
  std::vector<std::pair<Value, Value>> keyed;
  for (const auto& [name, value] : input.dict()->entries)
    keyed.emplace_back(key.fold(part == "key" ? name : value), Value::sequence({name, value}, Shape::tuple));
  return evaluator.list_of(sorted(evaluator, std::move(keyed), reverse && reverse->truth()));
}

Value unique(Evaluator& evaluator, const Value& input, const Arguments& arguments) {
  arguments.match("unique", {"case_sensitive", "attribute"});
  const SortKey key(arguments.find(0, "case_sensitive"), arguments.find(1, "attribute"));
  std::vector<Value> out, seen;
  for (const Value& item : iterate(evaluator, input)) {
    const Value own = key.of(item);
    require(!own.dict() && !own.sequence(), ErrorCode::invalid_argument, "unique of a {}", type_name(own));
    evaluator.charge(1 + seen.size() + own.weight() / 16);
    if (std::any_of(seen.begin(), seen.end(), [&](const Value& other) { return equal(own, other); }))
      continue;
    seen.push_back(own);
    out.push_back(item);
  }
  return evaluator.list_of(std::move(out), Shape::generator);
}

template <bool kMax>
Value extreme(Evaluator& evaluator, const Value& input, const Arguments& arguments) {
  arguments.match("min and max", {"case_sensitive", "attribute"});
  const SortKey key(arguments.find(0, "case_sensitive"), arguments.find(1, "attribute"));
  const std::vector<Value> items = iterate(evaluator, input);
  if (items.empty()) return Value::undefined("the extreme of an empty sequence");
  const Value* best = &items[0];
  for (const Value& item : items)
    if (kMax ? less(key.of(*best), key.of(item)) : less(key.of(item), key.of(*best))) best = &item;
  return *best;
}

Value sum(Evaluator& evaluator, const Value& input, const Arguments& arguments) {
  arguments.match("sum", {"attribute", "start"});
  const AttributePath path(arguments.find(0, "attribute"));
  const Value* start = arguments.find(1, "start");
  Value total = start ? *start : Value(int64_t{0});
  for (const Value& item : iterate(evaluator, input))
    total = binary_operator(evaluator, "+", total, path.of(item));
  return total;
}

Value join(Evaluator& evaluator, const Value& input, const Arguments& arguments) {
  arguments.match("join", {"d", "attribute"});
  const Value* separator = arguments.find(0, "d");
  const std::string between = separator ? evaluator.text_of(*separator) : "";
  const AttributePath path(arguments.find(1, "attribute"));
  std::string out;
  bool first = true;
  for (const Value& item : iterate(evaluator, input)) {
    if (!std::exchange(first, false)) out += between;
    out += evaluator.text_of(path.of(item));
    evaluator.charge_bytes(between.size());
    require(out.size() <= kMaxWeight, ErrorCode::limit, "a joined text is longer than {} bytes", kMaxWeight);
  }
  return Value(std::move(out));
}

Value length(Evaluator&, const Value& input, const Arguments& arguments) {
  arguments.match("length", {});
  const auto count = [](size_t n) { return Value(static_cast<int64_t>(n)); };
  if (const std::string* text = input.string()) return count(code_point_count(*text));
  if (const Dict* dict = input.dict()) return count(dict->entries.size());
  if (const Sequence* items = input.sequence(); items && items->shape != Shape::generator)
    return count(items->items.size());
  if (input.is_undefined()) return count(0);
  fail(ErrorCode::invalid_argument, "a {} has no length", type_name(input));
}

Value first(Evaluator& evaluator, const Value& input, const Arguments& arguments) {
  arguments.match("first", {});
  if (Sequence* items = input.sequence(); items && items->shape == Shape::generator) {
    if (items->taken < items->items.size()) return items->items[items->taken++];
    return Value::undefined("the first item of an empty sequence");
  }
  const std::vector<Value> items = iterate(evaluator, input);
  return items.empty() ? Value::undefined("the first item of an empty sequence") : items.front();
}

Value last(Evaluator& evaluator, const Value& input, const Arguments& arguments) {
  arguments.match("last", {});
  const Sequence* sequence = input.sequence();
  require(!sequence || sequence->shape != Shape::generator, ErrorCode::invalid_argument,
          "last of a generator; add | list");
  const std::vector<Value> items = iterate(evaluator, input);
  return items.empty() ? Value::undefined("the last item of an empty sequence") : items.back();
}

Value list(Evaluator& evaluator, const Value& input, const Arguments& arguments) {
  arguments.match("list", {});
  return evaluator.list_of(iterate(evaluator, input));
}

Value reverse(Evaluator& evaluator, const Value& input, const Arguments& arguments) {
  arguments.match("reverse", {});
  const Value minus_one(int64_t{-1});
  if (input.string()) return get_slice(evaluator, input, nullptr, nullptr, &minus_one);
  const Sequence* sequence = input.sequence();
  // Python can reverse lists, tuples, dictionaries and their views in place; a generator is copied first.
  const Shape shape = sequence && sequence->shape == Shape::generator ? Shape::list : Shape::generator;
  std::vector<Value> items = iterate(evaluator, input);
  std::reverse(items.begin(), items.end());
  return evaluator.list_of(std::move(items), shape);
}

Value items(Evaluator& evaluator, const Value& input, const Arguments& arguments) {
  arguments.match("items", {});
  std::vector<Value> out;
  if (input.is_undefined()) return evaluator.list_of(std::move(out), Shape::generator);
  require(input.dict() != nullptr, ErrorCode::invalid_argument, "items of a {}; it needs a dict",
          type_name(input));
  for (const auto& [key, value] : input.dict()->entries)
    out.push_back(Value::sequence({key, value}, Shape::tuple));
  return evaluator.list_of(std::move(out), Shape::generator);
}

Value map(Evaluator& evaluator, const Value& input, const Arguments& arguments) {
  std::vector<Value> out;
  if (arguments.positional.empty()) {
    arguments.match("map", {"attribute", "default"});
    const AttributePath path(&arguments.at(0, "attribute"));
    const Value* otherwise = arguments.find(1, "default");
    if (otherwise && otherwise->is_none()) otherwise = nullptr;
    if (input.truth())
      for (const Value& item : iterate(evaluator, input)) out.push_back(path.of(item, otherwise));
    return evaluator.list_of(std::move(out), Shape::generator);
  }
  const std::string name = require_string(arguments.positional[0], "the filter's name in map");
  Arguments rest = arguments;
  rest.positional.erase(rest.positional.begin());
  if (input.truth())
    for (const Value& item : iterate(evaluator, input))
      out.push_back(apply_filter(evaluator, name, item, rest));
  return evaluator.list_of(std::move(out), Shape::generator);
}

/// select, reject, selectattr, rejectattr: keeps the items whose test (truth, if none is named) is `kWanted`.
template <bool kAttribute, bool kWanted>
Value choose(Evaluator& evaluator, const Value& input, const Arguments& arguments) {
  Arguments rest = arguments;
  AttributePath path(nullptr);
  if constexpr (kAttribute) {
    require(!rest.positional.empty(), ErrorCode::invalid_argument,
            "selectattr and rejectattr need the attribute's name");
    path = AttributePath(&rest.positional[0]);
    rest.positional.erase(rest.positional.begin());
  }
  std::string test;
  if (!rest.positional.empty()) {
    test = require_string(rest.positional[0], "the test's name");
    rest.positional.erase(rest.positional.begin());
  }
  std::vector<Value> out;
  if (input.truth())
    for (const Value& item : iterate(evaluator, input)) {
      const Value subject = path.of(item);
      const bool holds = test.empty() ? subject.truth() : apply_test(evaluator, test, subject, rest);
      if (holds == kWanted) out.push_back(item);
    }
  return evaluator.list_of(std::move(out), Shape::generator);
}

}  // namespace

void add_sequence_filters(std::map<std::string_view, Filter>& filters) {
  const std::map<std::string_view, Filter> own = {
      {"count", length},
      {"dictsort", dictsort},
      {"first", first},
      {"items", items},
      {"join", join},
      {"last", last},
      {"length", length},
      {"list", list},
      {"map", map},
      {"max", extreme<true>},
      {"min", extreme<false>},
      {"reject", choose<false, false>},
      {"rejectattr", choose<true, false>},
      {"reverse", reverse},
      {"select", choose<false, true>},
      {"selectattr", choose<true, true>},
      {"sort", sort},
      {"sum", sum},
      {"unique", unique},
  };
  filters.insert(own.begin(), own.end());
}

}  // namespace mneme::jinja
