// Chat templates from any bytes: parsed or refused with mneme::Error, then rendered with a small conversation
// under tight limits. Nothing may crash, hang, leak, or throw anything else.
#include <algorithm>
#include <span>
#include <string_view>

#include "mneme/error.h"
#include "text/chat_template.h"

namespace {

const mneme::OrderedJson& conversation() {
  static const mneme::OrderedJson kMessages = mneme::parse_ordered_json(
      R"([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "  Hé <b>世界</b>\n"},
          {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"a": [1, 2.5, null, true]}}}]},
          {"role": "tool", "content": "{\"t\": 31}"}, {"role": "user", "content": ""}])",
      "conversation");
  return kMessages;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const auto chat = mneme::ChatTemplate::parse(std::string_view(reinterpret_cast<const char*>(data), size));
    mneme::ChatTemplateInputs inputs;
    inputs.tools =
        mneme::OrderedJson::array({{{"function", {{"name", "f"}, {"parameters", {{"type", "object"}}}}}}});
    inputs.bos_token = "<s>";
    inputs.eos_token = "</s>";
    inputs.max_steps = 200'000;
    inputs.max_output_bytes = 1 << 20;
    chat.render(conversation(), inputs);
  } catch (const mneme::Error&) {
  }
  return 0;
}
