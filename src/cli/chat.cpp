#include "cli/chat.h"

#include <algorithm>
#include <chrono>

#include "cli/session_file.h"
#include "core/fail.h"

namespace mneme::cli {
namespace {

std::optional<ChatTemplate> parse_template(const Tokenizer& tokenizer) {
  if (tokenizer.chat_template().empty()) return std::nullopt;
  try {
    return ChatTemplate::parse(tokenizer.chat_template());
  } catch (const Error& error) {
    fail(error.code(), "{}; the model cannot be talked to, but `mneme generate` continues text with it",
         error.what());
  }
}

std::string token_text(const Tokenizer& tokenizer, TokenId id) {
  return id < 0 ? std::string() : tokenizer.token(id);
}

}  // namespace

uint64_t reusable_tokens(std::span<const TokenId> held, std::span<const TokenId> prompt) {
  if (prompt.empty()) return 0;
  const size_t most = std::min(held.size(), prompt.size() - 1);
  const auto differs =
      std::mismatch(held.begin(), held.begin() + static_cast<std::ptrdiff_t>(most), prompt.begin());
  return static_cast<uint64_t>(differs.first - held.begin());
}

Chat::Chat(std::shared_ptr<const Model> model, ChatOptions options)
    : model_(std::move(model)),
      options_(std::move(options)),
      template_(parse_template(model_->tokenizer())),
      session_(model_, options_.session) {}

std::vector<TokenId> Chat::prompt_ids() const {
  const Tokenizer& tokenizer = model_->tokenizer();
  if (template_) {
    ChatTemplateInputs inputs;
    inputs.bos_token = token_text(tokenizer, tokenizer.bos());
    inputs.eos_token = token_text(tokenizer, tokenizer.eos());
    inputs.variables = options_.variables;
    // The template writes the begin-of-text token itself where the model wants one.
    return tokenizer.encode(template_->render(conversation_.messages(), inputs),
                            {.add_special = false, .parse_special = true});
  }
  std::string text;
  for (const OrderedJson& message : conversation_.messages())
    text += (text.empty() ? "" : "\n") + message["content"].get<std::string>();
  return tokenizer.encode(text, {.add_special = true, .parse_special = false});
}

uint64_t Chat::keep_prefix(std::span<const TokenId> prompt) {
  const uint64_t keep = reusable_tokens(session_.tokens(), prompt);
  const uint64_t drop = session_.position() - keep;
  if (drop == 0) return keep;
  try {
    session_.rollback(drop);
    return keep;
  } catch (const Error& error) {
    if (error.code() != ErrorCode::limit) throw;
  }
  // A window or a recurrent state cannot go back that far. Templates that show an old answer otherwise than
  // it was generated differ from where it began.
  if (turn_ && turn_->position() <= keep &&
      std::equal(turn_->tokens().begin(), turn_->tokens().end(), prompt.begin())) {
    session_.restore(*turn_);
    return turn_->position();
  }
  session_ = Session(model_, options_.session);
  return 0;
}

Chat::Answer Chat::cancelled(Answer answer) {
  answer.result.stop = StopReason::cancelled;
  conversation_.drop_last();
  return answer;
}

Chat::Answer Chat::ask(const std::string& text, const CancelToken* cancel, const OnText& on_text,
                       const OnPrefill& on_prefill) {
  conversation_.add("user", text);
  try {
    const std::vector<TokenId> prompt = prompt_ids();
    require(!prompt.empty(), ErrorCode::invalid_argument,
            "the prompt is empty, and this model begins with no token of its own");
    const uint64_t limit =
        session_.options().max_context > 0 ? session_.options().max_context : model_->config().context;
    require(limit == 0 || prompt.size() < limit, ErrorCode::limit,
            "the conversation has {} tokens and the context holds {}; start anew or use a longer --ctx",
            prompt.size(), limit);
    Answer answer;
    answer.prompt_tokens = prompt.size();
    answer.reused_tokens = keep_prefix(prompt);
    if (options_.store != nullptr)
      answer.reused_tokens =
          std::max(answer.reused_tokens, options_.store->restore(session_, prompt, answer.reused_tokens));
    const uint64_t unread = prompt.size() - answer.reused_tokens;
    GenerateRequest request;
    request.prompt.assign(prompt.end() - static_cast<std::ptrdiff_t>(unread), prompt.end());
    request.max_tokens = options_.max_tokens;
    request.sampling = options_.sampling;
    request.sampling.seed += turns_++;  // another draw each turn, the same in each run
    request.stop = options_.stop;
    request.cancel = cancel;
    request.on_text = on_text;
    check_request(session_, request);

    const auto started = std::chrono::steady_clock::now();
    const auto progress = [&](uint64_t done, uint64_t) {
      if (on_prefill) on_prefill(done, unread);
      if (options_.store != nullptr) keep_on_the_way(*options_.store, session_);
    };
    // All but the last token, whose logits begin the answer.
    const auto rest = std::span(prompt).subspan(answer.reused_tokens, unread - 1);
    if (read_ids(session_, rest, cancel, progress) < rest.size()) return cancelled(std::move(answer));
    turn_ = session_.snapshot();
    if (options_.store != nullptr && forgets(session_)) options_.store->add(session_);
    const double read_ms =
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - started).count();
    request.prompt = {prompt.back()};
    request.on_prefill = [&](uint64_t, uint64_t) {
      if (on_prefill) on_prefill(unread, unread);
    };
    answer.result = generate(session_, request);
    answer.result.prompt_tokens = unread;
    if (answer.result.generated_tokens > 0) answer.result.ttft_ms += read_ms;
    if (answer.result.text.empty() && answer.result.stop == StopReason::cancelled)
      conversation_.drop_last();
    else
      conversation_.add("assistant", answer.result.text);
    return answer;
  } catch (...) {
    conversation_.drop_last();
    throw;
  }
}

}  // namespace mneme::cli
