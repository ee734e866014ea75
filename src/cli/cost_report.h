// What `mneme cost` says about one model at one context, as JSON and as text.
#pragma once
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/json.h"
#include "cost/decode_timer.h"
#include "cost/ratio.h"
#include "cost/roofline.h"

namespace mneme::cli {

/// The terms of R and where each comes from: "counted", "given", "measured: FILE", ...
struct SourcedRatio {
  SparsityRatio ratio;
  std::string alpha = "counted", m = "counted", a, k = "counted";
};

struct CostRates {
  double per_hour = 0, per_kwh = 0, watts = 0;  // 0: not given
};

struct CostPoint {
  std::vector<std::pair<std::string, double>> swept;  // what a sweep has set: key, value
  uint64_t context = 0, prompt = 0;
  std::string kv;
  std::optional<ModelShape> shape;  // none: R alone was asked for
  PassCost decode, reading;         // a token; the prompt
  uint64_t kv_bytes = 0, recurrent_bytes = 0;
  CountedRatio counted;
  SourcedRatio sourced;
  std::optional<double> popcount;  // of a report of spikes
  std::optional<PredictedTime> predicted, predicted_prompt, predicted_dense;
  std::optional<TimedRuns> measured, measured_prompt, measured_against;
  std::string figures;  // "measured in this run", "estimate: ...", or why there are none
  int threads = 0;
  CostRates rates;
  std::vector<std::string> notes;

  /// Seconds of a token: measured, else predicted.
  std::optional<double> token_seconds() const;
};

/// Price of a million tokens, decoded one at a time. Throws Error(invalid_argument) without a time.
struct CostPrice {
  std::optional<double> by_hour, by_energy, by_model;  // by_model: only the arithmetic of the energy model
};
CostPrice price_of(const CostPoint& point);
/// Joules of the arithmetic of a token: SpikingBrain's model (eval/spike_statistics.h).
double arithmetic_joules(const CostPoint& point);

/// What R counts and what it leaves out, one sentence.
extern const char* const kRatioLeavesOut;

Json to_json(const CostPoint& point);
/// One screen.
std::string describe(const CostPoint& point);
/// Rows of the table of a sweep, the first one the heading.
std::vector<std::vector<std::string>> sweep_rows(const std::vector<CostPoint>& points);

}  // namespace mneme::cli
