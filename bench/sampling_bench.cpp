// Time of one Sampler::sample call: defaults, greedy, penalties, and without top-k, at three vocabulary
// sizes.
#include <benchmark/benchmark.h>

#include "core/random.h"
#include "mneme/sampling.h"

namespace {

std::vector<float> peaked_logits(size_t vocab) {
  mneme::Pcg64 random(1);
  std::vector<float> logits(vocab);
  for (float& logit : logits)
    logit = static_cast<float>(6 * (random.uniform() + random.uniform() + random.uniform()));
  for (int i = 0; i < 20; ++i) logits[random.below(vocab)] += 8;
  return logits;
}

void run(benchmark::State& state, const mneme::SamplingOptions& options) {
  const auto logits = peaked_logits(static_cast<size_t>(state.range(0)));
  const std::vector<mneme::TokenId> history(500, 7);
  mneme::Sampler sampler(options);
  for (auto _ : state) benchmark::DoNotOptimize(sampler.sample(logits, history));
}

void defaults(benchmark::State& state) {
  run(state, {});
}
void greedy(benchmark::State& state) {
  mneme::SamplingOptions options;
  options.temperature = 0;
  run(state, options);
}
void penalties(benchmark::State& state) {
  mneme::SamplingOptions options;
  options.repetition_penalty = 1.1;
  run(state, options);
}
void no_top_k(benchmark::State& state) {
  mneme::SamplingOptions options;
  options.top_k = 0;
  run(state, options);
}
void temperature_only(benchmark::State& state) {
  mneme::SamplingOptions options;
  options.top_k = 0;
  options.top_p = 1;
  options.min_p = 0;
  run(state, options);
}

#define SIZES Arg(32000)->Arg(49152)->Arg(262144)->Unit(benchmark::kMicrosecond)
BENCHMARK(defaults)->SIZES;
BENCHMARK(greedy)->SIZES;
BENCHMARK(penalties)->SIZES;
BENCHMARK(no_top_k)->SIZES;
BENCHMARK(temperature_only)->SIZES;

}  // namespace

BENCHMARK_MAIN();
