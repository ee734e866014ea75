// Choosing neurons as arithmetic: against brute force, and with made-up losses instead of a model.
#include "eval/spike_search.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/fail.h"

namespace mneme::spike_search_test {
namespace {

/// Units whose errors grow with silence like those of real inputs, in different sizes and sensitivities.
std::vector<SpikeUnit> search_units(size_t count) {
  std::vector<SpikeUnit> units;
  for (size_t u = 0; u < count; ++u) {
    SpikeUnit unit{100.0 + 37.0 * static_cast<double>(u % 5), 0.01 * static_cast<double>(1 + u * 7 % 11), {}};
    std::vector<NeuronCandidate> all;
    for (int step = 0; step <= 20; ++step) {
      const double silent = 0.045 * step;
      all.push_back({8, static_cast<double>(step), silent, 0.01, 0.001 + std::pow(silent, 3)});
      all.push_back({4, static_cast<double>(step), silent, 0.0, 0.004 + std::pow(silent, 3)});
    }
    unit.candidates = useful_candidates(std::move(all));
    units.push_back(std::move(unit));
  }
  return units;
}

TEST(SpikeSearchTest, UselessCandidatesGo) {
  const auto kept = useful_candidates({{2, 0, 0.5, 0, 0.3},
                                       {3, 0, 0.2, 0, 0.1},
                                       {4, 0, 0.1, 0, 0.2},
                                       {5, 0, 0.6, 0.2, 0.4},
                                       {6, 0, 0.2, 0.1, 0.1}});
  ASSERT_EQ(kept.size(),
            2u);  // 4 loses more than 3 for less; 5 reads again what it saves; 6 is 3 and saves less
  EXPECT_EQ(kept[0].k, 3);
  EXPECT_EQ(kept[1].k, 2);
}

TEST(SpikeSearchTest, NoChoiceOfThatLossIsQuieterByMoreThanAStep) {
  const std::vector<SpikeUnit> units = search_units(3);
  for (const double loss : {0.0008, 0.003, 0.01, 0.03}) {
    const NeuronChoice found = choose_for_loss(units, loss);
    EXPECT_LE(predicted_loss(units, found), loss);
    double best = 0, step = 0;
    NeuronChoice choice(3);
    for (choice[0] = 0; choice[0] < units[0].candidates.size(); ++choice[0])
      for (choice[1] = 0; choice[1] < units[1].candidates.size(); ++choice[1])
        for (choice[2] = 0; choice[2] < units[2].candidates.size(); ++choice[2])
          if (predicted_loss(units, choice) <= loss) best = std::max(best, saved_bytes(units, choice));
    for (const SpikeUnit& unit : units) step = std::max(step, 0.05 * unit.bytes / (100 + 137 + 174));
    EXPECT_GE(saved_bytes(units, found), best - step) << loss;
    EXPECT_GT(best, 0);
  }
}

TEST(SpikeSearchTest, MoreLossNeverSavesLess) {
  const std::vector<SpikeUnit> units = search_units(40);
  double before = -1;
  for (double loss = 1e-4; loss < 4; loss *= 1.3) {
    const double saved = saved_bytes(units, choose_for_loss(units, loss));
    EXPECT_GE(saved, before) << loss;
    before = saved;
  }
  EXPECT_NEAR(before, 0.9, 1e-9);  // all that there is
  EXPECT_EQ(choose_for_loss(units, 0), NeuronChoice(40, 0));
}

TEST(SpikeSearchTest, SensitiveUnitsStayExact) {
  std::vector<SpikeUnit> units = search_units(2);
  units[1] = units[0];
  units[1].sensitivity *= 20;
  const NeuronChoice choice = choose_for_loss(units, 0.001);
  EXPECT_GT(units[0].candidates[choice[0]].silent, units[1].candidates[choice[1]].silent + 0.1);
}

TEST(SpikeSearchTest, TheMeasuredBudgetIsKeptAndNearlyUsed) {
  const std::vector<SpikeUnit> units = search_units(40);
  for (const double factor : {0.2, 0.7, 1.0, 3.0})  // by which the arithmetic is wrong
    for (const double power : {0.8, 1.0, 1.3}) {
      int asked = 0;
      const auto measure = [&](const NeuronChoice& choice) {
        ++asked;
        return factor *
               std::pow(predicted_loss(units, choice) - predicted_loss(units, NeuronChoice(40, 0)), power);
      };
      const BudgetResult result = fit_budget(units, {.budget = 0.02}, measure);
      EXPECT_LE(result.best.measured, 0.02);
      EXPECT_GE(result.best.measured, 0.9 * 0.02) << factor << " " << power;
      EXPECT_LE(asked, 9);
      EXPECT_EQ(result.curve.size(), static_cast<size_t>(asked));
      for (size_t i = 1; i < result.curve.size(); ++i)
        EXPECT_LE(result.curve[i - 1].predicted, result.curve[i].predicted);
      const BudgetResult again = fit_budget(units, {.budget = 0.02}, measure);
      EXPECT_EQ(result.best.choice, again.best.choice);
    }
}

TEST(SpikeSearchTest, ALossThatJumpsKeepsTheBudgetToo) {
  const std::vector<SpikeUnit> units = search_units(10);
  const auto measure = [&](const NeuronChoice& choice) {
    return saved_bytes(units, choice) > 0.3 ? 1.0 : -0.001;
  };
  const BudgetResult result = fit_budget(units, {.budget = 0.02}, measure);
  EXPECT_EQ(result.best.measured, -0.001);
  EXPECT_LE(saved_bytes(units, result.best.choice), 0.3);
  EXPECT_GT(saved_bytes(units, result.best.choice), 0.1);
}

TEST(SpikeSearchTest, EverythingSilentEndsTheSearch) {
  const std::vector<SpikeUnit> units = search_units(5);
  const BudgetResult result = fit_budget(units, {.budget = 10}, [](const NeuronChoice&) { return 0.0; });
  EXPECT_EQ(result.best.choice, choose_at_price(units, 0));
}

TEST(SpikeSearchTest, FurtherBudgetsExtendTheCurve) {
  const std::vector<SpikeUnit> units = search_units(20);
  const auto measure = [&](const NeuronChoice& choice) { return 0.5 * predicted_loss(units, choice); };
  const size_t without = fit_budget(units, {.budget = 0.02}, measure).curve.size();
  const BudgetResult result = fit_budget(units, {.budget = 0.02, .beyond = {0.05, 0.1}}, measure);
  ASSERT_EQ(result.curve.size(), without + 2);
  EXPECT_NEAR(result.curve.back().measured, 0.1, 0.02);
  EXPECT_LE(result.best.measured, 0.02);
}

TEST(SpikeSearchTest, BudgetsThatCannotBeMetSaySo) {
  const std::vector<SpikeUnit> units = search_units(2);
  const auto dear = [](const NeuronChoice&) { return 0.05; };
  try {
    fit_budget(units, {.budget = 0.02}, dear);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::limit);
    EXPECT_NE(std::string(error.what()).find("5.127 %"), std::string::npos) << error.what();
  }
  for (const double bad :
       {0.0, -1.0, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()})
    EXPECT_THROW(fit_budget(units, {.budget = bad}, dear), Error);
  EXPECT_THROW(fit_budget({}, {.budget = 0.02}, dear), Error);
  EXPECT_THROW(fit_budget(std::vector<SpikeUnit>(1), {.budget = 0.02}, dear), Error);
}

}  // namespace
}  // namespace mneme::spike_search_test
