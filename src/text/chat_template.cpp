#include "text/chat_template.h"

#include <array>
#include <limits>

#include "core/fail.h"
#include "text/jinja/evaluator.h"
#include "text/jinja/parser.h"

namespace mneme {

struct ChatTemplate::Parsed {
  jinja::Block block;
};

namespace {

constexpr uint32_t kMaxJsonNesting = 100;

jinja::Value from_json(const OrderedJson& json, uint32_t depth = 0) {
  require(depth <= kMaxJsonNesting, ErrorCode::limit, "the conversation is nested more than {} levels deep",
          kMaxJsonNesting);
  switch (json.type()) {
    case OrderedJson::value_t::boolean:
      return json.get<bool>();
    case OrderedJson::value_t::number_integer:
      return json.get<int64_t>();
    case OrderedJson::value_t::number_unsigned: {
      const auto number = json.get<uint64_t>();
      require(number <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max()), ErrorCode::limit,
              "the number {} in the conversation does not fit 64 bits", number);
      return static_cast<int64_t>(number);
    }
    case OrderedJson::value_t::number_float:
      return json.get<double>();
    case OrderedJson::value_t::string:
      return json.get_ref<const std::string&>();
    case OrderedJson::value_t::array: {
      std::vector<jinja::Value> items;
      for (const auto& item : json) items.push_back(from_json(item, depth + 1));
      return jinja::Value::sequence(std::move(items));
    }
    case OrderedJson::value_t::object: {
      jinja::Pairs entries;
      for (const auto& [key, value] : json.items())
        entries.emplace_back(jinja::Value(key), from_json(value, depth + 1));
      return jinja::Value::dict(std::move(entries));
    }
    default:
      return jinja::None{};
  }
}

std::string format_time(const std::string& format, const std::optional<std::tm>& now) {
  std::tm time{};
  if (now) {
    time = *now;
  } else {
    const std::time_t seconds = std::time(nullptr);
    localtime_r(&seconds, &time);
  }
  std::array<char, 1024> text;
  require(format.size() <= 128, ErrorCode::limit, "strftime_now() with a format of {} bytes", format.size());
  return std::string(text.data(), std::strftime(text.data(), text.size(), format.c_str(), &time));
}

jinja::Value global_function(const char* name) {
  auto callable = std::make_shared<jinja::Callable>();
  callable->name = name;
  return jinja::Value(std::shared_ptr<const jinja::Callable>(std::move(callable)));
}

}  // namespace

ChatTemplate ChatTemplate::parse(std::string_view source) {
  auto parsed = std::make_shared<Parsed>();
  parsed->block = jinja::parse_template(source);
  return ChatTemplate(std::move(parsed));
}

std::string ChatTemplate::render(const OrderedJson& messages, const ChatTemplateInputs& inputs) const {
  jinja::Limits limits;
  limits.steps = inputs.max_steps;
  limits.output_bytes = inputs.max_output_bytes;
  jinja::Evaluator evaluator(limits,
                             [&](const std::string& format) { return format_time(format, inputs.now); });
  for (const char* name :
       {"range", "dict", "namespace", "raise_exception", "strftime_now", "lipsum", "cycler", "joiner"})
    evaluator.define(name, global_function(name));
  evaluator.define("messages", from_json(messages));
  evaluator.define("tools", from_json(inputs.tools));
  evaluator.define("documents", jinja::None{});
  evaluator.define("add_generation_prompt", inputs.add_generation_prompt);
  evaluator.define("bos_token", inputs.bos_token);
  evaluator.define("eos_token", inputs.eos_token);
  for (const auto& [name, value] : inputs.variables.items()) evaluator.define(name, from_json(value));
  return evaluator.render(parsed_->block);
}

}  // namespace mneme
