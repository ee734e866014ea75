// Log-probabilities from logits, in double: the largest logit is subtracted first, so that neither huge nor
// tiny logits overflow, and sums run in double, so that 262k terms lose nothing that a perplexity would show.
#pragma once
#include <cstdint>
#include <span>

namespace mneme {

/// log(sum_i exp(logits[i])). -inf entries count as probability 0. Throws Error(corrupt) for a NaN or +inf,
/// or if every entry is -inf.
double log_sum_exp(std::span<const float> logits);

/// -log softmax(logits)[token] in nats; +inf for a token of probability 0. Throws Error(invalid_argument) if
/// `token` is not an index of `logits`, otherwise as log_sum_exp.
double negative_log_likelihood(std::span<const float> logits, int32_t token);

/// Kullback-Leibler divergence D(softmax(p) || softmax(q)) in nats: sum_i P_i (log P_i - log Q_i). Throws
/// Error(mismatch) for different sizes, otherwise as log_sum_exp.
double kl_divergence(std::span<const float> p, std::span<const float> q);

}  // namespace mneme
