// Calibrated sparsity: k and dead zone of every projection, so that as many bytes of weights as possible are
// left unread at a given loss of perplexity. The idea of thresholds by layer within a budget is that of TEAL
// (arXiv 2408.14690), carried to spike counts; how it is done here:
//
//   1. The model as it is reads the text: its perplexity, and for every projection how large its inputs are
//      (eval/input_sizes.h), from which silence and output error of any neuron follow.
//   2. With exact neurons everywhere but one (large k, no dead zone), the cross-entropy against the exact
//      distributions over the next token says how sensitive the model is to errors in that one. Further
//      rounds ask the same at the setting found so far, one neuron at a time made exact.
//   3. Of all choices with the same predicted loss the quietest one is arithmetic (eval/spike_search.h); how
//      much loss to allow is corrected by measured perplexities of the whole text until the budget is met.
//
// Nothing is random, and no result depends on the number of threads.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "eval/spike_search.h"
#include "mneme/session.h"

namespace mneme {

struct CalibrationOptions {
  double budget = 0.02;          // more perplexity, as part of what it was; above 0, at most 10
  uint32_t ctx = 512;            // tokens of a window, at least 4
  uint64_t probe_tokens = 1024;  // of the text for each sensitivity, rounded up to windows
  uint32_t rounds = 1;           // of sensitivities, 1 to 8
  bool share = true;             // projections with the same input have one neuron
  std::vector<Projection> projections{Projection::q,    Projection::k,  Projection::v,   Projection::o,
                                      Projection::gate, Projection::up, Projection::down};
  std::vector<double> ks{4, 6, 8, 12, 16, 24, 32};  // to choose from
  std::vector<double> curve{};  // further budgets, measured once each, to see what more loss would buy
  TokenId bos = -1;             // replaces the first token of every window; -1: none
  const CancelToken* cancel = nullptr;
  /// `what` is "reading", "probing" or "fitting".
  std::function<void(const char* what, uint64_t done, uint64_t total)> progress = {};
};

/// Projections with one neuron.
struct CalibratedUnit {
  size_t layer = 0;
  std::vector<Projection> projections;
  double bytes = 0;
  double sensitivity = 0;  // nats for a relative squared output error of 1
  NeuronCandidate neuron;
};

/// A measured point of perplexity against silence. `silent`: bytes of weights of calibrated projections whose
/// inputs are silent; `model_silent`: of all bytes that a token reads.
struct SilencePoint {
  double silent = 0, model_silent = 0, ppl = 0, more = 0;  // more: ppl / that of the model as it was - 1
};

struct Calibration {
  std::vector<ActivationPolicy> layers;  // of the model: its own, with neurons where they were calibrated
  std::vector<CalibratedUnit> units;
  double ppl_before = 0, ppl_after = 0;  // of the text it was calibrated on
  uint64_t scored = 0;                   // tokens
  std::vector<SilencePoint> curve;       // by rising predicted loss; the first one without dead zones
};

/// Calibrates the model at `path` on the text `ids`. `load.activation` must be empty. Throws Error:
/// invalid_argument (an option out of range, a text of less than two windows, no projection chosen),
/// unsupported (weights that cannot be skipped, a model that spikes already: which and what to do), limit
/// (the budget cannot be met; ctx beyond the context), corrupt (inputs with NaN), cancelled, and what loading
/// throws.
Calibration calibrate_spikes(const std::string& path, const LoadOptions& load, std::span<const TokenId> ids,
                             const CalibrationOptions& options, const SessionOptions& session = {});

}  // namespace mneme
