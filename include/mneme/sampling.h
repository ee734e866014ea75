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
struct SamplingOptions {
  double temperature = 0.8;  // 0 = greedy
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

  /// Draws the next token. `logits`: [vocab]; `history`: tokens so far, prompt included. Throws
  /// Error(corrupt) if every logit is NaN or -inf.
  TokenId sample(std::span<const float> logits, std::span<const TokenId> history);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mneme
