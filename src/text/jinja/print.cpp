// str(), repr() and json.dumps() of values, byte for byte as Python writes them.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>

#include "text/jinja/unicode.h"
#include "text/jinja/value.h"

namespace mneme::jinja {

namespace {

/// float.__repr__: the shortest digits that read back as the same number, in scientific form when the
/// exponent is below -4 or at least 16.
std::string repr_float(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;
  const std::string_view text(buffer, static_cast<size_t>(end - buffer));
  const size_t mark = text.find('e');
  int exponent = 0;
  const char* digits_of_exponent = text.data() + mark + 1;
  if (*digits_of_exponent == '+') ++digits_of_exponent;
  std::from_chars(digits_of_exponent, end, exponent);
  if (exponent < -4 || exponent >= 16) return std::string(text);
  const auto fixed = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::fixed).ptr;
  std::string out(buffer, fixed);
  if (out.find('.') == std::string::npos) out += ".0";
  return out;
}

std::string repr_string(std::string_view text) {
  const bool single = text.find('\'') != std::string_view::npos;
  const char quote = single && text.find('"') == std::string_view::npos ? '"' : '\'';
  std::string out(1, quote);
  for (size_t at = 0; at < text.size();) {
    const size_t bytes = code_point_bytes(text, at);
    const char32_t code = code_point(text, at);
    if (code == static_cast<char32_t>(quote) || code == '\\')
      out += {'\\', static_cast<char>(code)};
    else if (code == '\n')
      out += "\\n";
    else if (code == '\r')
      out += "\\r";
    else if (code == '\t')
      out += "\\t";
    else if (is_printable(code))
      out += text.substr(at, bytes);
    else if (code < 0x100)
      out += fmt::format("\\x{:02x}", static_cast<uint32_t>(code));
    else if (code < 0x10000)
      out += fmt::format("\\u{:04x}", static_cast<uint32_t>(code));
    else
      out += fmt::format("\\U{:08x}", static_cast<uint32_t>(code));
    at += bytes;
  }
  return out += quote;
}

std::string_view shape_name(const Sequence& sequence) {
  if (sequence.shape == Shape::generator) return "generator";
  return sequence.shape == Shape::range ? "range" : "dictionary view";
}

std::string repr_sequence(const Sequence& sequence) {
  require(sequence.shape == Shape::list || sequence.shape == Shape::tuple, ErrorCode::unsupported,
          "a {} is printed; add | list", shape_name(sequence));
  const bool list = sequence.shape == Shape::list;
  std::string out(1, list ? '[' : '(');
  for (const Value& item : sequence.items) {
    if (&item != sequence.items.data()) out += ", ";
    out += to_repr(item);
  }
  if (!list && sequence.items.size() == 1) out += ',';
  return out += list ? ']' : ')';
}

std::string repr_dict(const Dict& dict) {
  std::string out = "{";
  for (const auto& [key, value] : dict.entries) {
    if (out.size() > 1) out += ", ";
    out += to_repr(key) + ": " + to_repr(value);
  }
  return out += '}';
}

void json_string(std::string& out, std::string_view text, bool ensure_ascii) {
  out += '"';
  for (size_t at = 0; at < text.size();) {
    const size_t bytes = code_point_bytes(text, at);
    const char32_t code = code_point(text, at);
    static constexpr std::string_view kShort = "\b\t\n\f\r\"\\";
    static constexpr std::string_view kLetters = "btnfr\"\\";
    const size_t named = code < 0x80 ? kShort.find(static_cast<char>(code)) : std::string_view::npos;
    if (named != std::string_view::npos)
      out += {'\\', kLetters[named]};
    else if (code < 0x20 || (ensure_ascii && code > 0x7E && code < 0x10000))
      out += fmt::format("\\u{:04x}", static_cast<uint32_t>(code));
    else if (ensure_ascii && code >= 0x10000)
      out += fmt::format("\\u{:04x}\\u{:04x}", 0xD7C0 + (static_cast<uint32_t>(code) >> 10),
                         0xDC00 + (static_cast<uint32_t>(code) & 0x3FF));
    else
      out += text.substr(at, bytes);
    at += bytes;
  }
  out += '"';
}

class JsonWriter {
 public:
  JsonWriter(const JsonStyle& style, std::string& out) : style_(style), out_(out) {}

  void write(const Value& value, int depth) {
    if (const std::string* text = value.string())
      json_string(out_, *text, style_.ensure_ascii);
    else if (const Sequence* items = value.sequence())
      write_list(*items, depth);
    else if (const Dict* entries = value.dict())
      write_dict(*entries, depth);
    else
      out_ += scalar(value);
  }

 private:
  static std::string scalar(const Value& value) {
    if (value.is_none()) return "null";
    if (const bool* boolean = value.get<bool>()) return *boolean ? "true" : "false";
    if (const double* real = value.get<double>()) {
      if (std::isnan(*real)) return "NaN";
      if (std::isinf(*real)) return *real < 0 ? "-Infinity" : "Infinity";
      return repr_float(*real);
    }
    if (const int64_t* integer = value.get<int64_t>()) return std::to_string(*integer);
    fail(ErrorCode::invalid_argument, "a {} cannot be written as JSON", type_name(value));
  }

  void line(int depth) {
    if (style_.indent < 0) return;
    out_ += '\n';
    out_.append(static_cast<size_t>(style_.indent) * static_cast<size_t>(depth), ' ');
  }

  void write_list(const Sequence& sequence, int depth) {
    require(sequence.shape == Shape::list || sequence.shape == Shape::tuple, ErrorCode::invalid_argument,
            "a {} cannot be written as JSON; add | list", shape_name(sequence));
    if (sequence.items.empty()) {
      out_ += "[]";
      return;
    }
    out_ += '[';
    for (const Value& item : sequence.items) {
      if (&item != sequence.items.data()) out_ += style_.item_separator;
      line(depth + 1);
      write(item, depth + 1);
    }
    line(depth);
    out_ += ']';
  }

  void write_dict(const Dict& dict, int depth) {
    if (dict.entries.empty()) {
      out_ += "{}";
      return;
    }
    std::vector<const std::pair<Value, Value>*> entries;
    for (const auto& entry : dict.entries) entries.push_back(&entry);
    if (style_.sort_keys)
      std::stable_sort(entries.begin(), entries.end(),
                       [](const auto* a, const auto* b) { return less(a->first, b->first); });
    out_ += '{';
    for (const auto* entry : entries) {
      if (entry != entries.front()) out_ += style_.item_separator;
      line(depth + 1);
      const std::string* name = entry->first.string();
      json_string(out_, name ? *name : scalar(entry->first), style_.ensure_ascii);
      out_ += style_.key_separator;
      write(entry->second, depth + 1);
    }
    line(depth);
    out_ += '}';
  }

  const JsonStyle& style_;
  std::string& out_;
};

}  // namespace

std::string to_repr(const Value& value) {
  if (value.is_undefined()) return "Undefined";
  if (const std::string* text = value.string()) return repr_string(*text);
  return to_text(value);
}

std::string to_text(const Value& value) {
  if (value.is_undefined()) return {};
  if (value.is_none()) return "None";
  if (const bool* boolean = value.get<bool>()) return *boolean ? "True" : "False";
  if (const int64_t* integer = value.get<int64_t>()) return std::to_string(*integer);
  if (const double* real = value.get<double>()) return repr_float(*real);
  if (const std::string* text = value.string()) return *text;
  if (const Sequence* items = value.sequence()) return repr_sequence(*items);
  if (const Dict* entries = value.dict()) return repr_dict(*entries);
  fail(ErrorCode::unsupported, "a {} is printed", type_name(value));
}

std::string to_json(const Value& value, const JsonStyle& style) {
  std::string out;
  JsonWriter(style, out).write(value, 0);
  return out;
}

}  // namespace mneme::jinja
