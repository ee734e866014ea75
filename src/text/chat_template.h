// Chat templates: the Jinja2 program in a model file that turns a conversation into a prompt.
//
// The interpreter (src/text/jinja) covers the subset of Jinja2 that the templates of real models use, and
// renders byte for byte what Hugging Face transformers does: its white-space settings, its tojson, its
// immutable sandbox, loop controls, {% generation %}. A template that needs anything else is refused, naming
// the line and the construct; nothing is guessed. Work is bounded, so a hostile template ends in an error.
#pragma once
#include <cstdint>
#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "core/json.h"

namespace mneme {

struct ChatTemplateInputs {
  OrderedJson tools;  // list of tool descriptions, or null
  bool add_generation_prompt = true;
  std::string bos_token, eos_token;
  OrderedJson variables = OrderedJson::object();  // further variables, e.g. {"enable_thinking": false}
  std::optional<std::tm> now;                     // what strftime_now() formats; unset: the local time
  uint64_t max_steps = 50'000'000;                // of evaluation
  uint64_t max_output_bytes = uint64_t{1} << 28;
};

/// Immutable and thread-safe. Copies share the parsed template.
class ChatTemplate {
 public:
  /// Throws Error(unsupported) for a construct outside the subset, Error(corrupt) for malformed source and
  /// Error(limit) for absurd nesting; the message names the line.
  static ChatTemplate parse(std::string_view source);

  /// `messages`: a list of {"role", "content", ...}. Throws Error(invalid_argument) when the template refuses
  /// the conversation (raise_exception) or misuses a value, Error(unsupported) for what can be seen only now,
  /// such as an unknown method, and Error(limit) when it needs more than the allowed work.
  std::string render(const OrderedJson& messages, const ChatTemplateInputs& inputs = {}) const;

 private:
  struct Parsed;
  explicit ChatTemplate(std::shared_ptr<const Parsed> parsed) : parsed_(std::move(parsed)) {}
  std::shared_ptr<const Parsed> parsed_;
};

}  // namespace mneme
