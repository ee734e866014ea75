// The router beside a plain statement of what it should choose, in double precision and one rule at a time.
#include "model/router.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <set>

namespace mneme::router_test {
namespace {

FfnConfig moe_config(uint32_t experts, uint32_t top_k) {
  FfnConfig ffn;
  ffn.type = FfnType::moe;
  ffn.hidden = 32;
  ffn.experts = experts;
  ffn.top_k = top_k;
  return ffn;
}

std::vector<Route> choose(const FfnConfig& ffn, const std::vector<float>& logits,
                          const std::vector<float>& bias = {}) {
  RouterScratch scratch;
  std::vector<Route> out(ffn.top_k);
  EXPECT_EQ(choose_experts(ffn, logits.data(), bias.empty() ? nullptr : bias.data(), scratch, out.data()),
            -1);
  return out;
}

std::vector<int32_t> experts_of(const std::vector<Route>& routes) {
  std::vector<int32_t> out;
  for (const Route& route : routes) out.push_back(route.expert);
  return out;
}

std::vector<double> scores_of(const FfnConfig& ffn, const std::vector<float>& logits) {
  std::vector<double> scores;
  double sum = 0;
  for (const float x : logits) {
    scores.push_back(ffn.router == RouterScore::sigmoid ? 1 / (1 + std::exp(-double{x}))
                                                        : std::exp(double{x}));
    sum += scores.back();
  }
  if (ffn.router == RouterScore::softmax)
    for (double& s : scores) s /= sum;
  return scores;
}

/// Picks the best of what is left, again and again.
std::vector<Route> plain_choice(const FfnConfig& ffn, const std::vector<float>& logits,
                                const std::vector<float>& bias) {
  const std::vector<double> scores = scores_of(ffn, logits);
  std::vector<double> ranks = scores;
  for (size_t i = 0; i < bias.size(); ++i) ranks[i] += double{bias[i]};
  const size_t size = ffn.experts / ffn.groups;
  std::set<size_t> seen_groups;
  while (seen_groups.size() < ffn.top_groups) {
    size_t best = 0;
    double best_value = -1e30;
    for (size_t g = 0; g < ffn.groups; ++g) {
      std::vector<double> part(ranks.begin() + static_cast<int64_t>(g * size),
                               ranks.begin() + static_cast<int64_t>((g + 1) * size));
      std::sort(part.rbegin(), part.rend());
      const double value = ffn.group_score == GroupScore::max ? part[0] : part[0] + part[1];
      if (!seen_groups.contains(g) && value > best_value) {
        best = g;
        best_value = value;
      }
    }
    seen_groups.insert(best);
  }
  std::vector<size_t> chosen;
  double all = 0, held = 0;
  for (const double s : scores) all += s;
  while (chosen.size() < ffn.top_k && (ffn.top_p == 0 || held < ffn.top_p * all)) {
    int64_t best = -1;
    for (size_t i = 0; i < ranks.size(); ++i) {
      const bool taken = std::find(chosen.begin(), chosen.end(), i) != chosen.end();
      const bool hidden = ffn.groups > 1 && !seen_groups.contains(i / size);
      if (!taken && !hidden && (best < 0 || ranks[i] > ranks[static_cast<size_t>(best)]))
        best = static_cast<int64_t>(i);
    }
    chosen.push_back(static_cast<size_t>(best));
    held += scores[static_cast<size_t>(best)];
  }
  double sum = 0;
  for (const size_t i : chosen) sum += i < ffn.experts ? scores[i] : 0;
  std::vector<Route> out(ffn.top_k);
  for (size_t n = 0; n < chosen.size(); ++n) {
    const double score = chosen[n] < ffn.experts ? scores[chosen[n]] : 0;
    const double weight = ffn.scale * (ffn.renormalise && sum > 0 ? score / sum : score);
    out[n] = {static_cast<int32_t>(chosen[n]), static_cast<float>(weight)};
  }
  return out;
}

TEST(Router, EveryVariantEqualsThePlainChoice) {
  std::mt19937 rng(7);
  std::normal_distribution<float> normal(0, 1.5f);
  const auto pick = [&](uint32_t least, uint32_t most) {
    return std::uniform_int_distribution<uint32_t>(least, most)(rng);
  };
  for (int trial = 0; trial < 2000; ++trial) {
    FfnConfig ffn = moe_config(4 * pick(1, 8), 1);
    ffn.router = static_cast<RouterScore>(pick(0, 1));
    ffn.renormalise = pick(0, 1) == 1;
    ffn.scale = 0.5 + pick(0, 4);
    if (pick(0, 2) == 0) {
      ffn.groups = ffn.experts / 4;
      ffn.top_groups = pick(1, ffn.groups);
      ffn.group_score = static_cast<GroupScore>(pick(0, 1));
      ffn.top_k = pick(1, 4 * ffn.top_groups);
    } else {
      ffn.null_experts = pick(0, 1) * pick(1, 6);
      ffn.top_k = pick(1, ffn.choices());
    }
    if (pick(0, 2) == 0) ffn.top_p = 0.05 * pick(1, 19);
    std::vector<float> logits(ffn.choices()), bias;
    for (float& x : logits) x = normal(rng);
    if (pick(0, 1)) {
      ffn.selection_bias = true;
      for (size_t i = 0; i < logits.size(); ++i) bias.push_back(0.2f * normal(rng));
    }
    const auto got = choose(ffn, logits, bias), want = plain_choice(ffn, logits, bias);
    ASSERT_EQ(experts_of(got), experts_of(want)) << "trial " << trial;
    for (size_t n = 0; n < want.size(); ++n)
      ASSERT_NEAR(got[n].weight, want[n].weight, 2e-6 * ffn.scale) << "trial " << trial << ", place " << n;
  }
}

TEST(Router, TiesGoToTheLowestIndex) {
  EXPECT_EQ(experts_of(choose(moe_config(6, 3), std::vector<float>(6, 0.25f))),
            (std::vector<int32_t>{0, 1, 2}));
  EXPECT_EQ(experts_of(choose(moe_config(6, 3), {0, 1, 0, 1, 2, 1})), (std::vector<int32_t>{4, 1, 3}));
  FfnConfig grouped = moe_config(6, 2);
  grouped.groups = 3;
  EXPECT_EQ(experts_of(choose(grouped, std::vector<float>(6, 1.0f))), (std::vector<int32_t>{0, 1}));
}

TEST(Router, ABiasMovesTheChoiceAndNoWeight) {
  FfnConfig ffn = moe_config(3, 1);
  ffn.renormalise = false;
  ffn.selection_bias = true;
  const std::vector<float> logits{2, 1, 0};
  const auto plain = choose(ffn, logits), moved = choose(ffn, logits, {0, 0, 1});
  EXPECT_EQ(plain[0].expert, 0);
  EXPECT_EQ(moved[0].expert, 2);
  const double sum = std::exp(2.0) + std::exp(1.0) + 1.0;
  EXPECT_NEAR(plain[0].weight, std::exp(2.0) / sum, 1e-6);
  EXPECT_NEAR(moved[0].weight, 1.0 / sum, 1e-6);
}

TEST(Router, ExtremeLogitsStayFinite) {
  FfnConfig ffn = moe_config(4, 2);
  for (const RouterScore kind : {RouterScore::softmax, RouterScore::sigmoid}) {
    ffn.router = kind;
    for (const Route& route : choose(ffn, {3e38f, -3e38f, 0, 1})) EXPECT_TRUE(std::isfinite(route.weight));
    // sigmoids of these are all 0: no weight rather than 0 / 0
    for (const Route& route : choose(ffn, {-3e38f, -3e38f, -2e38f, -3e38f})) {
      EXPECT_TRUE(std::isfinite(route.weight));
      if (kind == RouterScore::sigmoid) {
        EXPECT_EQ(route.weight, 0);
      }
    }
  }
}

TEST(Router, NaNAndInfinityAreNamed) {
  const FfnConfig ffn = moe_config(4, 2);
  RouterScratch scratch;
  for (const float bad : {std::nanf(""), HUGE_VALF, -HUGE_VALF}) {
    std::vector<Route> out(2, Route{1, 1});
    const std::vector<float> logits{0, 1, bad, 3};
    EXPECT_EQ(choose_experts(ffn, logits.data(), nullptr, scratch, out.data()), 2);
    EXPECT_EQ(experts_of(out), (std::vector<int32_t>{-1, -1}));
  }
}

TEST(Routing, SortsPairsByExpertAndRow) {
  FfnConfig ffn = moe_config(4, 2);
  ffn.null_experts = 1;
  Routing routing;
  routing.reserve(4, ffn);
  const std::vector<Route> routes{{3, 1}, {1, 1}, {1, 1}, {4, 0}, {1, 1}, {-1, 0}, {4, 0}, {-1, 0}};
  std::copy(routes.begin(), routes.end(), routing.routes.begin());
  routing.sort(4, ffn);
  EXPECT_EQ(routing.used, (std::vector<int32_t>{1, 3}));
  EXPECT_EQ(routing.first, (std::vector<int64_t>{0, 0, 3, 3, 4}));
  EXPECT_EQ(routing.pairs(), 4);
  EXPECT_EQ(std::vector<int64_t>(routing.rows.begin(), routing.rows.begin() + 4),
            (std::vector<int64_t>{0, 1, 2, 0}));
  EXPECT_EQ(std::vector<int64_t>(routing.place.begin(), routing.place.begin() + 8),
            (std::vector<int64_t>{3, 0, 1, -1, 2, -1, -1, -1}));
}

TEST(Routing, AllRowsMayChooseOneExpert) {
  const FfnConfig ffn = moe_config(8, 1);
  Routing routing;
  routing.reserve(100, ffn);
  for (Route& route : routing.routes) route = {5, 1};
  routing.sort(100, ffn);
  EXPECT_EQ(routing.used, (std::vector<int32_t>{5}));
  EXPECT_EQ(routing.count(5), 100);
  for (int64_t row = 0; row < 100; ++row) EXPECT_EQ(routing.rows[static_cast<size_t>(row)], row);
}

}  // namespace
}  // namespace mneme::router_test
