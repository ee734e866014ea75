#include "cost/decode_timer.h"

#include <algorithm>
#include <chrono>

#include "engine/synthetic.h"

namespace mneme {
namespace {

constexpr int kMostPatience = 6;  // times the runs asked for
constexpr double kAgreement = 1.04;

/// Whether the three fastest runs agree: then nothing disturbed them.
bool undisturbed(std::vector<double> seconds) {
  if (seconds.size() < 3) return true;
  std::nth_element(seconds.begin(), seconds.begin() + 2, seconds.end());
  return seconds[2] <= kAgreement * *std::min_element(seconds.begin(), seconds.begin() + 2);
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

double median_of(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return (values[(values.size() - 1) / 2] + values[values.size() / 2]) / 2;
}

double TimedRuns::reached() const {
  if (seconds.empty()) return 0;
  std::vector<double> sorted = seconds;
  std::sort(sorted.begin(), sorted.end());
  return sorted[std::min<size_t>(1, sorted.size() - 1)];
}

std::vector<TokenId> random_ids(uint64_t count, uint32_t vocab, uint64_t seed) {
  std::vector<TokenId> ids(count);
  uint64_t state = seed * 2654435761U + 1;
  for (TokenId& id : ids) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    id = static_cast<TokenId>((state >> 33) % vocab);
  }
  return ids;
}

TimedRuns time_decode(const std::shared_ptr<const Model>& model, uint64_t context,
                      const TimerOptions& options) {
  SessionOptions session_options = options.session;
  const uint64_t tokens = std::max<uint64_t>(1, options.tokens);
  const uint64_t depth = context > tokens / 2 + 1 ? context - tokens / 2 - 1 : 0;
  session_options.max_context = static_cast<uint32_t>(
      std::max<uint64_t>(depth + tokens, std::max(session_options.max_context, model->config().context)));
  session_options.max_rollback = static_cast<uint32_t>(tokens);
  Session session(model, session_options);
  if (depth > 0) fill_synthetic(session, depth, 1, options.progress);
  AppendOptions append;
  append.cancel = options.cancel;
  TimedRuns runs;
  for (int i = 0; i <= options.repeat || (!undisturbed(runs.seconds) && i <= kMostPatience * options.repeat);
       ++i) {
    const auto ids = random_ids(tokens, model->config().vocab, 2 + static_cast<uint64_t>(i));
    const auto start = std::chrono::steady_clock::now();
    for (const TokenId& id : ids) session.append({&id, 1}, append);
    if (i > 0) runs.seconds.push_back(seconds_since(start) / static_cast<double>(tokens));
    session.rollback(tokens);
  }
  return runs;
}

TimedRuns time_prompt(const std::shared_ptr<const Model>& model, uint64_t tokens,
                      const TimerOptions& options) {
  SessionOptions session_options = options.session;
  session_options.max_context = static_cast<uint32_t>(
      std::max<uint64_t>(tokens, std::max(session_options.max_context, model->config().context)));
  AppendOptions append;
  append.cancel = options.cancel;
  TimedRuns runs;
  for (int i = 0; i < options.repeat; ++i) {
    Session session(model, session_options);
    const auto ids = random_ids(tokens, model->config().vocab, 2 + static_cast<uint64_t>(i));
    const auto start = std::chrono::steady_clock::now();
    session.append(ids, append);
    runs.seconds.push_back(seconds_since(start));
  }
  return runs;
}

}  // namespace mneme
