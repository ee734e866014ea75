// Matrix products: bytes per second of weights at decode (1 row), multiply-adds per second at prefill (128
// rows).
//   build/release/bin/product_bench --benchmark_filter=decode
#include <benchmark/benchmark.h>

#include <random>

#include "core/huge_buffer.h"
#include "simd/packed_product.h"

namespace mneme {
namespace {

constexpr DType kTypes[] = {DType::q4_0, DType::q4_1, DType::q8_0, DType::q4_k, DType::q6_k, DType::f16};

void product(benchmark::State& state) {
  const DType type = kTypes[state.range(0)];
  const int64_t rows = state.range(1), cols = state.range(2), n = state.range(3);
  PackedMatrix w{packed_type(type), rows, cols, nullptr};
  const HugeBuffer memory(packed_bytes(w.type, rows, cols));
  // Random codes, and scales of 2^-14 (f16 0x0400) where a format has them: timing does not depend on the
  // values.
  std::mt19937 rng(1);
  for (uint64_t i = 0; i < memory.size(); i += 4) {
    const uint32_t value = rng() & 0x07ff07ffu;
    __builtin_memcpy(memory.data() + i, &value, 4);
  }
  w.data = memory.data();
  std::vector<float> x(static_cast<size_t>(n * cols)), y(static_cast<size_t>(n * rows));
  for (auto& v : x) v = static_cast<float>(rng() & 1023) / 512 - 1;
  QuantizedRows q;
  q.reserve(n, cols);
  for (int64_t i = 0; i < n; ++i) quantize_blocks(x.data() + i * cols, i, cols, 0, cols / 32, q);
  for (auto _ : state) {
    for (int64_t tile = 0; tile < w.tiles(); tile += 4) {
      const int64_t end = std::min(tile + 4, w.tiles());
      if (dtype_info(type).quantized)
        packed_product(w, q, tile, end, 0, n, y.data(), rows);
      else
        packed_product(w, x.data(), cols, tile, end, 0, n, y.data(), rows);
    }
    benchmark::DoNotOptimize(y.data());
  }
  state.SetLabel(std::string(dtype_info(type).name) + " " + std::string(to_string(active_isa())));
  state.counters["weights_B/s"] =
      benchmark::Counter(static_cast<double>(memory.size()), benchmark::Counter::kIsIterationInvariantRate);
  state.counters["MAC/s"] =
      benchmark::Counter(static_cast<double>(rows * cols * n), benchmark::Counter::kIsIterationInvariantRate);
}

void shapes(benchmark::internal::Benchmark* b) {
  for (int type = 0; type < 6; ++type) {
    b->Args({type, 1024, 2048, 1});
    b->Args({type, 65536, 2048, 1});
    b->Args({type, 1024, 2048, 256});
  }
}

BENCHMARK(product)->Apply(shapes)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace mneme

BENCHMARK_MAIN();
