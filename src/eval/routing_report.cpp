#include "eval/routing_report.h"

#include <algorithm>
#include <cmath>

#include "core/fail.h"
#include "engine/session_impl.h"
#include "eval/moments.h"
#include "model/router.h"

namespace mneme {
namespace {

/// Counts choices as the threads of a pass show them. Each thread has counts of its own; the sums of
/// entropies are kept by position so that they do not depend on the threads either.
class RouteCounter final : public RouteObserver {
 public:
  explicit RouteCounter(const ModelImpl& model)
      : sink_tokens_(model.config.sink_tokens), threads_(static_cast<size_t>(model.pool->size())) {
    for (size_t i = 0; i < model.config.layers.size(); ++i) {
      const FfnConfig& ffn = model.config.layers[i].ffn;
      index_.push_back(layers_.size());
      if (!ffn.moe()) continue;
      LayerRouting layer{i, ffn.experts, ffn.null_experts, ffn.top_k, {}, {}, 0, 0};
      layer.chosen.resize(ffn.choices());
      layer.active.resize(size_t{ffn.top_k} + 1);
      layers_.push_back(std::move(layer));
    }
    for (auto& mine : threads_) mine = layers_;
    entropies_.resize(layers_.size());
  }

  bool empty() const { return layers_.empty(); }
  void open_window(size_t tokens) {
    for (auto& layer : entropies_) layer.assign(tokens, 0);
  }
  void close_window() {
    for (size_t l = 0; l < layers_.size(); ++l)
      for (const double entropy : entropies_[l]) layers_[l].score_entropy += entropy;
  }

  void see(size_t layer, int thread, int64_t position, std::span<const Route> routes,
           std::span<const float> scores) override {
    if (position < sink_tokens_) return;
    const size_t at = index_[layer];
    LayerRouting& mine = threads_[static_cast<size_t>(thread)][at];
    size_t active = 0;
    for (const Route& route : routes) {
      if (route.expert < 0) continue;
      ++mine.chosen[static_cast<size_t>(route.expert)];
      active += route.expert < static_cast<int32_t>(mine.experts) ? 1 : 0;
    }
    ++mine.active[active];
    ++mine.tokens;
    entropies_[at].at(static_cast<size_t>(position - sink_tokens_)) = even_entropy(scores);
  }

  std::vector<LayerRouting> layers() const {
    std::vector<LayerRouting> all = layers_;
    for (const auto& mine : threads_)
      for (size_t l = 0; l < all.size(); ++l) {
        for (size_t i = 0; i < all[l].chosen.size(); ++i) all[l].chosen[i] += mine[l].chosen[i];
        for (size_t i = 0; i < all[l].active.size(); ++i) all[l].active[i] += mine[l].active[i];
        all[l].tokens += mine[l].tokens;
      }
    for (LayerRouting& layer : all)
      if (layer.tokens > 0) layer.score_entropy /= static_cast<double>(layer.tokens);
    return all;
  }

 private:
  const int64_t sink_tokens_;
  std::vector<size_t> index_;  // [layer]: its place among the mixtures
  std::vector<LayerRouting> layers_;
  std::vector<std::vector<LayerRouting>> threads_;
  std::vector<std::vector<double>> entropies_;  // [mixture][position]
};

}  // namespace

double RoutingReport::mean_active() const {
  Moments moments;
  for (const LayerRouting& layer : layers) moments.add(layer.mean_active());
  return moments.mean();
}

RoutingReport routing_report(const std::shared_ptr<const Model>& model, std::span<const TokenId> ids,
                             const RoutingOptions& options, const SessionOptions& session) {
  RouteCounter counter(model->impl());
  require(!counter.empty(), ErrorCode::invalid_argument,
          "{} has no mixture of experts: every layer's feed-forward is dense", model->path());
  require(!ids.empty(), ErrorCode::invalid_argument, "the text is empty: there is nothing to route");
  require(options.ctx >= 1, ErrorCode::invalid_argument, "ctx is 0: a window needs at least 1 token");
  SessionOptions exact = session;
  exact.max_rollback = 0;
  for (size_t at = 0; at < ids.size(); at += options.ctx) {
    const auto piece = ids.subspan(at, std::min<size_t>(options.ctx, ids.size() - at));
    std::vector<TokenId> window(piece.begin(), piece.end());
    if (at > 0 && options.bos >= 0) window[0] = options.bos;
    Session reader(model, exact);
    reader.impl().routes = &counter;
    counter.open_window(window.size());
    AppendOptions append;
    append.cancel = options.cancel;
    append.progress = [&](uint64_t done, uint64_t) {
      if (options.progress) options.progress(at + done, ids.size());
    };
    reader.append(window, append);
    counter.close_window();
  }
  return {ids.size(), counter.layers()};
}

HeatMap routing_map(const RoutingReport& report, const std::string& name) {
  HeatMap map;
  map.title = fmt::format("Experts of {}", name);
  map.subtitle = fmt::format("{} tokens; load in % of the busiest expert of its layer", report.tokens);
  map.column_name = "expert";
  map.row_name = "layer";
  uint32_t most = 0;
  for (const LayerRouting& layer : report.layers) most = std::max(most, layer.experts);
  for (uint32_t e = 0; e < most; ++e) map.columns.push_back(std::to_string(e));
  for (const LayerRouting& layer : report.layers) {
    map.rows.push_back(std::to_string(layer.layer));
    std::vector<double> parts = layer.load();
    const double busiest = *std::max_element(parts.begin(), parts.end());
    for (double& part : parts) part = busiest > 0 ? part / busiest : 0;
    parts.resize(most, std::nan(""));
    map.scores.push_back(std::move(parts));
  }
  return map;
}

}  // namespace mneme
