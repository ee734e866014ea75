// The router of a mixture of experts: which experts a token passes, and with what weights. One row of logits
// [choices] in, at most top_k routes out; everything is float, and no result depends on threads or batches.
//
//   scores   softmax over all choices, or a sigmoid of each
//   ranks    score, plus the selection bias if there is one (it moves the choice, never a weight:
//            auxiliary-loss-free balancing, Wang et al. 2024, arXiv 2408.15664)
//   groups   with more than one: groups of consecutive experts are ranked by their best rank, or by the sum
//            of their best two; experts outside the top_groups cannot be chosen (DeepSeek-V2 and V3)
//   choice   the top_k highest ranks; equal ranks go to the lower index. With top_p the list ends as soon as
//            its scores hold that share of the sum of all scores (Huang et al. 2024, arXiv 2403.07652)
//   weights  the scores of the chosen; with renormalise divided by their sum; times scale
//
// Choices behind the experts are null experts: one that is chosen takes a place and adds nothing, and the
// others are renormalised among themselves (Zeng et al. 2024, AdaMoE, arXiv 2406.13233).
#pragma once
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "mneme/model_config.h"

namespace mneme {

/// One place of a token's list. `expert` is below FfnConfig::experts, or a null expert above, whose weight is
/// 0; -1: top_p ended the list before.
struct Route {
  int32_t expert = -1;
  float weight = 0;
  bool operator==(const Route&) const = default;
};

/// Buffers of one thread, grown on first use.
struct RouterScratch {
  std::vector<float> scores, ranks;  // [choices]; scores are those of the last call
  std::vector<int32_t> order;        // [choices]
  std::vector<std::pair<float, uint32_t>> groups;
};

/// Fills out [top_k], best rank first. `logits` [choices]; `bias` [choices], or null without selection_bias.
/// Returns -1, or the first choice whose logit is NaN or infinite; then every place of `out` is empty. The
/// config must be valid and of type moe.
int64_t choose_experts(const FfnConfig& ffn, const float* logits, const float* bias, RouterScratch& scratch,
                       Route* out);

/// The routes of a choice that is made already: `chosen` [top_k] as in Route::expert, -1 behind the last.
/// `scores` [choices] are those of RouterScratch. Fills out [top_k].
void weigh_experts(const FfnConfig& ffn, const float* scores, const int32_t* chosen, Route* out);

/// The routes of the rows of a pass, and the (row, place) pairs sorted by expert, so that each expert has one
/// run of rows. Grown on first use of a size.
struct Routing {
  std::vector<Route> routes;   // [rows, top_k]
  std::vector<int64_t> first;  // [experts + 1]: an expert's pairs in `rows`
  std::vector<int64_t> rows;   // [pairs]: the row of each pair; within an expert ascending
  std::vector<int64_t> place;  // [rows, top_k]: the pair of a route, or -1 if it has none
  std::vector<int32_t> used;   // experts that have a pair, ascending

  void reserve(int64_t rows, const FfnConfig& ffn);
  /// Sorts the first `count` rows of `routes`.
  void sort(int64_t count, const FfnConfig& ffn);
  int64_t pairs() const { return first.empty() ? 0 : first.back(); }
  int64_t count(int32_t expert) const {
    return first[static_cast<size_t>(expert) + 1] - first[static_cast<size_t>(expert)];
  }
};

/// Sees what routers choose: for reports and tests. A sequence without an observer pays one null check a row
/// and layer.
class RouteObserver {
 public:
  virtual ~RouteObserver() = default;
  /// The routes [top_k] and the scores [choices] of the token at `position` of its sequence (sink tokens of
  /// the model count) in layer `layer`. Called from the threads of a pass at once, each row and layer once in
  /// a pass; `thread` is below Model::threads(). What it throws ends the pass and comes out of
  /// Session::append().
  virtual void see(size_t layer, int thread, int64_t position, std::span<const Route> routes,
                   std::span<const float> scores) = 0;
  /// The choice [top_k] that this token makes instead of its own, or null: for tests that compare the engine
  /// with the trainer, where a rounding error may turn a near tie. Asked by every thread, before see().
  virtual const int32_t* forced(size_t layer, int64_t position) {
    (void)layer, (void)position;
    return nullptr;
  }
};

}  // namespace mneme
