#include "simd/block_scores.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "core/huge_buffer.h"
#include "every_isa.h"

namespace mneme::block_scores_test {
namespace {

// A cache of one group of layers filled with random keys, its pages somewhere inside larger blocks.
struct Cache {
  Cache(KvFormat format, int64_t kv_heads, int64_t head_dim, int64_t positions)
      : geometry{format, kv_heads, head_dim},
        block_bytes(offset + geometry.page_bytes()),
        memory(static_cast<uint64_t>((positions + kPagePositions - 1) / kPagePositions * block_bytes)) {
    std::mt19937 rng(static_cast<uint32_t>(head_dim));
    std::normal_distribution<float> normal;
    std::vector<float> k(static_cast<size_t>(head_dim)), v(k.size());
    for (int64_t p = 0; p < positions; ++p) {
      std::byte* block = memory.data() + p / kPagePositions * block_bytes;
      if (p % kPagePositions == 0) pages.push_back(block);
      for (int64_t h = 0; h < kv_heads; ++h) {
        for (auto& x : k) x = normal(rng);
        for (auto& x : v) x = normal(rng);
        store_kv(geometry, block + offset, h, p % kPagePositions, k.data(), v.data());
      }
    }
  }
  KeyRange range(int64_t head, int64_t begin, int64_t keys) const {
    return {geometry, head, pages.data(), offset, begin, keys};
  }

  static constexpr int64_t offset = 192;
  KvGeometry geometry;
  int64_t block_bytes;
  HugeBuffer memory;
  std::vector<const std::byte*> pages;
};

using BlockScores = OnEveryIsa;

constexpr std::pair<int64_t, int64_t> kRanges[] = {{0, 64}, {64, 64}, {192, 192}, {256, 256}, {64, 1024}};

TEST_P(BlockScores, MeanEqualsTheSpecificationInEveryCacheFormat) {
  for (const KvFormat format : {KvFormat::f32, KvFormat::f16, KvFormat::int8}) {
    for (const int64_t head_dim : {8, 16, 20, 64, 80, 128, 256}) {
      const Cache cache(format, 3, head_dim, 1088);
      for (const auto& [begin, keys] : kRanges) {
        const int64_t lane = begin / 64 % kTileBlocks;
        std::vector<float> tile(static_cast<size_t>(tile_values(cache.geometry)), -7.0f), scratch;
        const KeyRange range = cache.range(1, begin, keys);
        block_mean(range, scratch, tile.data() + tile_head_values(cache.geometry), lane);
        std::vector<double> expected(static_cast<size_t>(cache.geometry.padded_dim()), 0.0);
        block_mean_plain(range, expected.data());
        for (size_t i = 0; i < tile.size(); ++i) {
          const auto at = static_cast<int64_t>(i) - tile_head_values(cache.geometry);
          const bool written = at >= 0 && at < tile_head_values(cache.geometry) && at % kTileBlocks == lane;
          if (!written) {
            ASSERT_EQ(tile[i], -7.0f) << "a value that is not the mean's was touched: " << i;
            continue;
          }
          ASSERT_NEAR(tile[i], expected[static_cast<size_t>(at / kTileBlocks)], 2e-6)
              << "dim " << at / kTileBlocks << " of " << head_dim << ", keys " << begin << "+" << keys;
        }
      }
    }
  }
}

TEST_P(BlockScores, ScoresEqualTheSpecificationAndDoNotDependOnTheirCompany) {
  std::mt19937 rng(7);
  std::normal_distribution<float> normal;
  for (const int64_t head_dim : {16, 20, 64, 128}) {
    const KvGeometry g{KvFormat::f16, 2, head_dim};
    const int64_t dim = g.padded_dim();
    for (const int64_t blocks : {1, 15, 16, 17, 50}) {
      const int64_t tiles = (blocks + kTileBlocks - 1) / kTileBlocks, stride = tiles * kTileBlocks;
      std::vector<std::vector<float>> memory;
      std::vector<const float*> list;
      for (int64_t t = 0; t < tiles; ++t) {
        auto& tile = memory.emplace_back(static_cast<size_t>(tile_values(g)));
        for (auto& x : tile) x = normal(rng);
      }
      for (const auto& tile : memory) list.push_back(tile.data());
      const int64_t queries = 13, offset = tile_head_values(g);
      std::vector<float> q(static_cast<size_t>(queries * dim));
      for (auto& x : q) x = normal(rng);
      std::vector<float> scores(static_cast<size_t>(queries * stride)), alone(static_cast<size_t>(stride));
      block_scores(q.data(), queries, dim, list.data(), offset, blocks, scores.data(), stride);
      for (int64_t i = 0; i < queries; ++i) {
        std::vector<double> expected(static_cast<size_t>(blocks));
        block_scores_plain(q.data() + i * dim, dim, list.data(), offset, blocks, expected.data());
        block_scores(q.data() + i * dim, 1, dim, list.data(), offset, blocks, alone.data(), stride);
        for (int64_t b = 0; b < blocks; ++b) {
          const float score = scores[static_cast<size_t>(i * stride + b)];
          ASSERT_NEAR(score, expected[static_cast<size_t>(b)], 1e-5 * std::sqrt(static_cast<double>(dim)));
          ASSERT_EQ(score, alone[static_cast<size_t>(b)]);
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, BlockScores,
                         testing::ValuesIn(supported_isas().begin(), supported_isas().end()), isa_name);

std::vector<uint32_t> top(const std::vector<float>& scores, int64_t k) {
  std::vector<uint64_t> scratch;
  std::vector<uint32_t> out{99};  // what is there already stays
  top_blocks(scores.data(), static_cast<int64_t>(scores.size()), k, scratch, out);
  EXPECT_EQ(out.front(), 99u);
  out.erase(out.begin());
  return out;
}

TEST(TopBlocks, EqualsAStableSortByScore) {
  std::mt19937 rng(3);
  for (const size_t blocks : {1u, 2u, 17u, 300u}) {
    std::vector<float> scores(blocks);
    for (auto& s : scores)
      s = static_cast<float>(static_cast<int>(rng() % 21) - 10);  // many ties, some negative
    std::vector<uint32_t> order(blocks);
    std::iota(order.begin(), order.end(), 0u);
    std::stable_sort(order.begin(), order.end(),
                     [&](uint32_t a, uint32_t b) { return scores[a] > scores[b]; });
    for (const size_t k : {size_t{0}, size_t{1}, blocks / 2, blocks - 1, blocks, blocks + 5}) {
      std::vector<uint32_t> expected(order.begin(),
                                     order.begin() + static_cast<std::ptrdiff_t>(std::min(k, blocks)));
      std::sort(expected.begin(), expected.end());
      EXPECT_EQ(top(scores, static_cast<int64_t>(k)), expected) << k << " of " << blocks;
    }
  }
}

TEST(TopBlocks, OrdersInfinitiesAndNotANumber) {
  const float infinity = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> scores{-infinity, 1.0f, nan, -0.5f, infinity};
  EXPECT_EQ(top(scores, 1), (std::vector<uint32_t>{2}));
  EXPECT_EQ(top(scores, 2), (std::vector<uint32_t>{2, 4}));
  EXPECT_EQ(top(scores, 4), (std::vector<uint32_t>{1, 2, 3, 4}));
}

}  // namespace
}  // namespace mneme::block_scores_test
