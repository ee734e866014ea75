// Recurrences: one token after the other (what the engine runs) beside the chunk form, on one thread.
//   build/release/bin/recurrence_bench
// Time is for all tokens of one kv head; "state elements/s" counts the state once per token, "FMA/s" the
// multiply-adds of the rule.
#include <benchmark/benchmark.h>

#include <random>
#include <vector>

#include "simd/isa.h"
#include "simd/recurrence.h"
#include "simd/recurrence_chunk.h"
#include "simd/recurrence_inputs.h"

namespace mneme {
namespace {

using Rule = RecurrenceShape::Rule;

struct Head {
  RecurrenceShape shape;
  std::vector<float> update, q, y, state, next;
  RecurrenceTokens tokens;

  Head(Rule rule, int64_t group, int64_t dim, int64_t count)
      : shape{rule, 1, group, dim},
        update(static_cast<size_t>(count * shape.update_values())),
        q(static_cast<size_t>(count * group * dim)),
        y(q.size()),
        state(static_cast<size_t>(shape.head_values())),
        next(state.size()) {
    std::mt19937 rng(3);
    std::normal_distribution<float> normal;
    for (auto& x : q) x = normal(rng);
    for (auto& x : update) x = normal(rng);
    for (int64_t t = 0; t < count; ++t) {
      float* row = update.data() + t * shape.update_values();
      l2_normalise(1e-6f, 1, dim, row + shape.k_offset());
      gla_decays(row + shape.decay_offset(), 16, shape.decays(), row + shape.decay_offset());
      if (rule == Rule::delta) row[shape.beta_offset()] = 0.5f;
    }
    tokens = {update.data(), shape.update_values(), q.data(), group * dim, y.data(), group * dim, count};
  }
  void report(benchmark::State& state_, double per_element) const {
    const auto elements = static_cast<double>(tokens.count * shape.dim * shape.dim);
    state_.counters["elements/s"] =
        benchmark::Counter(elements, benchmark::Counter::kIsIterationInvariantRate);
    state_.counters["FMA/s"] =
        benchmark::Counter(elements * per_element, benchmark::Counter::kIsIterationInvariantRate);
    state_.SetLabel(std::string(to_string(active_isa())));
  }
};

void tokens(benchmark::State& state) {
  const auto rule = static_cast<Rule>(state.range(0));
  Head head(rule, state.range(1), state.range(2), state.range(3));
  for (auto _ : state) {
    run_recurrence(head.shape, head.tokens, 0, head.shape.columns(), head.state.data(), head.next.data());
    benchmark::DoNotOptimize(head.y.data());
  }
  head.report(state, static_cast<double>(state.range(1)) + (rule == Rule::gla ? 2 : 3));
}
BENCHMARK(tokens)
    ->ArgNames({"delta", "group", "dim", "tokens"})
    ->ArgsProduct({{0, 1}, {1, 3, 4, 7}, {64, 128}, {1, 512}});

void chunked(benchmark::State& state) {
  Head head(Rule::gla, state.range(0), state.range(1), state.range(2));
  ChunkScratch scratch;
  for (auto _ : state) {
    run_recurrence_chunked(head.shape, head.tokens, scratch, head.state.data());
    benchmark::DoNotOptimize(head.y.data());
  }
  head.report(state, static_cast<double>(state.range(0)) + 2);
}
BENCHMARK(chunked)->ArgNames({"group", "dim", "tokens"})->ArgsProduct({{1, 3, 4, 7}, {64, 128}, {512}});

// The gate of a head: logits from a low-rank factor, then decays.
void gate(benchmark::State& state) {
  const int64_t dim = state.range(0), rank = 16;
  std::vector<float> y(static_cast<size_t>(rank), 0.3f), up(static_cast<size_t>(rank * dim), 0.1f),
      z(static_cast<size_t>(dim));
  for (auto _ : state) {
    low_rank_gate(y.data(), up.data(), dim, nullptr, rank, dim, z.data());
    gla_decays(z.data(), 16, dim, z.data());
    benchmark::DoNotOptimize(z.data());
  }
}
BENCHMARK(gate)->Arg(64)->Arg(512);

}  // namespace
}  // namespace mneme

BENCHMARK_MAIN();
