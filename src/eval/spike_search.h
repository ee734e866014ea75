// Which neuron each projection gets, as arithmetic alone: the most silence for a given loss.
//
// A *unit* is what has one neuron: a projection, or several that read the same input. Its candidates are
// pairs of k and dead zone, each with the part of the inputs that it silences and with the error that it puts
// into the output. The loss of the model is taken as a sum over units, sensitivity times error. That is good
// for small errors, and all that a search needs: the best choice for a price is then every unit's own best,
//
//   argmax over candidates of   bytes * saved - price * sensitivity * error
//
// (one multiplier for all units; what a greedy search by gain over loss ends in, too), and prices order
// choices from quiet to exact. What a choice really costs is measured, and the loss that is asked of the
// arithmetic is corrected until the measured one meets the budget. No model is needed here;
// eval/spike_calibration.h has one.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace mneme {

struct NeuronCandidate {
  double k = 3, dead_zone = 0;
  double silent = 0;  // part of the inputs
  double extra = 0;   // columns that are read again for counts beyond int8, as part of the inputs
  double error = 0;   // of the output, relative and squared
  double saved() const { return silent - extra; }
};

struct SpikeUnit {
  double bytes = 0;        // of weights that its inputs read
  double sensitivity = 0;  // loss in nats for an error of 1
  std::vector<NeuronCandidate> candidates;
};

/// Keeps the candidates that no other one beats in both, in order of rising error and saving. The first is
/// the most exact one, whatever it saves.
std::vector<NeuronCandidate> useful_candidates(std::vector<NeuronCandidate> all);

/// A candidate for each unit, by index.
using NeuronChoice = std::vector<size_t>;

/// Every unit's best at a price in bytes per nat; between equals, the more exact one. Units need at least one
/// candidate each, in the order of useful_candidates().
NeuronChoice choose_at_price(std::span<const SpikeUnit> units, double price);
/// The quietest choice at one price whose predicted loss is at most `loss` (>= 0): more loss allowed never
/// saves less. Without one, the most exact choice.
NeuronChoice choose_for_loss(std::span<const SpikeUnit> units, double loss);

/// Nats that the arithmetic expects of a choice.
double predicted_loss(std::span<const SpikeUnit> units, const NeuronChoice& choice);
/// Bytes of weights that a choice leaves unread, as part of the bytes of all units.
double saved_bytes(std::span<const SpikeUnit> units, const NeuronChoice& choice);
double silent_bytes(std::span<const SpikeUnit> units, const NeuronChoice& choice);

struct MeasuredChoice {
  NeuronChoice choice;
  double predicted = 0, measured = 0;  // nats
};

struct BudgetSearch {
  double budget = 0;             // nats, > 0
  double close_enough = 0.97;    // of the budget: the search ends between this and the budget
  int measurements = 8;          // at most, besides that of the most exact choice
  std::vector<double> beyond{};  // more budgets, each measured once at the loss that should meet it
};

struct BudgetResult {
  MeasuredChoice best;                // the quietest of those measured within the budget
  std::vector<MeasuredChoice> curve;  // all that were measured, by rising predicted loss
};

/// Asks `measure` for the loss in nats that a choice really costs. The result depends on nothing but the
/// arguments. Throws Error: invalid_argument (no units, a budget that is not a positive number), limit (even
/// the most exact choice costs more than the budget: how much), and what `measure` throws.
BudgetResult fit_budget(std::span<const SpikeUnit> units, const BudgetSearch& search,
                        const std::function<double(const NeuronChoice&)>& measure);

}  // namespace mneme
