// The spikes that a text causes: a model reads it, and the neuron of model/spike_neuron.h is applied to what
// each of its projections reads. The pass itself stays what the model's activation makes it (float, int8,
// spike, ...), so any model can be looked at without being converted.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "eval/spike_statistics.h"
#include "mneme/session.h"
#include "model/spike_neuron.h"

namespace mneme {

struct SpikeReportOptions {
  /// For every projection; empty: the neuron that each one has, and for one that does not spike the default.
  std::optional<SpikeRule> rule = {};
  uint32_t ctx = 512;  // the text is read in windows of so many tokens, each by a fresh sequence
  TokenId bos = -1;    // replaces the first token of every window but the first, for models that are lost
                       // without; -1: none
  /// Keeps the inputs of some projections for the first tokens of the text.
  struct Recording {
    size_t layer = 0;
    std::vector<std::string> names = {};  // of projections; empty: all of the layer
    uint32_t tokens = 0;                  // at most a window
  };
  std::optional<Recording> record = {};
  const CancelToken* cancel = nullptr;
  std::function<void(uint64_t done, uint64_t total)> progress = {};  // tokens
};

/// What some projections of a layer read, token by token.
struct SpikeRecord {
  size_t layer = 0;
  std::vector<std::string> names;  // projections that read this
  SpikeRule rule;
  int64_t width = 0, tokens = 0;
  std::vector<float> inputs;      // [tokens, width]
  std::vector<int32_t> counts;    // [tokens, width]
  std::vector<float> thresholds;  // [tokens]
};

struct ProjectionSpikes {
  size_t layer = 0;
  std::string name;  // "q", "o", "gate", ...: model/projection_probe.h
  int64_t inputs = 0, outputs = 0;
  SpikeRule rule;
  std::shared_ptr<const SpikeHistogram> histogram;  // one for projections with the same input and neuron
  /// The part of the tokens for which a spiking pass takes the event-driven way when it decodes them one by
  /// one: enough inputs are silent (simd/spike_product.h), and the weights have a layout for it.
  double event_tokens = 0;
};

struct SpikeReport {
  uint64_t tokens = 0;
  std::vector<ProjectionSpikes> projections;  // in the order of a pass
  std::vector<SpikeRecord> records;           // one for every input asked for
  /// Mean of a figure over all projections, each with the weight of its multiplications.
  double mean(const std::function<double(const ProjectionSpikes&)>& figure) const;
  /// All inputs together, each once.
  SpikeHistogram histogram() const;
};

/// Throws Error: invalid_argument (no ids, ids outside the vocabulary, a rule or window out of range, a
/// recording of more tokens than there are), not_found (a layer or projection that the model does not have,
/// with what it has), limit (a window beyond the model's context), corrupt (an input with a NaN or an
/// infinity: where), cancelled.
SpikeReport spike_report(const std::shared_ptr<const Model>& model, std::span<const TokenId> ids,
                         const SpikeReportOptions& options, const SessionOptions& session = {});

}  // namespace mneme
