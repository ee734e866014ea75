// One chat with a model: the conversation becomes a prompt by the model's chat template, the session keeps
// what it has already read, and the answer is added to the conversation.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cli/conversation.h"
#include "engine/session_store.h"
#include "mneme/engine.h"
#include "text/chat_template.h"

namespace mneme::cli {

struct ChatOptions {
  SessionOptions session;
  SamplingOptions sampling;
  uint32_t max_tokens = 1024;  // of one answer
  std::vector<std::string> stop;
  OrderedJson variables = OrderedJson::object();  // for the template
  SessionStore* store = nullptr;                  // what was read in it is not read again, and more is added
};

/// How many leading tokens of `prompt` a session that holds `held` need not read again: their common prefix,
/// but never the whole prompt, because the last token's logits are needed.
uint64_t reusable_tokens(std::span<const TokenId> held, std::span<const TokenId> prompt);

class Chat {
 public:
  /// Throws what the template's parser throws, and Error(not_found) for a model without a tokenizer.
  Chat(std::shared_ptr<const Model> model, ChatOptions options);

  bool has_template() const noexcept { return template_.has_value(); }
  const Model& model() const noexcept { return *model_; }
  Conversation& conversation() noexcept { return conversation_; }
  /// For what is saved and restored between turns.
  Session& session() noexcept { return session_; }

  struct Answer {
    GenerateResult result;
    uint64_t prompt_tokens = 0;  // of the whole conversation
    uint64_t reused_tokens = 0;  // of these, kept from earlier turns
  };
  using OnText = std::function<bool(std::string_view)>;
  using OnPrefill = std::function<void(uint64_t done, uint64_t total)>;

  /// Adds `text` as the user's turn and generates the answer, which is added too unless nothing came. On an
  /// error the user's turn is taken back; what was read of the prompt until a cancel stays in the session, so
  /// that the same turn goes on from there. Throws what ChatTemplate::render and generate() throw.
  Answer ask(const std::string& text, const CancelToken* cancel, const OnText& on_text,
             const OnPrefill& on_prefill);

 private:
  std::vector<TokenId> prompt_ids() const;
  Answer cancelled(Answer answer);
  /// Brings the session to hold exactly the first tokens of `prompt`; returns how many.
  uint64_t keep_prefix(std::span<const TokenId> prompt);

  std::shared_ptr<const Model> model_;
  ChatOptions options_;
  std::optional<ChatTemplate> template_;
  Session session_;
  std::optional<Snapshot> turn_;  // where the last answer began: as far back as a recurrent state can go
  Conversation conversation_;
  uint64_t turns_ = 0;
};

}  // namespace mneme::cli
