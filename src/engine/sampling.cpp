// The sampler of mneme/sampling.h. Three decisions shape it:
//  - The same token on any machine: everything after the logits is double arithmetic in one fixed order, with
//  an
//    exponential made of IEEE operations only (libm's differs between versions) and PCG64 for the draw.
//  - No full sort: a vocabulary has up to 262k entries, the survivors are a few dozen. Top-k is one pass with
//  a
//    rising threshold; without top-k, candidates are sorted only as far as top-p and min-p reach.
//  - NaN never wins: every comparison is written so that NaN loses, which treats it as -inf. +inf counts as
//  the
//    largest finite float.
#include "mneme/sampling.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <string_view>
#include <utility>

#include "core/fail.h"
#include "core/random.h"

namespace mneme {
namespace {

constexpr float kBanned = -std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();

struct Candidate {
  float logit;
  TokenId id;
};

// The order of every list of candidates: best first, the lower id first among equals.
bool better(const Candidate& a, const Candidate& b) noexcept {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

// exp(x) for x <= 0, within 2 ulp, from IEEE additions and multiplications alone: x = k ln 2 + r, |r| <= ln 2
// / 2, and a Taylor polynomial of degree 13 for exp(r). Results below the normal range are 0. Without
// branches or integer conversions, so that a loop over it becomes vector code: adding 1.5 * 2^52 rounds to an
// integer, which then stands in the low bits.
inline double stable_exp(double x) noexcept {
  constexpr double kLog2E = 0x1.71547652b82fep+0, kLn2High = 0x1.62e42fee00000p-1,
                   kLn2Low = 0x1.a39ef35793c76p-33;
  constexpr double kRound = 0x1.8p52;
  const double shifted = x * kLog2E + kRound;
  const double k = shifted - kRound;
  const double r = (x - k * kLn2High) - k * kLn2Low;
  double sum = 1.0 / 6227020800.0;
  sum = sum * r + 1.0 / 479001600.0;
  sum = sum * r + 1.0 / 39916800.0;
  sum = sum * r + 1.0 / 3628800.0;
  sum = sum * r + 1.0 / 362880.0;
  sum = sum * r + 1.0 / 40320.0;
  sum = sum * r + 1.0 / 5040.0;
  sum = sum * r + 1.0 / 720.0;
  sum = sum * r + 1.0 / 120.0;
  sum = sum * r + 1.0 / 24.0;
  sum = sum * r + 1.0 / 6.0;
  sum = sum * r + 0.5;
  sum = sum * r + 1.0;
  sum = sum * r + 1.0;
  const uint64_t exponent = (std::bit_cast<uint64_t>(shifted) + 1023) << 52;
  const double value = sum * std::bit_cast<double>(exponent);
  return x > -708.0 ? value : 0.0;
}

// The largest logit; -inf if there is none. Sixteen independent maxima let the compiler use vectors; `a > b ?
// a : b` drops a NaN in a.
float largest(std::span<const float> logits) noexcept {
  constexpr size_t kLanes = 16;
  std::array<float, kLanes> best;
  best.fill(kBanned);
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes)
    for (size_t lane = 0; lane < kLanes; ++lane)
      best[lane] = logits[i + lane] > best[lane] ? logits[i + lane] : best[lane];
  for (; i < logits.size(); ++i) best[0] = logits[i] > best[0] ? logits[i] : best[0];
  return *std::max_element(best.begin(), best.end());
}

void check(bool ok, std::string_view field, double value, std::string_view range) {
  require(ok, ErrorCode::invalid_argument, "{} is {}: it must be {}", field, value, range);
}

}  // namespace

void SamplingOptions::validate() const {
  const auto finite = [](double value) { return std::isfinite(value); };
  check(finite(temperature) && temperature >= 0, "temperature", temperature, "0 (greedy) or more");
  check(top_k >= 0, "top_k", top_k, "0 (off) or more");
  check(top_p >= 0 && top_p <= 1, "top_p", top_p, "between 0 and 1 (off)");
  check(min_p >= 0 && min_p <= 1, "min_p", min_p, "between 0 (off) and 1");
  check(typical_p >= 0 && typical_p <= 1, "typical_p", typical_p, "between 0 and 1 (off)");
  check(finite(repetition_penalty) && repetition_penalty > 0, "repetition_penalty", repetition_penalty,
        "above 0 (1 = off)");
  check(finite(frequency_penalty), "frequency_penalty", frequency_penalty, "a finite number");
  check(finite(presence_penalty), "presence_penalty", presence_penalty, "a finite number");
  check(penalty_window >= -1, "penalty_window", penalty_window, "-1 (all tokens) or more");
  for (const auto& [id, bias] : logit_bias) {
    require(id >= 0, ErrorCode::invalid_argument, "logit_bias has token id {}: ids start at 0", id);
    require(!std::isnan(bias), ErrorCode::invalid_argument, "logit_bias of token {} is not a number", id);
  }
}

struct Sampler::Impl {
  explicit Impl(const SamplingOptions& chosen) : options(chosen), random(chosen.seed) { options.validate(); }

  SamplingOptions options;
  Pcg64 random;
  // Scratch of one call, kept to avoid allocations.
  std::vector<float> adjusted;
  std::vector<uint32_t> counts;  // [vocab], zero between calls
  std::vector<TokenId> seen;
  std::vector<Candidate> candidates;  // what is left; no NaN, no infinity
  float top = kBanned;                // the largest logit among them
  bool sorted = false;                // best first; otherwise by id
  std::vector<double> weights, shifts;
  std::vector<uint32_t> order;

  std::span<const float> adjust(std::span<const float> logits, std::span<const TokenId> history);
  void apply_penalties(std::span<const TokenId> history);
  void keep_top(std::span<const float> logits, size_t k);
  void keep_all(std::span<const float> logits);
  void keep_typical();
  void keep_nucleus();
  void sort_prefix(size_t from, size_t to);
  double fill_weights(double temperature);
  TokenId draw();
};

// Bias and penalties. Returns `logits` itself if nothing changes it.
std::span<const float> Sampler::Impl::adjust(std::span<const float> logits,
                                             std::span<const TokenId> history) {
  const bool penalties =
      options.penalty_window != 0 && !history.empty() &&
      (options.repetition_penalty != 1 || options.frequency_penalty != 0 || options.presence_penalty != 0);
  if (!penalties && options.logit_bias.empty()) return logits;
  adjusted.assign(logits.begin(), logits.end());
  for (const auto& [id, bias] : options.logit_bias) {
    require(static_cast<size_t>(id) < logits.size(), ErrorCode::invalid_argument,
            "logit_bias has token id {}, but the vocabulary has {} tokens", id, logits.size());
    adjusted[static_cast<size_t>(id)] += bias;
  }
  if (penalties) apply_penalties(history);
  return adjusted;
}

// Repetition: Keskar et al. 2019 (CTRL) with the division turned into a product for negative logits.
// Frequency and presence: as in OpenAI's API, logit -= count * frequency + presence.
void Sampler::Impl::apply_penalties(std::span<const TokenId> history) {
  if (options.penalty_window > 0 && history.size() > static_cast<size_t>(options.penalty_window))
    history = history.last(static_cast<size_t>(options.penalty_window));
  for (const TokenId id : history)
    require(id >= 0 && static_cast<size_t>(id) < adjusted.size(), ErrorCode::invalid_argument,
            "the history has token id {}, but the vocabulary has {} tokens", id, adjusted.size());
  counts.resize(adjusted.size());
  seen.clear();
  for (const TokenId id : history)
    if (counts[static_cast<size_t>(id)]++ == 0) seen.push_back(id);
  for (const TokenId id : seen) {
    const uint32_t count = std::exchange(counts[static_cast<size_t>(id)], 0);
    const double logit = adjusted[static_cast<size_t>(id)];
    const double repeated =
        logit > 0 ? logit / options.repetition_penalty : logit * options.repetition_penalty;
    adjusted[static_cast<size_t>(id)] =
        static_cast<float>(repeated - (count * options.frequency_penalty + options.presence_penalty));
  }
}

// The k best, sorted. A buffer of 2k takes what beats the threshold; when it is full, its lower half is
// dropped and the threshold rises, so that one pass over the vocabulary does a compare an entry and O(k log)
// work besides. A later entry equal to the threshold has the higher id and loses.
void Sampler::Impl::keep_top(std::span<const float> logits, size_t k) {
  candidates.clear();
  candidates.reserve(2 * k);
  float threshold = kBanned;
  const auto compact = [&] {
    if (candidates.size() <= k) return;
    const auto middle = candidates.begin() + static_cast<std::ptrdiff_t>(k);
    std::nth_element(candidates.begin(), middle - 1, candidates.end(), better);
    candidates.erase(middle, candidates.end());
    threshold = candidates.back().logit;
  };
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!(logits[i] > threshold)) continue;
    candidates.push_back({std::min(logits[i], kLargest), static_cast<TokenId>(i)});
    if (candidates.size() == 2 * k) compact();
  }
  compact();
  sort_prefix(0, candidates.size());
  if (!candidates.empty()) top = candidates.front().logit;
  sorted = true;
}

// Everything that is not banned, by id.
void Sampler::Impl::keep_all(std::span<const float> logits) {
  candidates.clear();
  top = kBanned;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!(logits[i] > kBanned)) continue;
    candidates.push_back({std::min(logits[i], kLargest), static_cast<TokenId>(i)});
    top = std::max(top, candidates.back().logit);
  }
  sorted = false;
}

// Puts the best candidates of [from, end) at [from, to), sorted.
void Sampler::Impl::sort_prefix(size_t from, size_t to) {
  const auto begin = candidates.begin() + static_cast<std::ptrdiff_t>(from);
  const auto end = candidates.begin() + static_cast<std::ptrdiff_t>(to);
  if (end != candidates.end()) std::nth_element(begin, end, candidates.end(), better);
  std::sort(begin, end, better);
}

// weights[i] = exp((logit_i - top) / temperature); returns their sum.
double Sampler::Impl::fill_weights(double temperature) {
  weights.resize(candidates.size());
  for (size_t i = 0; i < candidates.size(); ++i)
    weights[i] = stable_exp((static_cast<double>(candidates[i].logit) - top) / temperature);
  double sum = 0;
  for (const double weight : weights) sum += weight;
  return sum;
}

// Locally typical sampling (Meister et al. 2022): of the tokens whose surprise -log p is nearest to the
// entropy, the smallest set that reaches typical_p; the better token first among equals. With l = log p +
// const,
// |-log p - entropy| = |sum(p l) - l|.
void Sampler::Impl::keep_typical() {
  const double total = fill_weights(1.0);
  double mean = 0;
  for (size_t i = 0; i < candidates.size(); ++i)
    if (weights[i] > 0) mean += weights[i] / total * (static_cast<double>(candidates[i].logit) - top);
  shifts.resize(candidates.size());
  order.resize(candidates.size());
  for (size_t i = 0; i < candidates.size(); ++i) {
    shifts[i] = std::abs(mean - (static_cast<double>(candidates[i].logit) - top));
    order[i] = static_cast<uint32_t>(i);
  }
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    return shifts[a] < shifts[b] || (shifts[a] == shifts[b] && better(candidates[a], candidates[b]));
  });
  double sum = 0;
  size_t kept = 0;
  while (kept < order.size() && (kept == 0 || sum < options.typical_p * total)) sum += weights[order[kept++]];
  order.resize(kept);
  std::sort(order.begin(), order.end());
  top = kBanned;
  for (size_t i = 0; i < kept; ++i) {
    candidates[i] = candidates[order[i]];
    top = std::max(top, candidates[i].logit);
  }
  candidates.resize(kept);
}

// Top-p, then min-p. Both keep a prefix of the candidates sorted best first, so sorting stops where either
// ends.
void Sampler::Impl::keep_nucleus() {
  const double total = options.top_p < 1 ? fill_weights(1.0) : 0;
  const size_t all = candidates.size();
  size_t ready = sorted ? all : 0;  // candidates that already stand in their place
  double sum = 0;
  sorted = true;
  for (size_t i = 0; i < all; ++i) {
    if (i == ready) {
      ready = std::min(all, std::max<size_t>(64, 8 * i));
      sort_prefix(i, ready);
    }
    const double weight = stable_exp(static_cast<double>(candidates[i].logit) - top);
    const bool reached = options.top_p < 1 && i > 0 && sum >= options.top_p * total;
    if (reached || weight < options.min_p) return candidates.resize(i);
    sum += weight;
  }
}

// Inverse transform over the survivors by id, so that two logits which swap places by a rounding error of the
// model change the draw by that rounding error only.
TokenId Sampler::Impl::draw() {
  if (sorted) std::sort(candidates.begin(), candidates.end(), [](auto& a, auto& b) { return a.id < b.id; });
  const double point = random.uniform() * fill_weights(options.temperature);
  double sum = 0;
  TokenId last = candidates.front().id;
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (weights[i] > 0) last = candidates[i].id;
    sum += weights[i];
    if (point < sum) break;
  }
  return last;
}

Sampler::Sampler(const SamplingOptions& options) : impl_(std::make_unique<Impl>(options)) {}
Sampler::~Sampler() = default;
Sampler::Sampler(Sampler&&) noexcept = default;
Sampler& Sampler::operator=(Sampler&&) noexcept = default;

TokenId Sampler::sample(std::span<const float> raw, std::span<const TokenId> history) {
  Impl& impl = *impl_;
  const SamplingOptions& options = impl.options;
  require(!raw.empty(), ErrorCode::invalid_argument, "Sampler::sample needs logits, but there are none");
  const auto logits = impl.adjust(raw, history);
  const auto all_banned = [&] {
    fail(ErrorCode::corrupt, "no token can be chosen: all {} logits are NaN or -inf{}", raw.size(),
         options.logit_bias.empty() ? "; the weights are probably damaged" : " after the logit bias");
  };
  if (options.temperature == 0) {
    const float best = largest(logits);
    if (!(best > kBanned)) all_banned();
    return static_cast<TokenId>(std::find(logits.begin(), logits.end(), best) - logits.begin());
  }
  if (options.top_k > 0 && static_cast<size_t>(options.top_k) < logits.size())
    impl.keep_top(logits, static_cast<size_t>(options.top_k));
  else
    impl.keep_all(logits);
  if (impl.candidates.empty()) all_banned();
  if (options.typical_p < 1) impl.keep_typical();
  if (options.top_p < 1 || options.min_p > 0) impl.keep_nucleus();
  return impl.draw();
}

}  // namespace mneme
