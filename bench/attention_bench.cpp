// Attention of a decoding step: bytes per second of keys and values that threads read together, each its own
// cache of 8 heads as the engine lays it out, a part of one head after the other.
//   build/release/bin/attention_bench
#include <benchmark/benchmark.h>

#include <limits>
#include <random>

#include "core/huge_buffer.h"
#include "simd/attention.h"

namespace mneme {
namespace {

constexpr int64_t kHeads = 8, kPartPositions = 1024, kPartPages = kPartPositions / kPagePositions;

// A page whose values are as large as a model's; the other pages are copies of it.
void fill(const KvGeometry& g, HugeBuffer& memory) {
  std::mt19937 rng(1);
  std::normal_distribution<float> normal;
  std::vector<float> k(static_cast<size_t>(g.head_dim)), v(k);
  for (int64_t head = 0; head < g.kv_heads; ++head)
    for (int64_t p = 0; p < kPagePositions; ++p) {
      for (float& x : k) x = normal(rng);
      for (float& x : v) x = normal(rng);
      store_kv(g, memory.data(), head, p, k.data(), v.data());
    }
  const auto page = static_cast<uint64_t>(g.page_bytes());
  for (uint64_t at = page; at + page <= memory.size(); at += page)
    std::copy_n(memory.data(), page, memory.data() + at);
}

void decode(benchmark::State& state) {
  const KvGeometry g{static_cast<KvFormat>(state.range(0)), kHeads, state.range(1)};
  const int64_t queries = state.range(2), dim = g.padded_dim();
  const int64_t parts = std::max<int64_t>(1, (state.range(3) << 20) / g.page_bytes() / kPartPages);
  HugeBuffer memory(static_cast<uint64_t>(parts * kPartPages * g.page_bytes()));
  fill(g, memory);
  std::vector<const std::byte*> pages;
  for (int64_t i = 0; i < parts * kPartPages; ++i) pages.push_back(memory.data() + i * g.page_bytes());
  std::vector<float> q(static_cast<size_t>(queries * dim), 0.05f), acc(q);
  std::vector<float> m(static_cast<size_t>(queries)), l(m);
  const std::vector<int64_t> lo(m.size(), 0), hi(m.size(), int64_t{1} << 40);
  AttentionArgs args;
  args.geometry = g;
  args.pages = pages.data();
  args.q = q.data();
  args.queries = queries;
  args.lo = lo.data();
  args.hi = hi.data();
  AttentionScratch scratch;
  int64_t part = 0;
  for (auto _ : state) {
    std::fill(m.begin(), m.end(), -std::numeric_limits<float>::infinity());
    std::fill(l.begin(), l.end(), 0.0f);
    std::fill(acc.begin(), acc.end(), 0.0f);
    const int64_t next = (part + 1) % parts;
    args.then_position = next * kPartPositions;
    args.then_kv_head = parts > 1 && next == 0 ? (args.kv_head + 1) % kHeads : args.kv_head;
    attend(args, part * kPartPositions, (part + 1) * kPartPositions, scratch,
           {m.data(), l.data(), acc.data()});
    part = next;
    args.kv_head = args.then_kv_head;
  }
  state.SetBytesProcessed(state.iterations() * kPartPages * g.head_bytes());
}
// f16 and int8; 1 query, the 3 of SmolLM2, the 4 of Llama 3.2 1B, and the 64 of a task of prefill; a cache
// that the second level holds almost and one that no level holds.
BENCHMARK(decode)
    ->ArgsProduct({{0, 1}, {64, 128}, {1, 3, 4, 64}, {0, 256}})
    ->ArgNames({"format", "dim", "queries", "MiB"})
    ->Threads(1)
    ->Threads(2)
    ->UseRealTime();

}  // namespace
}  // namespace mneme

BENCHMARK_MAIN();
