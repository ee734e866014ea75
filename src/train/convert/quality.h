// How well a model predicts held-out text, and how much it loses when single layers are converted. The scheme
// is that of `mneme perplexity`: windows of `context` tokens, each read from nothing, of which the second
// half is scored.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "core/json.h"
#include "train/convert/converted_model.h"

namespace mneme::train {

struct Quality {
  uint64_t tokens = 0;  // scored
  double nll = 0;       // mean, nats
  double ppl() const;
};

/// Polled between pieces of work: (done, of). Throws to stop.
using Tick = std::function<void(uint64_t done, uint64_t of)>;

/// Held-out text. Immutable.
class HeldOut {
 public:
  HeldOut() = default;
  /// `bos`, unless it is negative, replaces the first token of every window. Throws Error(invalid_argument)
  /// for fewer ids than one window.
  HeldOut(std::vector<int64_t> ids, uint32_t context, int64_t bos = -1);
  bool empty() const noexcept { return ids_.empty(); }
  /// Whole windows in the first `tokens`, one at least.
  uint64_t windows(uint64_t tokens) const noexcept;
  /// int64 [1, context].
  Tensor window(uint64_t number) const;
  uint32_t context() const noexcept { return context_; }

 private:
  std::vector<int64_t> ids_;
  uint32_t context_ = 0;
  int64_t bos_ = -1;
};

/// Sum of the negative log-likelihoods of the second half of a window, given the residual stream after the
/// last layer [1, positions, d_model], in nats.
double scored_nll(const ConvertedModel& model, const Tensor& residual, const Tensor& tokens);

/// `tally`, if not null, adds up what fires.
Quality measure(const ConvertedModel& model, const HeldOut& text, uint64_t tokens, const Tick& tick,
                SpikeTally* tally = nullptr);

/// The loss of `base` with one layer's mixer taken from `donor`, for each of `layers`, and of `base` itself.
/// Layers below the converted one are computed once a window. `state` is where it stands ({"window", "nll",
/// "base"}), kept by the caller between calls: `checkpoint` is called after each window.
struct Sensitivity {
  Quality base;
  std::vector<Quality> alone;  // by place in `layers`
};
Sensitivity measure_alone(const ConvertedModel& base, const ConvertedModel& donor,
                          const std::vector<uint32_t>& layers, const HeldOut& text, uint64_t tokens,
                          Json& state, const std::function<void()>& checkpoint, const Tick& tick);

}  // namespace mneme::train
