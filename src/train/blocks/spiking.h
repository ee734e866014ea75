// Spikes in a model that is trained: which projections read them, what a pass is to pay for them, and how
// much fires. The neuron and its gradients: train/ops/spikes.h.
//
// A projection whose `activation` is a spike reads what its neuron makes of the input, exactly as in the
// engine; `float`, `int8` and `auto` read the input as it is (int8 is a property of how weights are stored,
// and no model is trained for it).
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "core/json.h"
#include "mneme/model_config.h"
#include "train/ops/spikes.h"

namespace mneme::train {

/// What has fired, by kind of projection: whole numbers, so that figures do not depend on the order of sums.
/// Not thread-safe.
class SpikeTally {
 public:
  void add(Projection projection, const SpikeCount& count, uint64_t outputs);
  bool empty() const noexcept;
  /// The part of all weights of spiking projections that no input reads.
  double silent() const noexcept;
  /// {"silent", "mean_abs", "projections": {"q": {"silent", "mean_abs"}, ...}}: of all, and for each kind the
  /// silent share of its inputs and their mean |s|.
  Json report() const;
  /// All numbers, to go on from: restore(state()) is the same tally. restore() throws Error(corrupt).
  Json state() const;
  static SpikeTally restore(const Json& state);

 private:
  struct Kind {
    SpikeCount count;
    uint64_t weights = 0, read = 0;  // summed over tokens: of the matrices, and those that a spike reads
  };
  std::array<Kind, kProjections> of_{};
};

/// What a pass does about spikes beside reading them.
struct SpikeOptions {
  /// The price, in the loss's unit, of reading all weights of spiking projections for every token: each input
  /// pays its firing probability (FiringPenalty) for its share of them. It is part of gradients, not of the
  /// loss's value.
  double penalty = 0;
  double width = 1;             // of FiringPenalty
  SpikeTally* tally = nullptr;  // adds up what fires
};

/// Weights of all matrices that read spikes; of a mixture, those that a token passes at most. Throws
/// Error(invalid_argument) naming the first whose rows are no multiple of 32, which neither engine nor
/// trainer can fire.
uint64_t spiking_weights(const ModelConfig& config);

/// How the matrices of one layer read their inputs in a pass. Refers to the policy.
class LayerInputs {
 public:
  LayerInputs() = default;  // as they are
  /// `all_weights`: spiking_weights() of the model, which a penalty is shared out over.
  LayerInputs(const ActivationPolicy& policy, const SpikeOptions& options, uint64_t all_weights)
      : policy_(&policy), options_(options), all_weights_(all_weights) {}
  /// What the matrix `linear` [outputs, in] multiplies instead of x [..., in]. `share`: the part of the
  /// pass's tokens that x is, as what reaches an expert; a penalty is a mean over all tokens.
  Tensor of(std::string_view linear, const Tensor& x, int64_t outputs, double share = 1) const;

 private:
  const ActivationPolicy* policy_ = nullptr;
  SpikeOptions options_;
  uint64_t all_weights_ = 0;
};

}  // namespace mneme::train
