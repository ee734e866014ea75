#include "eval/log_softmax.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/fail.h"

namespace mneme {

double log_sum_exp(std::span<const float> logits) {
  float top = -std::numeric_limits<float>::infinity();
  bool nan = false;
  for (const float logit : logits) {
    top = std::max(top, logit);
    nan |= std::isnan(logit);
  }
  require(!nan && std::isfinite(top), ErrorCode::corrupt,
          "the logits hold a NaN or an infinity, or are all -inf; the weights are probably damaged");
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - top);
  return top + std::log(sum);
}

double negative_log_likelihood(std::span<const float> logits, int32_t token) {
  require(token >= 0 && static_cast<size_t>(token) < logits.size(), ErrorCode::invalid_argument,
          "token {} is outside the {} logits", token, logits.size());
  return log_sum_exp(logits) - logits[static_cast<size_t>(token)];
}

double kl_divergence(std::span<const float> p, std::span<const float> q) {
  require(p.size() == q.size(), ErrorCode::mismatch, "logits of {} and of {} tokens cannot be compared",
          p.size(), q.size());
  const double p_total = log_sum_exp(p), q_total = log_sum_exp(q);
  double sum = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    const double p_log = p[i] - p_total;
    if (std::isfinite(p_log)) sum += std::exp(p_log) * (p_log - (q[i] - q_total));
  }
  return std::max(0.0, sum);  // rounding may leave -1e-17
}

}  // namespace mneme
