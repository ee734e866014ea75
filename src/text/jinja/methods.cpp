// Methods of str, dict and list, and the global functions range, dict, namespace, raise_exception,
// strftime_now.
#include <algorithm>
#include <array>
#include <functional>
#include <map>

#include "text/jinja/builtins.h"
#include "text/jinja/evaluator.h"
#include "text/jinja/unicode.h"

namespace mneme::jinja {

namespace {

using Method = std::function<Value(Evaluator&, const std::string& text, const Arguments&)>;

/// Start and end arguments of find, count, startswith, ... are outside the subset.
const std::string& only_text(const Arguments& arguments, std::string_view method) {
  require(arguments.positional.size() == 1 && arguments.named.empty(),
          arguments.positional.size() > 1 ? ErrorCode::unsupported : ErrorCode::invalid_argument,
          "{} with {} arguments; one is", method, arguments.positional.size() + arguments.named.size());
  return require_string(arguments.positional[0], "the argument of a method");
}

template <bool kLeft, bool kRight>
Value strip_method(Evaluator&, const std::string& text, const Arguments& arguments) {
  arguments.match("strip", {"chars"});
  const Value* chars = arguments.find(0, "chars");
  if (!chars || chars->is_none()) return strip(text, nullptr, kLeft, kRight);
  const std::string_view set = require_string(*chars, "the characters of strip");
  return strip(text, &set, kLeft, kRight);
}

Method plain(std::string (*convert)(std::string_view)) {
  return [convert](Evaluator&, const std::string& text, const Arguments& arguments) {
    arguments.match("the method", {});
    return Value(convert(text));
  };
}

/// True if the text is not empty and every character satisfies the predicate.
Method all_of(bool (*predicate)(char32_t)) {
  return [predicate](Evaluator&, const std::string& text, const Arguments& arguments) {
    arguments.match("the method", {});
    for (size_t at = 0; at < text.size(); at += code_point_bytes(text, at))
      if (!predicate(code_point(text, at))) return Value(false);
    return Value(!text.empty());
  };
}

/// str.startswith, str.endswith: one text, or a tuple of them.
template <bool kStart>
Value affix(Evaluator&, const std::string& text, const Arguments& arguments) {
  require(arguments.positional.size() == 1, ErrorCode::unsupported, "startswith and endswith with a range");
  const auto holds = [&](const Value& value) {
    const std::string& part = require_string(value, "what a text starts or ends with");
    return kStart ? text.starts_with(part) : text.ends_with(part);
  };
  const Sequence* several = arguments.positional[0].sequence();
  if (!several || several->shape != Shape::tuple) return holds(arguments.positional[0]);
  return std::any_of(several->items.begin(), several->items.end(), holds);
}

/// str.split / str.rsplit by a separator, at most `limit` times (-1: no limit).
std::vector<Value> split_by(const std::string& text, const std::string& separator, int64_t limit,
                            bool from_right) {
  std::vector<Value> out;
  size_t start = 0, end = text.size();
  if (from_right) {
    for (; limit != 0 && end >= separator.size(); --limit) {
      const size_t found = text.rfind(separator, end - separator.size());
      if (found == std::string::npos) break;
      out.emplace_back(text.substr(found + separator.size(), end - found - separator.size()));
      end = found;
    }
    out.emplace_back(text.substr(0, end));
    std::reverse(out.begin(), out.end());
    return out;
  }
  for (; limit != 0; --limit) {
    const size_t found = text.find(separator, start);
    if (found == std::string::npos) break;
    out.emplace_back(text.substr(start, found - start));
    start = found + separator.size();
  }
  out.emplace_back(text.substr(start));
  return out;
}

std::vector<Value> split_spaces(std::string_view text, int64_t limit) {
  std::vector<Value> out;
  for (text = strip(text, nullptr, true, false); !text.empty(); --limit) {
    size_t end = 0;
    if (limit == 0)
      end = text.size();
    else
      while (end < text.size() && !is_space(code_point(text, end))) end += code_point_bytes(text, end);
    out.emplace_back(text.substr(0, end));
    text = strip(text.substr(end), nullptr, true, false);
  }
  return out;
}

template <bool kFromRight>
Value split(Evaluator& evaluator, const std::string& text, const Arguments& arguments) {
  arguments.match("split", {"sep", "maxsplit"});
  const Value *separator = arguments.find(0, "sep"), *most = arguments.find(1, "maxsplit");
  const int64_t limit = most ? require_integer(*most, "maxsplit") : -1;
  if (!separator || separator->is_none()) {
    require(!kFromRight || limit < 0, ErrorCode::unsupported, "rsplit at white space with a limit");
    return evaluator.list_of(split_spaces(text, limit));
  }
  const std::string& by = require_string(*separator, "the separator of split");
  require(!by.empty(), ErrorCode::invalid_argument, "the separator of split is empty");
  return evaluator.list_of(split_by(text, by, limit, kFromRight));
}

template <bool kFromRight>
Value partition(Evaluator& evaluator, const std::string& text, const Arguments& arguments) {
  const std::string& by = only_text(arguments, "partition");
  require(!by.empty(), ErrorCode::invalid_argument, "the separator of partition is empty");
  std::vector<Value> parts = split_by(text, by, 1, kFromRight);
  if (parts.size() == 2)
    parts.insert(parts.begin() + 1, Value(by));
  else
    parts.insert(kFromRight ? parts.begin() : parts.end(), 2, Value(""));
  return evaluator.list_of(std::move(parts), Shape::tuple);
}

Value split_lines_method(Evaluator& evaluator, const std::string& text, const Arguments& arguments) {
  arguments.match("splitlines", {"keepends"});
  const Value* keep = arguments.find(0, "keepends");
  std::vector<Value> out;
  for (const std::string_view line : split_lines(text, keep && keep->truth())) out.emplace_back(line);
  return evaluator.list_of(std::move(out));
}

Value replace(Evaluator& evaluator, const std::string& text, const Arguments& arguments) {
  arguments.match("replace", {"old", "new", "count"});
  const std::string& old = require_string(arguments.at(0, "old"), "what replace looks for");
  const std::string& fresh = require_string(arguments.at(1, "new"), "what replace puts there");
  const Value* count = arguments.find(2, "count");
  int64_t left = count ? require_integer(*count, "the count of replace") : -1;
  std::string out;
  size_t start = 0;
  while (left != 0) {
    // An empty text to look for is found between all characters.
    const size_t found = old.empty() ? start : text.find(old, start);
    if (found == std::string::npos) break;
    const size_t keep = old.empty() && found < text.size() ? code_point_bytes(text, found) : 0;
    out.append(text, start, found - start).append(fresh).append(text, found, keep);
    evaluator.charge_bytes(fresh.size());
    require(out.size() <= kMaxWeight, ErrorCode::limit, "a text is longer than {} bytes", kMaxWeight);
    if (left > 0) --left;
    if (old.empty() && found >= text.size()) return Value(std::move(out));
    start = found + old.size() + keep;
  }
  return out.append(text, start, std::string::npos);
}

template <bool kFromRight, bool kMust>
Value find(Evaluator&, const std::string& text, const Arguments& arguments) {
  const std::string& part = only_text(arguments, "find");
  const size_t found = kFromRight ? text.rfind(part) : text.find(part);
  require(!kMust || found != std::string::npos, ErrorCode::invalid_argument,
          "the text to look for is not there");
  if (found == std::string::npos) return int64_t{-1};
  return static_cast<int64_t>(code_point_count(std::string_view(text).substr(0, found)));
}

Value count(Evaluator&, const std::string& text, const Arguments& arguments) {
  const std::string& part = only_text(arguments, "count");
  if (part.empty()) return static_cast<int64_t>(code_point_count(text) + 1);
  int64_t out = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++out;
  return out;
}

Value join(Evaluator& evaluator, const std::string& text, const Arguments& arguments) {
  require(arguments.positional.size() == 1 && arguments.named.empty(), ErrorCode::invalid_argument,
          "join takes one sequence");
  std::string out;
  bool first = true;
  for (const Value& item : iterate(evaluator, arguments.positional[0])) {
    if (!std::exchange(first, false)) out += text;
    out += require_string(item, "an item of join");
    evaluator.charge_bytes(text.size() + item.weight());
    require(out.size() <= kMaxWeight, ErrorCode::limit, "a text is longer than {} bytes", kMaxWeight);
  }
  return Value(std::move(out));
}

template <bool kPrefix>
Value remove_affix(Evaluator&, const std::string& text, const Arguments& arguments) {
  const std::string& part = only_text(arguments, "removeprefix and removesuffix");
  if (kPrefix) return text.starts_with(part) ? text.substr(part.size()) : text;
  return text.ends_with(part) ? text.substr(0, text.size() - part.size()) : text;
}

/// str.format with {}, {0} and {name}; conversions and format specifications are outside the subset.
Value format(Evaluator& evaluator, const std::string& text, const Arguments& arguments) {
  std::string out;
  size_t automatic = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if ((c == '{' || c == '}') && i + 1 < text.size() && text[i + 1] == c) {
      out += c;
      ++i;
      continue;
    }
    require(c != '}', ErrorCode::invalid_argument, "a single '}}' in a format");
    if (c != '{') {
      out += c;
      continue;
    }
    const size_t end = text.find('}', i);
    require(end != std::string::npos, ErrorCode::invalid_argument, "a '{{' in a format is not closed");
    const std::string field = text.substr(i + 1, end - i - 1);
    require(field.find_first_of(":!.[{") == std::string::npos, ErrorCode::unsupported,
            "the format field '{{{}}}'", field);
    const bool numbered =
        !field.empty() && field.size() < 6 && field.find_first_not_of("0123456789") == std::string::npos;
    const size_t position = field.empty() ? automatic++
                            : numbered    ? static_cast<size_t>(std::stoi(field))
                                          : arguments.positional.size();
    const Value& value = arguments.at(position, field);
    out += evaluator.text_of(value);
    require(out.size() <= kMaxWeight, ErrorCode::limit, "a text is longer than {} bytes", kMaxWeight);
    i = end;
  }
  return Value(std::move(out));
}

bool all_lower(std::string_view text) {
  return lower(text) == text;
}
bool all_upper(std::string_view text) {
  return upper(text) == text;
}

Method cased(bool (*predicate)(std::string_view)) {
  return [predicate](Evaluator&, const std::string& text, const Arguments& arguments) {
    arguments.match("the method", {});
    bool any = false;
    for (size_t at = 0; at < text.size(); at += code_point_bytes(text, at))
      any |= is_cased(code_point(text, at));
    return Value(any && predicate(text));
  };
}

const std::map<std::string_view, Method>& string_methods() {
  static const std::map<std::string_view, Method> kMethods = {
      {"strip", strip_method<true, true>},
      {"lstrip", strip_method<true, false>},
      {"rstrip", strip_method<false, true>},
      {"upper", plain(upper)},
      {"lower", plain(lower)},
      {"capitalize", plain(capitalize)},
      {"title", plain(title_words)},
      {"startswith", affix<true>},
      {"endswith", affix<false>},
      {"split", split<false>},
      {"rsplit", split<true>},
      {"partition", partition<false>},
      {"rpartition", partition<true>},
      {"splitlines", split_lines_method},
      {"replace", replace},
      {"find", find<false, false>},
      {"rfind", find<true, false>},
      {"index", find<false, true>},
      {"rindex", find<true, true>},
      {"count", count},
      {"join", join},
      {"removeprefix", remove_affix<true>},
      {"removesuffix", remove_affix<false>},
      {"format", format},
      {"isdigit", all_of(is_digit)},
      {"isalpha", all_of(is_alpha)},
      {"isspace", all_of(is_space)},
      {"islower", cased(all_lower)},
      {"isupper", cased(all_upper)},
  };
  return kMethods;
}

/// Methods that Python has and this subset has not; they exist, but calling them is refused.
constexpr std::array<std::string_view, 18> kOtherStringMethods = {
    "casefold", "center",    "encode",       "expandtabs", "format_map",  "isalnum",
    "isascii",  "isdecimal", "isidentifier", "isnumeric",  "isprintable", "istitle",
    "ljust",    "maketrans", "rjust",        "swapcase",   "translate",   "zfill"};
constexpr std::array<std::string_view, 11> kDictMethods = {
    "get", "items", "keys", "values", "copy", "clear", "pop", "popitem", "setdefault", "update", "fromkeys"};
constexpr std::array<std::string_view, 11> kListMethods = {
    "index", "count", "append", "clear", "copy", "extend", "insert", "pop", "remove", "reverse", "sort"};

template <size_t kCount>
bool among(const std::array<std::string_view, kCount>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

Value call_dict(Evaluator& evaluator, const Dict& dict, std::string_view name, const Arguments& arguments) {
  if (name == "get") {
    arguments.match("get", {"key", "default"});
    const Value* found = dict.find(arguments.at(0, "key"));
    const Value* otherwise = arguments.find(1, "default");
    return found ? *found : otherwise ? *otherwise : Value(None{});
  }
  require(name == "items" || name == "keys" || name == "values" || name == "copy", ErrorCode::unsupported,
          "the method '{}' of a dict, which templates may not change,", name);
  arguments.match(name, {});
  if (name == "copy") return Value::dict(dict.entries);
  std::vector<Value> out;
  for (const auto& [key, value] : dict.entries)
    out.push_back(name == "items"  ? Value::sequence({key, value}, Shape::tuple)
                  : name == "keys" ? key
                                   : value);
  return evaluator.list_of(std::move(out), Shape::view);
}

Value call_list(Evaluator& evaluator, const Sequence& list, std::string_view name,
                const Arguments& arguments) {
  require(name == "index" || name == "count" || name == "copy", ErrorCode::unsupported,
          "the method '{}' of a list, which templates may not change,", name);
  if (name == "copy") return evaluator.list_of(list.items);
  arguments.match(name, {"value"});
  const Value& wanted = arguments.at(0, "value");
  evaluator.charge(1 + list.items.size());
  const auto same = [&](const Value& item) { return equal(item, wanted); };
  if (name == "count") return static_cast<int64_t>(std::count_if(list.items.begin(), list.items.end(), same));
  const auto found = std::find_if(list.items.begin(), list.items.end(), same);
  require(found != list.items.end(), ErrorCode::invalid_argument, "index: the value is not in the list");
  return static_cast<int64_t>(found - list.items.begin());
}

Value call_loop(const Loop& loop, std::string_view name, const Arguments& arguments) {
  if (name == "cycle") {
    require(!arguments.positional.empty(), ErrorCode::invalid_argument, "loop.cycle() needs values");
    return arguments.positional[loop.index % arguments.positional.size()];
  }
  fail(ErrorCode::unsupported, "loop.{}()", name);
}

Value range(Evaluator& evaluator, const Arguments& arguments) {
  const size_t given = arguments.positional.size();
  require(given >= 1 && given <= 3 && arguments.named.empty(), ErrorCode::invalid_argument,
          "range() takes 1 to 3 integers");
  const auto number = [&](size_t i) {
    return require_integer(arguments.positional[i], "an argument of range()");
  };
  const int64_t first = given == 1 ? 0 : number(0);
  const int64_t last = given == 1 ? number(0) : number(1);
  const int64_t step = given == 3 ? number(2) : 1;
  require(step != 0, ErrorCode::invalid_argument, "range() with a step of zero");
  constexpr int64_t kMost = 100'000;  // the bound of jinja2's sandbox
  std::vector<Value> out;
  for (int64_t at = first; step > 0 ? at < last : at > last;) {
    require(out.size() < static_cast<size_t>(kMost), ErrorCode::limit, "range() of more than {} numbers",
            kMost);
    out.emplace_back(at);
    if (__builtin_add_overflow(at, step, &at)) break;
  }
  return evaluator.list_of(std::move(out), Shape::range);
}

}  // namespace

bool has_method(const Value& object, std::string_view name) {
  if (object.string()) return string_methods().contains(name) || among(kOtherStringMethods, name);
  if (object.dict()) return among(kDictMethods, name);
  if (const Sequence* items = object.sequence()) {
    if (items->shape == Shape::list) return among(kListMethods, name);
    return items->shape == Shape::tuple && (name == "index" || name == "count");
  }
  if (object.get<std::shared_ptr<Loop>>()) return name == "cycle" || name == "changed";
  return false;
}

Value call_method(Evaluator& evaluator, const Value& object, std::string_view name,
                  const Arguments& arguments) {
  if (const std::string* text = object.string()) {
    const auto method = string_methods().find(name);
    require(method != string_methods().end(), ErrorCode::unsupported, "the method '{}' of a str", name);
    evaluator.charge_bytes(text->size());
    return method->second(evaluator, *text, arguments);
  }
  if (const Dict* dict = object.dict()) return call_dict(evaluator, *dict, name, arguments);
  if (const Sequence* list = object.sequence()) return call_list(evaluator, *list, name, arguments);
  if (const auto* loop = object.get<std::shared_ptr<Loop>>()) return call_loop(**loop, name, arguments);
  fail(ErrorCode::internal, "a method of a {}", type_name(object));
}

Value call_global(Evaluator& evaluator, std::string_view name, const Arguments& arguments) {
  if (name == "namespace") return evaluator.make_namespace(arguments);
  if (name == "range") return range(evaluator, arguments);
  if (name == "raise_exception") {
    arguments.match(name, {"message"});
    fail(ErrorCode::invalid_argument, "{}", evaluator.text_of(arguments.at(0, "message")));
  }
  if (name == "strftime_now") {
    arguments.match(name, {"format"});
    return Value(evaluator.strftime(require_string(arguments.at(0, "format"), "the format of strftime_now")));
  }
  require(name == "dict", ErrorCode::unsupported, "the function '{}'", name);
  require(arguments.positional.size() <= 1, ErrorCode::invalid_argument, "dict() takes at most one dict");
  Pairs entries;
  if (!arguments.positional.empty()) {
    require(arguments.positional[0].dict() != nullptr, ErrorCode::unsupported, "dict() of a {}",
            type_name(arguments.positional[0]));
    entries = arguments.positional[0].dict()->entries;
  }
  for (const auto& [key, value] : arguments.named) entries.emplace_back(Value(key), value);
  evaluator.charge(1 + entries.size());
  return Value::dict(std::move(entries));
}

}  // namespace mneme::jinja
