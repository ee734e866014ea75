// How fast the CPU's multiply-add instructions are by themselves, 24 independent sums each, nothing loaded:
// f32 fused multiply-add, BF16 dot products (AVX512-BF16), int8 dot products (VNNI). This is what decides
// which of them a product kernel should use; docs/benchmarks.md says what it showed. items/s are
// multiply-adds.
#include <benchmark/benchmark.h>

#include "simd/target_region.h"

#if defined(__x86_64__)
#include <immintrin.h>

namespace {

constexpr int kSums = 24;

MNEME_BEGIN_TARGET("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vnni")

void fma_f32(benchmark::State& state) {
  __m512 sums[kSums], a = _mm512_set1_ps(1e-3f);
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
  for (auto _ : state) {
#pragma GCC unroll 24
    for (__m512& sum : sums) sum = _mm512_fmadd_ps(a, a, sum);
    asm volatile("" : "+v"(a));
  }
  for (__m512& sum : sums) benchmark::DoNotOptimize(sum);
}

void dot_bf16(benchmark::State& state) {
  __m512 sums[kSums];
  __m512i bits = _mm512_set1_epi16(0x3a83);
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
  for (auto _ : state) {
    const auto a = reinterpret_cast<__m512bh>(bits);
#pragma GCC unroll 24
    for (__m512& sum : sums) sum = _mm512_dpbf16_ps(sum, a, a);
    asm volatile("" : "+v"(bits));
  }
  for (__m512& sum : sums) benchmark::DoNotOptimize(sum);
}

void dot_int8(benchmark::State& state) {
  __m512i sums[kSums], a = _mm512_set1_epi8(1);
  for (__m512i& sum : sums) sum = _mm512_setzero_si512();
  for (auto _ : state) {
#pragma GCC unroll 24
    for (__m512i& sum : sums) sum = _mm512_dpbusd_epi32(sum, a, a);
    asm volatile("" : "+v"(a));
  }
  for (__m512i& sum : sums) benchmark::DoNotOptimize(sum);
}

MNEME_END_TARGET

using Loop = void (*)(benchmark::State&);

void timed(benchmark::State& state, bool supported, Loop loop, int products) {
  if (!supported) return state.SkipWithError("this CPU lacks the instruction");
  loop(state);
  state.SetItemsProcessed(state.iterations() * kSums * products);
}

void Fma_f32(benchmark::State& state) {
  timed(state, __builtin_cpu_supports("avx512f"), fma_f32, 16);
}
void Dot_bf16(benchmark::State& state) {
  timed(state, __builtin_cpu_supports("avx512bf16"), dot_bf16, 32);
}
void Dot_int8(benchmark::State& state) {
  timed(state, __builtin_cpu_supports("avx512vnni"), dot_int8, 64);
}
BENCHMARK(Fma_f32);
BENCHMARK(Dot_bf16);
BENCHMARK(Dot_int8);

}  // namespace
#endif

BENCHMARK_MAIN();
