#include "memory/store/row_cache.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <thread>

#include "core/random.h"
#include "memory/store/counters.h"
#include "mneme/error.h"

namespace mneme::row_cache_test {
namespace {

constexpr uint32_t kRowBytes = 24;

void make_row(uint64_t id, std::byte* out) {
  for (uint32_t i = 0; i < kRowBytes; ++i)
    out[i] = static_cast<std::byte>((id * 0x9E3779B97F4A7C15ull) >> (i % 56));
}

// get(), and put() after a miss; checks what a hit gives.
bool visit(RowCache& cache, uint64_t id) {
  std::byte row[kRowBytes], expected[kRowBytes];
  make_row(id, expected);
  if (cache.get(id, row)) {
    EXPECT_EQ(std::memcmp(row, expected, kRowBytes), 0) << id;
    return true;
  }
  cache.put(id, expected);
  return false;
}

TEST(RowCache, HoldsUpToItsCapacityAndStaysWithinItsBytes) {
  for (const uint64_t bytes : {100u, 1000u, 10'000u, 1'000'000u}) {
    RowCache cache(bytes, kRowBytes, 1'000'000);
    for (uint64_t id = 0; id < 3 * cache.capacity() + 10; ++id) visit(cache, id);
    EXPECT_LE(cache.rows(), cache.capacity());
    EXPECT_GE(cache.rows(), cache.capacity() * 9 / 10);
    EXPECT_LE(cache.bytes(), bytes);
  }
  EXPECT_THROW(RowCache(10, kRowBytes, 100), Error);
  EXPECT_EQ(RowCache(1'000'000, kRowBytes, 7).capacity(), 7u);
}

TEST(RowCache, EveryHitIsTheRightRow) {
  RowCache cache(50'000, kRowBytes, 1'000'000);
  Pcg64 random(1);
  for (int i = 0; i < 300'000; ++i) {
    // Squared, so that some rows are much more frequent than others.
    const double u = random.uniform();
    visit(cache, static_cast<uint64_t>(u * u * 5000));
  }
}

// A working set that fits survives a scan of rows that come once; that is what the policy is for.
TEST(RowCache, AScanDoesNotPushOutWhatIsUsed) {
  RowCache cache(RowCache::bytes_per_row(kRowBytes) * 4000, kRowBytes, 1'000'000);
  const uint64_t hot = cache.capacity() / 2;
  for (int round = 0; round < 4; ++round)
    for (uint64_t id = 0; id < hot; ++id) visit(cache, id);
  for (uint64_t id = 0; id < 20 * cache.capacity(); ++id) visit(cache, 1'000'000 + id);
  uint64_t kept = 0;
  for (uint64_t id = 0; id < hot; ++id) kept += visit(cache, id);
  EXPECT_GT(kept, hot * 9 / 10) << "of " << hot;
}

TEST(RowCache, IsNearTheBestPossibleOnZipf) {
  constexpr uint64_t kRows = 100'000;
  RowCache cache(RowCache::bytes_per_row(kRowBytes) * 10'000, kRowBytes, kRows);
  std::vector<double> cumulative(kRows);
  double sum = 0;
  for (uint64_t i = 0; i < kRows; ++i) cumulative[i] = sum += 1.0 / static_cast<double>(i + 1);
  Pcg64 random(2);
  const auto draw = [&] {
    const double u = random.uniform() * sum;
    return static_cast<uint64_t>(std::lower_bound(cumulative.begin(), cumulative.end(), u) -
                                 cumulative.begin());
  };
  for (int i = 0; i < 300'000; ++i) visit(cache, draw());
  int hits = 0;
  for (int i = 0; i < 100'000; ++i) hits += visit(cache, draw());
  // Keeping the 10,000 most frequent rows for ever would hit with their share of all visits.
  const double best = cumulative[cache.capacity() - 1] / sum;
  EXPECT_GT(hits / 100'000.0, best - 0.05);
  EXPECT_LT(hits / 100'000.0, best + 0.01);
}

TEST(RowCache, ManyThreads) {
  RowCache cache(100'000, kRowBytes, 1'000'000);
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      Pcg64 random(t);
      for (int i = 0; i < 20'000; ++i) visit(cache, random.below(3000));
    });
  for (auto& thread : threads) thread.join();
  EXPECT_LE(cache.rows(), cache.capacity());
}

TEST(LatencyHistogram, PercentilesAreExactToASixteenth) {
  LatencyHistogram histogram;
  EXPECT_EQ(histogram.read().count, 0u);
  for (uint64_t i = 1; i <= 100'000; ++i) histogram.add(i * 10);
  const Latency latency = histogram.read();
  EXPECT_EQ(latency.count, 100'000u);
  EXPECT_NEAR(latency.p50, 500, 500 / 15.0);
  EXPECT_NEAR(latency.p90, 900, 900 / 15.0);
  EXPECT_NEAR(latency.p99, 990, 990 / 15.0);
  EXPECT_EQ(latency.max, 1000);
  histogram.reset();
  histogram.add(3);
  EXPECT_EQ(histogram.read().p99, 0.003);
  histogram.add(~uint64_t{0});
  EXPECT_EQ(histogram.read().count, 2u);
}

}  // namespace
}  // namespace mneme::row_cache_test
