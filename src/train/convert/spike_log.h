// The learning curve of a spike stage: every so many steps a line with the mean loss, the neuron and what
// fired since the line before. It is part of where a stage stands (state.h), the unfinished line included, so
// that a stage that was stopped writes the same lines as one that was not.
#pragma once
#include "train/blocks/spiking.h"
#include "train/convert/recipe.h"

namespace mneme::train {

class SpikeLog {
 public:
  /// Goes on from `inner` ({"curve", "line"}), where there is something. Throws Error(corrupt).
  SpikeLog(const Json& inner, const SpikeSettings& settings, uint64_t steps, uint64_t tokens_of_step);

  /// Where a pass adds up what fires.
  SpikeTally& tally() noexcept { return tally_; }
  /// Step `step` is done, with that loss.
  void add(uint64_t step, double loss);
  /// The share of weights that were not read since the last line (or over it, right after one).
  double silent() const noexcept;
  void store(Json& inner) const;
  /// [{"step", "tokens", "loss", "k", "dead_zone", "silent", "mean_abs", "projections"}, ...].
  const Json& curve() const noexcept { return curve_; }

 private:
  const SpikeSettings& settings_;
  uint64_t steps_, tokens_of_step_;
  Json curve_ = Json::array();
  SpikeTally tally_;
  double loss_ = 0;  // the sum over the steps of this line
  uint64_t counted_ = 0;
};

}  // namespace mneme::train
