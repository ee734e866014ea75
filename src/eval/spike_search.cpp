#include "eval/spike_search.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/fail.h"

namespace mneme {
namespace {

constexpr int kPriceHalvings = 60;

template <class Figure>
double over_bytes(std::span<const SpikeUnit> units, const NeuronChoice& choice, Figure figure) {
  double sum = 0, bytes = 0;
  for (size_t u = 0; u < units.size(); ++u) {
    sum += units[u].bytes * figure(units[u].candidates[choice[u]]);
    bytes += units[u].bytes;
  }
  return bytes > 0 ? sum / bytes : 0;
}

/// A price at which every unit takes its most exact useful candidate: beyond every slope.
double highest_price(std::span<const SpikeUnit> units) {
  double most = 1;
  for (const SpikeUnit& unit : units)
    for (size_t c = 1; c < unit.candidates.size(); ++c) {
      const NeuronCandidate &a = unit.candidates[0], &b = unit.candidates[c];
      const double loss = unit.sensitivity * (b.error - a.error);
      if (loss > 0) most = std::max(most, unit.bytes * (b.saved() - a.saved()) / loss);
    }
  return 2 * most;
}

/// The loss to ask for next, so that the measured one lands just below the budget: by the ratio of the two so
/// far, and between the nearest ones on both sides once there are such.
class Aim {
 public:
  Aim(double budget, double close_enough)
      : budget_(budget), wanted_(budget * (1 + close_enough) / 2), next_(budget) {}

  double next() const { return next_; }
  void measured(double target, double loss) {
    (loss <= budget_ ? below_ : above_) = {target, loss};
    if (above_.target == 0)
      next_ = target * std::clamp(wanted_ / std::max(loss, 1e-12), 1.05, 8.0);
    else if (below_.target == 0)
      next_ = target * std::clamp(wanted_ / loss, 0.05, 0.9);
    else
      next_ = between();
  }

 private:
  struct Point {
    double target = 0, loss = 0;  // target 0: none yet
  };
  double between() const {
    const double low = std::log(below_.target), high = std::log(above_.target);
    double part = 0.5;
    if (below_.loss > 0 && above_.loss > below_.loss)
      part = std::log(wanted_ / below_.loss) / std::log(above_.loss / below_.loss);
    return std::exp(low + std::clamp(part, 0.1, 0.9) * (high - low));
  }

  double budget_, wanted_, next_;
  Point below_, above_;
};

}  // namespace

std::vector<NeuronCandidate> useful_candidates(std::vector<NeuronCandidate> all) {
  std::stable_sort(all.begin(), all.end(), [](const NeuronCandidate& a, const NeuronCandidate& b) {
    return a.error < b.error || (a.error == b.error && a.saved() > b.saved());
  });
  std::vector<NeuronCandidate> out;
  for (const NeuronCandidate& candidate : all)
    if (out.empty() || candidate.saved() > out.back().saved()) out.push_back(candidate);
  return out;
}

NeuronChoice choose_at_price(std::span<const SpikeUnit> units, double price) {
  NeuronChoice choice(units.size(), 0);
  for (size_t u = 0; u < units.size(); ++u) {
    double best = -std::numeric_limits<double>::infinity();
    for (size_t c = 0; c < units[u].candidates.size(); ++c) {
      const NeuronCandidate& candidate = units[u].candidates[c];
      const double worth =
          units[u].bytes * candidate.saved() - price * units[u].sensitivity * candidate.error;
      if (worth <= best) continue;
      best = worth;
      choice[u] = c;
    }
  }
  return choice;
}

NeuronChoice choose_for_loss(std::span<const SpikeUnit> units, double loss) {
  NeuronChoice best(units.size(), 0);
  NeuronChoice quietest = choose_at_price(units, 0);
  if (predicted_loss(units, quietest) <= loss) return quietest;
  double high = highest_price(units), low = high * 1e-18;  // logarithmic: prices span many decades
  for (int i = 0; i < kPriceHalvings; ++i) {
    const double price = std::sqrt(low * high);
    NeuronChoice choice = choose_at_price(units, price);
    if (predicted_loss(units, choice) <= loss) {
      high = price;
      best = std::move(choice);
    } else {
      low = price;
    }
  }
  return best;
}

double predicted_loss(std::span<const SpikeUnit> units, const NeuronChoice& choice) {
  double sum = 0;
  for (size_t u = 0; u < units.size(); ++u)
    sum += units[u].sensitivity * units[u].candidates[choice[u]].error;
  return sum;
}

double saved_bytes(std::span<const SpikeUnit> units, const NeuronChoice& choice) {
  return over_bytes(units, choice, [](const NeuronCandidate& c) { return c.saved(); });
}

double silent_bytes(std::span<const SpikeUnit> units, const NeuronChoice& choice) {
  return over_bytes(units, choice, [](const NeuronCandidate& c) { return c.silent; });
}

BudgetResult fit_budget(std::span<const SpikeUnit> units, const BudgetSearch& search,
                        const std::function<double(const NeuronChoice&)>& measure) {
  require(!units.empty(), ErrorCode::invalid_argument, "there are no projections to calibrate");
  require(std::isfinite(search.budget) && search.budget > 0, ErrorCode::invalid_argument,
          "the budget is {}, but must be a number above 0", search.budget);
  for (const SpikeUnit& unit : units)
    require(!unit.candidates.empty(), ErrorCode::invalid_argument, "a unit has no candidates");
  BudgetResult result;
  const auto try_choice = [&](NeuronChoice choice) {
    const double predicted = predicted_loss(units, choice), measured = measure(choice);
    result.curve.push_back({std::move(choice), predicted, measured});
    return measured;
  };
  const double least = try_choice(NeuronChoice(units.size(), 0));
  require(least <= search.budget, ErrorCode::limit,
          "the budget cannot be met: spikes without any dead zone raise the perplexity by {:.3f} % already, "
          "and {:.3f} % are allowed",
          100 * std::expm1(least), 100 * std::expm1(search.budget));
  const NeuronChoice quietest = choose_at_price(units, 0);
  Aim aim(search.budget, search.close_enough);
  for (int i = 0; i < search.measurements; ++i) {
    const double target = aim.next();
    NeuronChoice choice = choose_for_loss(units, target);
    const bool all = choice == quietest;
    if (std::ranges::count(result.curve, choice, &MeasuredChoice::choice) > 0)
      break;  // targets that differ less than choices do
    const double loss = try_choice(std::move(choice));
    const bool within = loss <= search.budget;
    if (within && (all || loss >= search.close_enough * search.budget)) break;
    aim.measured(target, loss);
  }
  for (const MeasuredChoice& point : result.curve)
    if (point.measured <= search.budget &&
        (result.best.choice.empty() ||
         saved_bytes(units, point.choice) > saved_bytes(units, result.best.choice)))
      result.best = point;
  // By how much the arithmetic is wrong, where that can be told.
  const MeasuredChoice& best = result.best;
  const double ratio = best.measured > search.budget / 4 ? best.predicted / best.measured : 1;
  for (const double budget : search.beyond)
    try_choice(choose_for_loss(units, budget * std::clamp(ratio, 0.1, 10.0)));
  std::stable_sort(
      result.curve.begin(), result.curve.end(),
      [](const MeasuredChoice& a, const MeasuredChoice& b) { return a.predicted < b.predicted; });
  return result;
}

}  // namespace mneme
