// Mixtures of experts in a model that is trained: what keeps their routers from sending everything to a few,
// and a tally of what they choose. The block itself: block_moe.cpp; the choice: src/model/router.h, the
// engine's own code.
//
// Two ways of balance, which may be combined:
//
//   a price    balance * sum over choices c of f_c P_c / t_c, where f_c is the part of the filled places that
//              went to c, P_c the mean of its normalised scores, t_c the part that it should get (Shazeer et
//              al. 2017; Fedus et al. 2021, arXiv 2101.03961, where t_c = 1/N). It is `balance` where all is
//              as it should be. Null experts need no balance among themselves: each counts as their mean
//              (Zeng et al. 2024, AdaMoE, arXiv 2406.13233). Gradients alone: it is no part of the loss's
//              value.
//   a bias     after each step the selection bias of a choice that got too little grows by bias_rate, that of
//              one that got too much falls by it (Wang et al. 2024, arXiv 2408.15664). It moves no weight,
//              so that it has no gradient to disturb.
//
// `null_share` says how many of the places null experts should get, and so how many experts a token wakes.
// `entropy` is the price of a token's undecidedness, which top-p routing needs: without it scores stay even,
// and every token wakes as many experts as it may (Huang et al. 2024, arXiv 2403.07652, eq. 6).
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/json_fields.h"
#include "mneme/model_config.h"
#include "model/layer_routing.h"
#include "train/tensor.h"

namespace mneme::train {

class Parameters;

/// How routers are held in balance, as a run config and a recipe say it.
struct BalanceConfig {
  double balance = 0.01;             // the price, in nats
  double entropy = 0;                // likewise, for each nat of a token's entropy
  double bias_rate = 1e-3;           // of a step, in layers with selection_bias
  std::optional<double> null_share;  // of the filled places; absent: every choice as much as every other
  bool operator==(const BalanceConfig&) const = default;
  /// Throws Error(invalid_argument) for unknown fields and values out of range.
  static BalanceConfig from_json(JsonFields fields);
  Json to_json() const;
};

/// The part of the filled places that a choice should get: of an expert, and of a null expert.
struct TargetShares {
  double expert = 0, null_expert = 0;
};
TargetShares target_shares(const FfnConfig& ffn, const std::optional<double>& null_share);

/// Counts what the routers of a model choose. Whole numbers but for the entropies. Not thread-safe.
class ExpertTally {
 public:
  ExpertTally() = default;
  explicit ExpertTally(const ModelConfig& config);
  /// Routes of layer `layer`: chosen int64 [rows, top_k] as in Route::expert, scores [rows, choices]. Rows
  /// are those of whole sequences of `positions`, of which the first `sink_tokens` are left out.
  void add(uint32_t layer, const Tensor& chosen, const Tensor& scores, int64_t positions,
           int64_t sink_tokens);
  void add(const ExpertTally& other);
  /// No layer is a mixture.
  bool none() const noexcept { return layers_.empty(); }
  /// Those that are, with what was counted.
  std::vector<LayerRouting> layers() const;
  /// Means over layers: experts that a token passes, the load's coefficient of variation; and the sum of
  /// starved experts.
  double mean_active() const;
  double variation() const;
  uint64_t starved() const;
  /// [{"layer", "load", "cv", "entropy", "starved", "active", "mean_active", "null_share",
  /// "score_entropy"}, ...], as `mneme experts` says it.
  OrderedJson report() const;
  /// All numbers in one tensor f64, to be added up over processes, and back. restore() throws
  /// Error(corrupt) for one of another length.
  Tensor numbers() const;
  void restore(const Tensor& numbers);

 private:
  std::vector<LayerRouting> layers_;  // score_entropy is the sum over tokens
};

/// What a pass does about experts beside running them.
struct ExpertOptions {
  double balance = 0, entropy = 0;   // prices: BalanceConfig's times this pass's share of the step
  std::optional<double> null_share;  // likewise
  ExpertTally* tally = nullptr;
};

/// The price of a pass's routes, differentiable in `scores` [rows, choices]; chosen int64 [rows, top_k].
Tensor routing_price(const FfnConfig& ffn, const Tensor& scores, const Tensor& chosen,
                     const ExpertOptions& options);

/// Moves the selection biases that require a gradient (though they get none) by what `step` counted.
void balance_biases(const ModelConfig& config, const Parameters& parameters, const ExpertTally& step,
                    const BalanceConfig& balance);

}  // namespace mneme::train
