// Where the routers of a model send a text: which experts are chosen, how evenly, and how many a token wakes.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "eval/heat_map.h"
#include "mneme/session.h"

namespace mneme {

struct RoutingOptions {
  uint32_t ctx = 512;  // the text is read in windows of so many tokens, each by a fresh sequence
  TokenId bos = -1;    // replaces the first token of every window but the first; -1: none
  const CancelToken* cancel = nullptr;
  std::function<void(uint64_t done, uint64_t total)> progress = {};  // tokens
};

/// The choices of one layer's router. An expert is starved if it gets less than a tenth of its even share.
struct LayerRouting {
  size_t layer = 0;
  uint32_t experts = 0, null_experts = 0, top_k = 0;
  std::vector<uint64_t> chosen;  // [experts + null_experts]: tokens that chose it
  std::vector<uint64_t> active;  // [top_k + 1]: tokens that passed so many experts, null experts not counted
  double score_entropy = 0;      // mean over tokens of the entropy of their scores / ln(choices), 0 to 1
  uint64_t tokens = 0;

  /// The part of all passes through experts that went to each, [experts]; sums to 1 unless nothing passed
  /// any.
  std::vector<double> load() const;
  /// Standard deviation of the load over its mean: 0 if all experts work the same.
  double variation() const;
  /// Entropy of the load / ln(experts): 1 if all work the same, 0 if one does everything.
  double entropy() const;
  std::vector<uint32_t> starved() const;
  double mean_active() const;  // experts that a token passes
  double null_share() const;   // of the places that were filled
};

struct RoutingReport {
  uint64_t tokens = 0;
  std::vector<LayerRouting> layers;  // those that are mixtures
  double mean_active() const;        // over layers
};

/// Throws Error: invalid_argument (no ids, ids outside the vocabulary, a model without experts), limit (a
/// window beyond the model's context), corrupt (a router whose scores are not finite: where), cancelled.
RoutingReport routing_report(const std::shared_ptr<const Model>& model, std::span<const TokenId> ids,
                             const RoutingOptions& options, const SessionOptions& session = {});

/// Layers by experts: the load of each in parts of the busiest expert of its layer.
HeatMap routing_map(const RoutingReport& report, const std::string& name);

}  // namespace mneme
