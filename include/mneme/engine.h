// Generation: one session at a time with generate(), or many in one batch with Engine.
#pragma once
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "mneme/sampling.h"
#include "mneme/session.h"

namespace mneme {

enum class StopReason {
  length,    // max_tokens reached
  end,       // the model produced one of its stop tokens
  stop,      // a stop string appeared (it is not part of the text)
  context,   // the context is full
  cancelled  // the cancel token or on_text asked to stop, or the engine went away
};
std::string_view to_string(StopReason reason) noexcept;

struct GenerateRequest {
  std::vector<TokenId> prompt;  // appended to the session first; at least one id
  uint32_t max_tokens = 256;    // 0: only process the prompt
  SamplingOptions sampling;
  std::vector<std::string> stop;        // UTF-8, not empty; found also across token borders
  bool ignore_eos = false;              // stop tokens count as any other token
  const CancelToken* cancel = nullptr;  // must live until the result is there
  /// Whole UTF-8 characters as they become final (text that could still become a stop string is held back).
  /// Return false to stop.
  std::function<bool(std::string_view text)> on_text;
  std::function<void(uint64_t done, uint64_t total)> on_prefill;  // prompt tokens processed
};

struct GenerateResult {
  std::string text;             // valid UTF-8: what on_text received; empty without a tokenizer
  std::vector<TokenId> tokens;  // sampled ids, a final stop token included
  uint64_t prompt_tokens = 0;
  uint64_t generated_tokens = 0;
  double ttft_ms = 0;            // from the call to the first sampled token
  double tokens_per_second = 0;  // of decoding, first token excluded; 0 if fewer than two
  StopReason stop = StopReason::length;
};

/// Appends the prompt and samples until a stop. Afterwards the session holds prompt and generated tokens
/// (without the last sampled one, which has not been processed); a request cancelled during the prompt leaves
/// it as it was. Throws Error: limit if the prompt does not fit the context, invalid_argument for an empty
/// prompt, bad sampling options, an empty or malformed stop string, or stop strings for a model without
/// tokenizer; and what Session::append and Sampler throw. What a callback throws passes through.
GenerateResult generate(Session& session, const GenerateRequest& request);

struct EngineOptions {
  uint32_t max_batch = 8;  // sessions decoded together
  SessionOptions session;
};

/// Runs many requests in one batch on its own thread. Thread-safe. Every request has its own cancel token; an
/// error of one request (bad sampling options, context full, a callback that throws) ends that request only.
/// Prompts are processed in order of arrival, one chunk at a time between the decoding steps of the others.
class Engine {
 public:
  Engine(std::shared_ptr<const Model> model, const EngineOptions& options = {});
  /// Cancels what is queued or running; those results arrive with StopReason::cancelled. Not from a callback.
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  /// Queues a request on a new session. Errors arrive through the future. Callbacks run on the engine's
  /// thread.
  std::future<GenerateResult> submit(GenerateRequest request);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mneme
