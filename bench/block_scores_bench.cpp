// Block selection of sparse attention: bytes per second of keys while blocks are averaged, of means while
// they are scored, and the time to take the best.
//   build/release/bin/block_scores_bench
#include <benchmark/benchmark.h>

#include <random>

#include "core/huge_buffer.h"
#include "simd/block_scores.h"

namespace mneme {
namespace {

void mean(benchmark::State& state) {
  const KvGeometry g{static_cast<KvFormat>(state.range(0)), 1, 64};
  const int64_t keys = state.range(1), positions = int64_t{1} << 16;
  const HugeBuffer memory(static_cast<uint64_t>(positions / kPagePositions * g.page_bytes()));
  std::vector<const std::byte*> pages;
  for (int64_t p = 0; p < positions / kPagePositions; ++p)
    pages.push_back(memory.data() + p * g.page_bytes());
  std::vector<float> tile(static_cast<size_t>(tile_values(g))), scratch;
  int64_t at = 0;
  for (auto _ : state) {
    block_mean({g, 0, pages.data(), 0, at, keys}, scratch, tile.data(), 0);
    at = (at + keys) % positions;
    benchmark::DoNotOptimize(tile.data());
  }
  state.counters["keys_B/s"] =
      benchmark::Counter(static_cast<double>(keys * g.padded_dim() * g.value_bytes()),
                         benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(mean)->ArgsProduct({{0, 1, 2}, {64, 512, 4096}})->ArgNames({"format", "keys"});

struct Means {
  explicit Means(int64_t blocks) : tiles((blocks + kTileBlocks - 1) / kTileBlocks) {
    std::mt19937 rng(1);
    std::normal_distribution<float> normal;
    memory.resize(static_cast<size_t>(tiles * tile_values(geometry)));
    for (auto& x : memory) x = normal(rng);
    for (int64_t t = 0; t < tiles; ++t) list.push_back(memory.data() + t * tile_values(geometry));
  }
  KvGeometry geometry{KvFormat::f16, 3, 64};
  int64_t tiles;
  std::vector<float> memory;
  std::vector<const float*> list;
};

void scores(benchmark::State& state) {
  const int64_t blocks = state.range(0), queries = state.range(1);
  const Means means(blocks);
  std::vector<float> q(static_cast<size_t>(queries * 64), 0.5f);
  std::vector<float> out(static_cast<size_t>(queries * means.tiles * kTileBlocks));
  for (auto _ : state) {
    block_scores(q.data(), queries, 64, means.list.data(), 0, blocks, out.data(), means.tiles * kTileBlocks);
    benchmark::DoNotOptimize(out.data());
  }
  state.counters["means_B/s"] =
      benchmark::Counter(static_cast<double>(blocks * 64 * 4), benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(scores)->ArgsProduct({{128, 2048, 8192}, {1, 3, 48}})->ArgNames({"blocks", "queries"});

void top(benchmark::State& state) {
  const int64_t blocks = state.range(0);
  std::mt19937 rng(1);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(blocks));
  for (auto& x : values) x = normal(rng);
  std::vector<uint64_t> scratch;
  std::vector<uint32_t> out;
  for (auto _ : state) {
    out.clear();
    top_blocks(values.data(), blocks, 63, scratch, out);
    benchmark::DoNotOptimize(out.data());
  }
}
BENCHMARK(top)->Arg(128)->Arg(2048)->Arg(8192);

}  // namespace
}  // namespace mneme

BENCHMARK_MAIN();
