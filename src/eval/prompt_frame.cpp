#include "eval/prompt_frame.h"

#include "core/fail.h"
#include "eval/perplexity.h"
#include "text/chat_template.h"

namespace mneme {

PromptFrame chat_frame(const Tokenizer& tokenizer) {
  constexpr std::string_view kMark = "[[the text goes here]]";
  ChatTemplateInputs inputs;
  const auto spelling = [&](TokenId id) { return id < 0 ? std::string() : tokenizer.token(id); };
  inputs.bos_token = spelling(tokenizer.bos());
  inputs.eos_token = spelling(tokenizer.eos());
  inputs.variables["enable_thinking"] = false;  // an answer at once, where the model knows the difference
  const OrderedJson messages = OrderedJson::array({{{"role", "user"}, {"content", kMark}}});
  const std::string shown = ChatTemplate::parse(tokenizer.chat_template()).render(messages, inputs);
  const size_t at = shown.find(kMark);
  require(at != std::string::npos && shown.find(kMark, at + 1) == std::string::npos, ErrorCode::unsupported,
          "the model's chat template does not show a user's text exactly once; evaluate with --raw");
  const EncodeOptions plain{.add_special = false, .parse_special = true};
  return {tokenizer.encode(shown.substr(0, at), plain),
          tokenizer.encode(shown.substr(at + kMark.size()), plain)};
}

PromptFrame raw_frame(const Tokenizer& tokenizer) {
  PromptFrame frame;
  if (const TokenId bos = opening_bos(tokenizer); bos >= 0) frame.open = {bos};
  return frame;
}

}  // namespace mneme
