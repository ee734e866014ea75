// One request on its way: sampling, stop rules, streaming and timing, apart from whoever runs the model. The
// caller alternates next(logits) and processing the token it returns; generate() does so for one sequence,
// the scheduler for many.
#pragma once
#include <chrono>
#include <optional>
#include <span>
#include <string>

#include "engine/sequence.h"
#include "engine/stop_matcher.h"
#include "mneme/engine.h"

namespace mneme {

class Generation {
 public:
  using Clock = std::chrono::steady_clock;

  /// Checks everything that can be checked before the model runs. `request` and `tokenizer` (may be null)
  /// must outlive this object; `started` is when the user asked. Throws Error(invalid_argument).
  Generation(const GenerateRequest& request, const Tokenizer* tokenizer, Clock::time_point started);

  /// Throws Error(limit) if the prompt does not fit behind what `sequence` already holds.
  void check_prompt_fits(const Sequence& sequence) const;

  /// Samples from `logits`, which follow all of sequence.tokens(), and passes text on. Returns the token to
  /// process next, or nothing when the request has ended. Throws what Sampler and on_text throw.
  std::optional<TokenId> next(std::span<const float> logits, const Sequence& sequence);
  /// Ends the request from outside, e.g. with StopReason::cancelled. Text that was held back is passed on.
  void end(StopReason reason);
  bool ended() const noexcept { return ended_; }
  /// The result, once ended.
  GenerateResult take();

 private:
  bool is_stop_token(TokenId token) const noexcept;
  bool add_text(std::string_view bytes);
  bool emit(const std::string& text);

  const GenerateRequest& request_;
  const Tokenizer* tokenizer_;
  Sampler sampler_;
  Utf8Stream utf8_;
  StopMatcher stops_;
  GenerateResult result_;
  Clock::time_point started_, first_, last_;
  bool ended_ = false;
};

/// generate() of mneme/engine.h on any sequence.
GenerateResult generate(Sequence& sequence, const Tokenizer* tokenizer, const GenerateRequest& request);

}  // namespace mneme
