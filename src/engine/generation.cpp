#include "engine/generation.h"

#include <algorithm>
#include <utility>

#include "core/fail.h"

namespace mneme {
namespace {

bool cancelled(const GenerateRequest& request) noexcept {
  return request.cancel != nullptr && request.cancel->cancelled();
}

}  // namespace

std::string_view to_string(StopReason reason) noexcept {
  switch (reason) {
    case StopReason::length:
      return "length";
    case StopReason::end:
      return "end";
    case StopReason::stop:
      return "stop";
    case StopReason::context:
      return "context";
    case StopReason::cancelled:
      return "cancelled";
  }
  return "unknown";
}

Generation::Generation(const GenerateRequest& request, const Tokenizer* tokenizer, Clock::time_point started)
    : request_(request),
      tokenizer_(tokenizer),
      sampler_(request.sampling),
      stops_(request.stop),
      started_(started) {
  require(!request.prompt.empty(), ErrorCode::invalid_argument,
          "the prompt has no tokens: it needs at least one to predict the next from");
  require(request.stop.empty() || tokenizer != nullptr, ErrorCode::invalid_argument,
          "stop strings need a tokenizer, and this model's file carries none");
  result_.prompt_tokens = request.prompt.size();
}

void Generation::check_prompt_fits(const Sequence& sequence) const {
  const uint64_t held = sequence.tokens().size(), prompt = request_.prompt.size(),
                 context = sequence.context();
  require(held <= context && prompt <= context - held, ErrorCode::limit,
          "the prompt has {} tokens{}, more than the context of {}; shorten it or raise the context", prompt,
          held == 0 ? "" : fmt::format(" and the session already holds {}", held), context);
}

std::optional<TokenId> Generation::next(std::span<const float> logits, const Sequence& sequence) {
  const auto stop = [&](StopReason reason) {
    end(reason);
    return std::nullopt;
  };
  if (ended_) return std::nullopt;
  if (cancelled(request_)) return stop(StopReason::cancelled);
  if (request_.max_tokens == 0) return stop(StopReason::length);

  const TokenId token = sampler_.sample(logits, sequence.tokens());
  last_ = Clock::now();
  if (result_.tokens.empty()) first_ = last_;
  result_.tokens.push_back(token);
  if (!request_.ignore_eos && is_stop_token(token)) return stop(StopReason::end);
  if (tokenizer_ != nullptr && !add_text(utf8_.push(tokenizer_->piece(token)))) {
    ended_ = true;  // on_text wants no more: nothing that is held back may follow
    result_.stop = StopReason::cancelled;
    return std::nullopt;
  }
  if (stops_.matched()) return stop(StopReason::stop);
  if (result_.tokens.size() >= request_.max_tokens) return stop(StopReason::length);
  if (sequence.tokens().size() >= sequence.context()) return stop(StopReason::context);
  return token;
}

bool Generation::is_stop_token(TokenId token) const noexcept {
  if (tokenizer_ == nullptr) return false;
  const auto stops = tokenizer_->stop_tokens();
  return std::binary_search(stops.begin(), stops.end(), token);
}

bool Generation::add_text(std::string_view bytes) {
  return emit(stops_.push(bytes));
}

bool Generation::emit(const std::string& text) {
  if (text.empty()) return true;
  result_.text += text;
  return !request_.on_text || request_.on_text(text);
}

void Generation::end(StopReason reason) {
  if (ended_) return;
  ended_ = true;
  result_.stop = reason;
  if (stops_.matched()) return;
  if (add_text(utf8_.finish()) && !stops_.matched()) emit(stops_.finish());
}

GenerateResult Generation::take() {
  const auto seconds = [](Clock::duration time) { return std::chrono::duration<double>(time).count(); };
  const size_t count = result_.tokens.size();
  result_.generated_tokens = count;
  if (count > 0) result_.ttft_ms = 1e3 * seconds(first_ - started_);
  if (count > 1 && last_ > first_)
    result_.tokens_per_second = static_cast<double>(count - 1) / seconds(last_ - first_);
  return std::move(result_);
}

GenerateResult generate(Sequence& sequence, const Tokenizer* tokenizer, const GenerateRequest& request) {
  Generation generation(request, tokenizer, Generation::Clock::now());
  generation.check_prompt_fits(sequence);
  const auto advance = [&](std::span<const TokenId> ids, AppendOptions options) {
    options.cancel = request.cancel;
    try {
      return generation.next(sequence.append(ids, options), sequence);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::cancelled || !cancelled(request)) throw;
      generation.end(StopReason::cancelled);
      return std::optional<TokenId>();
    }
  };
  AppendOptions prefill;
  prefill.progress = request.on_prefill;
  auto token = advance(request.prompt, prefill);
  while (token) token = advance({&*token, 1}, {});
  return generation.take();
}

}  // namespace mneme
