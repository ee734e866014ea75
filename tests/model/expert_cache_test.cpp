// Which experts stay: slots, ties to what may leave, and hit rates beside an LRU of the same size.
#include "model/expert_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <list>
#include <numeric>
#include <vector>

#include "core/random.h"

namespace mneme::expert_cache_test {
namespace {

bool anyone(uint32_t) {
  return true;
}

TEST(ExpertCache, FillsFreeSlotsThenReplacesTheLeastWorth) {
  ExpertCache cache(5, 2, 8);
  int32_t left = 0;
  for (const uint32_t expert : {3u, 1u}) {
    cache.use(expert);
    ASSERT_GE(cache.insert(expert, anyone, left), 0);
    EXPECT_EQ(left, -1);
  }
  EXPECT_NE(cache.slot_of(3), cache.slot_of(1));
  cache.tick();
  cache.use(3);
  cache.use(4);
  const int32_t slot = cache.slot_of(1);
  EXPECT_EQ(cache.insert(4, anyone, left), slot);
  EXPECT_EQ(left, 1);
  EXPECT_EQ(cache.slot_of(1), -1);
  EXPECT_EQ(cache.expert_in(static_cast<uint32_t>(slot)), 4);
}

TEST(ExpertCache, WhoMayNotLeaveStays) {
  ExpertCache cache(4, 2);
  int32_t left = 0;
  for (const uint32_t expert : {0u, 1u}) {
    cache.use(expert);
    cache.insert(expert, anyone, left);
  }
  const int32_t kept = cache.slot_of(0);
  EXPECT_EQ(cache.insert(
                2, [](uint32_t) { return false; }, left),
            -1);
  EXPECT_EQ(left, -1);
  EXPECT_EQ(cache.slot_of(2), -1);
  EXPECT_GE(cache.insert(
                2, [&](uint32_t slot) { return static_cast<int32_t>(slot) != kept; }, left),
            0);
  EXPECT_EQ(left, 1);
  cache.erase(2);
  EXPECT_EQ(cache.slot_of(2), -1);
  EXPECT_GE(cache.insert(3, anyone, left), 0);
  EXPECT_EQ(left, -1);  // the erased one's slot was free
}

TEST(ExpertCache, AnOldFavouriteIsForgottenAfterSomeHalfLives) {
  ExpertCache cache(3, 2, 4);
  int32_t left = 0;
  for (int i = 0; i < 100; ++i) {
    cache.tick();
    cache.use(0);
  }
  cache.insert(0, anyone, left);
  cache.use(1);
  cache.insert(1, anyone, left);
  // Worth after t tokens of nothing: of the first about 1 / (1 - 2^(-1/4)) = 6.3 halved every 4 tokens.
  for (int i = 0; i < 8; ++i) cache.tick();
  cache.use(1);
  cache.use(2);  // 6.3 / 4 > 1: expert 0 is still worth more than expert 2, but 1 is worth 1.25
  cache.insert(2, anyone, left);
  EXPECT_EQ(left, 1);
  for (int i = 0; i < 8; ++i) cache.tick();
  cache.use(1);  // 0 is down to 0.39, 2 to 0.25
  cache.insert(1, anyone, left);
  EXPECT_EQ(left, 2);
  for (int i = 0; i < 8; ++i) cache.tick();
  cache.use(1);
  cache.use(2);
  cache.insert(2, anyone, left);
  EXPECT_EQ(left, 0);
}

// Hits of a trace of single experts.
double lrfu_rate(const std::vector<uint32_t>& trace, uint32_t experts, uint32_t slots) {
  ExpertCache cache(experts, slots);
  int hits = 0;
  int32_t left = 0;
  for (const uint32_t expert : trace) {
    cache.tick();
    cache.use(expert);
    if (cache.slot_of(expert) >= 0)
      ++hits;
    else
      cache.insert(expert, anyone, left);
  }
  return hits / static_cast<double>(trace.size());
}

double lru_rate(const std::vector<uint32_t>& trace, uint32_t slots) {
  std::list<uint32_t> order;
  int hits = 0;
  for (const uint32_t expert : trace) {
    const auto at = std::find(order.begin(), order.end(), expert);
    hits += at != order.end();
    if (at != order.end())
      order.erase(at);
    else if (order.size() == slots)
      order.pop_back();
    order.push_front(expert);
  }
  return hits / static_cast<double>(trace.size());
}

TEST(ExpertCache, HitsAtLeastAsOftenAsLruOnZipfTraces) {
  constexpr uint32_t kExperts = 64, kSlots = 32;
  for (const double exponent : {0.0, 0.5, 1.0}) {
    std::vector<double> share(kExperts);
    for (uint32_t e = 0; e < kExperts; ++e) share[e] = std::pow(e + 1.0, -exponent);
    std::partial_sum(share.begin(), share.end(), share.begin());
    Pcg64 random(7);
    std::vector<uint32_t> trace(40000);
    for (uint32_t& expert : trace)
      expert = static_cast<uint32_t>(
          std::upper_bound(share.begin(), share.end(), random.uniform() * share.back()) - share.begin());
    const double ours = lrfu_rate(trace, kExperts, kSlots), lru = lru_rate(trace, kSlots);
    EXPECT_GT(ours, lru + (exponent > 0 ? 0.02 : -0.01)) << "exponent " << exponent;
  }
}

}  // namespace
}  // namespace mneme::expert_cache_test
