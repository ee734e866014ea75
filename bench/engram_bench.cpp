// Kernels of conditional memory: decoding rows from a table that does and does not fit the caches, the gate,
// the short convolution.
//   build/release/bin/engram_bench
#include <benchmark/benchmark.h>

#include <random>
#include <vector>

#include "core/huge_buffer.h"
#include "simd/engram.h"
#include "simd/isa.h"
#include "simd/rows.h"

namespace mneme {
namespace {

std::vector<float> random(size_t n) {
  std::mt19937 rng(7);
  std::normal_distribution<float> normal(0, 1);
  std::vector<float> x(n);
  for (auto& v : x) v = normal(rng);
  return x;
}

// The rows of one token of DeepSeek-V4.1's geometry (24 rows of 256 values) from random places of a table of
// 2^range(1) rows.
void gather(benchmark::State& state) {
  constexpr int64_t kDim = 256;
  constexpr size_t kRows = 24;
  const auto format = static_cast<RowFormat>(state.range(0));
  const uint32_t bytes = row_bytes(format, kDim);
  const uint64_t rows = uint64_t{1} << state.range(1);
  HugeBuffer table(rows * bytes);
  const auto row = random(kDim);
  for (uint64_t i = 0; i < rows; ++i) encode_row(format, row.data(), kDim, table.data() + i * bytes);
  std::mt19937_64 rng(1);
  std::vector<const std::byte*> records(kRows * 4096);
  for (auto& record : records) record = table.data() + rng() % rows * bytes;
  std::vector<float> out(kRows * kDim);
  size_t token = 0;
  for (auto _ : state) {
    gather_rows(format, {records.data() + token * kRows, kRows}, kDim, out.data());
    benchmark::DoNotOptimize(out.data());
    token = (token + 1) % 4096;
  }
  constexpr const char* kNames[] = {"f32", "bf16", "int8", "fp8"};
  state.SetLabel(kNames[state.range(0)]);
  state.counters["rows/s"] = benchmark::Counter(kRows, benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(gather)->ArgNames({"format", "log2_rows"})->ArgsProduct({{0, 1, 2, 3}, {12, 21}});

void gate(benchmark::State& state) {
  const auto d = static_cast<size_t>(state.range(0));
  const auto k = random(d), h = random(d), weight = random(d);
  for (auto _ : state)
    benchmark::DoNotOptimize(engram_gate({}, k.data(), h.data(), weight.data(), static_cast<int64_t>(d)));
  state.SetLabel(std::string(to_string(active_isa())));
}
BENCHMARK(gate)->Arg(576)->Arg(5120);

void conv(benchmark::State& state) {
  const auto d = static_cast<size_t>(state.range(0));
  const auto rows = random(4 * d), weight = random(4 * d), u = random(d);
  std::vector<const float*> taps;
  for (size_t j = 0; j < 4; ++j) taps.push_back(rows.data() + j * d);
  std::vector<float> y(d);
  for (auto _ : state) {
    engram_conv(taps, weight.data(), u.data(), static_cast<int64_t>(d), y.data());
    benchmark::DoNotOptimize(y.data());
  }
}
BENCHMARK(conv)->Arg(576)->Arg(10240);

}  // namespace
}  // namespace mneme

BENCHMARK_MAIN();
