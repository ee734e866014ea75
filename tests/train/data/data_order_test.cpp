// The order of training sequences: a permutation an epoch, a pure function of its number.
#include "train/data/data_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <numeric>

#include "mneme/error.h"
#include "scratch.h"
#include "train/data/byte_tokenizer.h"
#include "train/data/shard_build.h"

namespace mneme::train::data_order_test {
namespace {

TEST(Permutation, IsABijectionForEverySize) {
  for (uint64_t size = 1; size <= 300; ++size) {
    const Permutation permutation(size, size * 31);
    std::vector<uint64_t> seen(size);
    for (uint64_t i = 0; i < size; ++i) {
      ASSERT_LT(permutation(i), size);
      seen[permutation(i)]++;
    }
    EXPECT_EQ(std::count(seen.begin(), seen.end(), 1u), static_cast<int64_t>(size)) << size;
  }
  const Permutation large(uint64_t{1} << 40, 5);
  EXPECT_LT(large((uint64_t{1} << 40) - 1), uint64_t{1} << 40);
}

TEST(Permutation, LooksLikeChance) {
  // Of a random permutation: about one fixed point, and a mean distance of a third of the size between where
  // neighbours go.
  constexpr uint64_t kSize = 10007;
  double fixed = 0, distance = 0;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const Permutation permutation(kSize, seed);
    for (uint64_t i = 0; i + 1 < kSize; ++i) {
      fixed += permutation(i) == i ? 1 : 0;
      distance += std::abs(static_cast<double>(permutation(i)) - static_cast<double>(permutation(i + 1)));
    }
  }
  EXPECT_NEAR(fixed / 20, 1, 0.8);
  EXPECT_NEAR(distance / (20.0 * kSize * kSize), 1.0 / 3, 0.01);
}

class Order : public ::testing::Test {
 protected:
  void SetUp() override {
    {
      std::ofstream file(folder_ / "text.jsonl");
      for (int i = 0; i < 400; ++i)
        file << R"({"text": "the inn )" << i * 131 << std::string(i % 17, 'q') << "\"}\n";
    }
    // Small shards, so that windows cross their borders.
    build_shards({(folder_ / "text.jsonl").string()}, *byte_tokenizer(), folder_ / "shards",
                 {.shard_tokens = 4096});
  }
  ShardSet set() const { return ShardSet::open(folder_ / "shards"); }
  ScratchFolder folder_;
};

TEST_F(Order, EpochReadsEveryWindowOnce) {
  const DataOrder order(set(), 16, 3);
  ASSERT_EQ(order.windows(), (set().tokens() - 1) / 16);
  for (uint64_t epoch : {0u, 1u, 9u}) {
    std::vector<uint64_t> windows;
    for (uint64_t i = 0; i < order.windows(); ++i)
      windows.push_back(order.window(epoch * order.windows() + i));
    std::sort(windows.begin(), windows.end());
    std::vector<uint64_t> all(order.windows());
    std::iota(all.begin(), all.end(), 0);
    EXPECT_EQ(windows, all);
  }
}

TEST_F(Order, DiffersBetweenEpochsAndSeeds) {
  const DataOrder order(set(), 16, 3), again(set(), 16, 3), other(set(), 16, 4);
  const auto visit = [](const DataOrder& from, uint64_t epoch) {
    std::vector<uint64_t> out;
    for (uint64_t i = 0; i < from.windows(); ++i) out.push_back(from.window(epoch * from.windows() + i));
    return out;
  };
  EXPECT_EQ(visit(order, 0), visit(again, 0));
  EXPECT_NE(visit(order, 0), visit(order, 1));
  EXPECT_NE(visit(order, 1), visit(order, 2));
  EXPECT_NE(visit(order, 0), visit(other, 0));
  EXPECT_NE(visit(order, 1), visit(other, 0)) << "neighbouring seeds must not be neighbouring epochs";
  EXPECT_FALSE(std::is_sorted(visit(order, 0).begin(), visit(order, 0).end()));
}

TEST_F(Order, SequencesAreWindowsOfTheStream) {
  const ShardSet shards = set();
  std::vector<int64_t> stream(shards.tokens()), got(17);
  shards.read(0, stream);
  for (const auto kind : {DataOrder::Order::shuffled, DataOrder::Order::sequential}) {
    const DataOrder order(shards, 16, 3, kind);
    for (uint64_t n = 0; n < 2 * order.windows(); ++n) {
      order.fill(n, got);
      const auto begin = stream.begin() + static_cast<int64_t>(order.window(n) * 16);
      ASSERT_TRUE(std::equal(got.begin(), got.end(), begin)) << n;
      if (kind == DataOrder::Order::sequential) {
        ASSERT_EQ(order.window(n), n % order.windows());
      }
    }
  }
}

// What `world` processes read in a step of `batch` sequences is what one process reads, for any world.
TEST_F(Order, IsTheSameForAnyNumberOfProcesses) {
  const DataOrder order(set(), 16, 3);
  const auto read = [&](uint64_t world) {
    std::vector<std::vector<int64_t>> by_number(24);
    for (uint64_t rank = 0; rank < world; ++rank) {
      const DataOrder own(set(), 16, 3);  // as its process would make it
      for (uint64_t n = rank; n < by_number.size(); n += world) {
        by_number[n].resize(17);
        own.fill(n, by_number[n]);
      }
    }
    return by_number;
  };
  EXPECT_EQ(read(1), read(2));
  EXPECT_EQ(read(1), read(4));
}

TEST_F(Order, NeedsAtLeastOneWindow) {
  const auto tokens = static_cast<uint32_t>(set().tokens());
  EXPECT_EQ(DataOrder(set(), tokens - 1, 1).windows(), 1u);
  EXPECT_THROW(DataOrder(set(), tokens, 1), Error);
  EXPECT_THROW(DataOrder(set(), 0, 1), Error);
  std::vector<int64_t> wrong(16);
  EXPECT_THROW(DataOrder(set(), 16, 1).fill(0, wrong), Error);
}

}  // namespace
}  // namespace mneme::train::data_order_test
