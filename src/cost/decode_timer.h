// Measured times of a model, to lay beside predicted ones, and what `mneme bench` shares with them.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "mneme/session.h"

namespace mneme {

double median_of(std::vector<double> values);
/// Pseudo-random ids below `vocab`, others for each seed, so that a memory table is asked for new rows.
std::vector<TokenId> random_ids(uint64_t count, uint32_t vocab, uint64_t seed);

struct TimedRuns {
  std::vector<double> seconds;  // of a token (or of the prompt), a run each
  /// The second fastest: what the machine reaches when nothing else takes a core.
  double reached() const;
};

struct TimerOptions {
  SessionOptions session;
  uint64_t tokens = 32;  // that a run decodes
  int repeat = 9;  // runs after one that warms up; up to six times as many until the three fastest agree
  const CancelToken* cancel = nullptr;
  std::function<void(uint64_t done, uint64_t total)> progress = {};  // of filling the context
};

/// Decodes tokens one by one around `context` positions, half of them before and half after, in a session
/// whose context is synthetic keys, values and states (engine/synthetic.h). Sampling is not part of it.
/// Throws what Session throws.
TimedRuns time_decode(const std::shared_ptr<const Model>& model, uint64_t context,
                      const TimerOptions& options);
/// Reads a prompt of `tokens` random ids in a fresh session, `options.repeat` times.
TimedRuns time_prompt(const std::shared_ptr<const Model>& model, uint64_t tokens,
                      const TimerOptions& options);

}  // namespace mneme
