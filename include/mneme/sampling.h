// Choosing the next token from logits. Same seed, same logits: same token, on any machine and thread count.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "mneme/tokenizer.h"

namespace mneme {

/// Applied in this order: logit bias, penalties, top-k, typical, top-p, min-p, temperature, draw.
/// Probabilities of typical, top-p and min-p are those of the tokens left by the step before, at
/// temperature 1. The draw takes one number of PCG64(seed) a token and walks the survivors by id. NaN counts
/// as -inf.
struct SamplingOptions {
  double temperature = 0.8;  // 0 = greedy: largest logit after the penalties, lowest id among equals
  int top_k = 40;            // 0 = off
  double top_p = 0.95;       // 1 = off
  double min_p = 0.05;       // 0 = off
  double typical_p = 1.0;    // 1 = off
  double repetition_penalty = 1.0;
  double frequency_penalty = 0.0;
  double presence_penalty = 0.0;
  int penalty_window = 64;  // last tokens that the penalties look at; -1 = all
  uint64_t seed = 0;
  std::vector<std::pair<TokenId, float>> logit_bias;

  /// Throws Error(invalid_argument) naming the field that is out of range.
  void validate() const;
};

class Sampler {
 public:
  explicit Sampler(const SamplingOptions& options);
  ~Sampler();
  Sampler(Sampler&&) noexcept;
  Sampler& operator=(Sampler&&) noexcept;

  /// Draws the next token. `logits`: [vocab]; `history`: tokens so far, prompt included (read by the
  /// penalties only). Throws Error: corrupt if every logit is NaN or -inf, invalid_argument if there are no
  /// logits, or for an id in `history` or the logit bias that is not below vocab. Not thread-safe.
  TokenId sample(std::span<const float> logits, std::span<const TokenId> history);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mneme
