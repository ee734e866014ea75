// Where the routers of a model send a text: which experts are chosen, how evenly, and how many a token wakes.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "eval/heat_map.h"
#include "mneme/session.h"
#include "model/layer_routing.h"

namespace mneme {

struct RoutingOptions {
  uint32_t ctx = 512;  // the text is read in windows of so many tokens, each by a fresh sequence
  TokenId bos = -1;    // replaces the first token of every window but the first; -1: none
  const CancelToken* cancel = nullptr;
  std::function<void(uint64_t done, uint64_t total)> progress = {};  // tokens
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
