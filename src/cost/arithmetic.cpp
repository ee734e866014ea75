#include "cost/arithmetic.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <latch>
#include <thread>
#include <vector>

#include "simd/isa.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace mneme {
namespace {

constexpr int kSteps = 96;  // a: 1.5 KiB, b: 24 KiB; both stay in the first-level cache

void tile_portable(const uint8_t* a, const int8_t* b, int steps, int32_t* sums) {
  for (int s = 0; s < steps; ++s)
    for (int i = 0; i < kTileA; ++i)
      for (int j = 0; j < kTileB; ++j) {
        int32_t sum = 0;
        for (int k = 0; k < 4; ++k)
          sum += int32_t{a[(s * kTileA + i) * 4 + k]} * int32_t{b[(s * kTileB + j) * 4 + k]};
        sums[i * kTileB + j] += sum;
      }
}

#if defined(__x86_64__)
int32_t four_bytes(const uint8_t* from) {
  int32_t value = 0;
  std::memcpy(&value, from, 4);
  return value;
}

// 4 x 2 sums of 8 lanes; the 64 columns are walked in four strips.
__attribute__((target("avx2"))) void tile_avx2(const uint8_t* a, const int8_t* b, int steps, int32_t* sums) {
  const __m256i ones = _mm256_set1_epi16(1);
  for (int strip = 0; strip < kTileB; strip += 16) {
    __m256i acc[kTileA][2];
#pragma GCC unroll 4
    for (int i = 0; i < kTileA; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < 2; ++j)
        acc[i][j] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(sums + i * kTileB + strip + j * 8));
    for (int s = 0; s < steps; ++s) {
      const int8_t* row = b + (s * kTileB + strip) * 4;
      const __m256i b0 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row));
      const __m256i b1 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + 32));
#pragma GCC unroll 4
      for (int i = 0; i < kTileA; ++i) {
        const __m256i value = _mm256_set1_epi32(four_bytes(a + (s * kTileA + i) * 4));
        acc[i][0] = _mm256_add_epi32(acc[i][0], _mm256_madd_epi16(_mm256_maddubs_epi16(value, b0), ones));
        acc[i][1] = _mm256_add_epi32(acc[i][1], _mm256_madd_epi16(_mm256_maddubs_epi16(value, b1), ones));
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < kTileA; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < 2; ++j)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + i * kTileB + strip + j * 8), acc[i][j]);
  }
}

// 4 x 4 sums of 16 lanes: the whole tile in 16 of 32 registers.
__attribute__((target("avx512f,avx512bw"))) void tile_avx512(const uint8_t* a, const int8_t* b, int steps,
                                                             int32_t* sums) {
  const __m512i ones = _mm512_set1_epi16(1);
  __m512i acc[kTileA][4];
#pragma GCC unroll 4
  for (int i = 0; i < kTileA; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) acc[i][j] = _mm512_loadu_si512(sums + i * kTileB + j * 16);
  for (int s = 0; s < steps; ++s) {
    __m512i row[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) row[j] = _mm512_loadu_si512(b + (s * kTileB + j * 16) * 4);
#pragma GCC unroll 4
    for (int i = 0; i < kTileA; ++i) {
      const __m512i value = _mm512_set1_epi32(four_bytes(a + (s * kTileA + i) * 4));
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j)
        acc[i][j] = _mm512_add_epi32(acc[i][j], _mm512_madd_epi16(_mm512_maddubs_epi16(value, row[j]), ones));
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < kTileA; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) _mm512_storeu_si512(sums + i * kTileB + j * 16, acc[i][j]);
}

__attribute__((target("avx512f,avx512bw,avx512vnni"))) void tile_vnni(const uint8_t* a, const int8_t* b,
                                                                      int steps, int32_t* sums) {
  __m512i acc[kTileA][4];
#pragma GCC unroll 4
  for (int i = 0; i < kTileA; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) acc[i][j] = _mm512_loadu_si512(sums + i * kTileB + j * 16);
  for (int s = 0; s < steps; ++s) {
    __m512i row[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) row[j] = _mm512_loadu_si512(b + (s * kTileB + j * 16) * 4);
#pragma GCC unroll 4
    for (int i = 0; i < kTileA; ++i) {
      const __m512i value = _mm512_set1_epi32(four_bytes(a + (s * kTileA + i) * 4));
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) acc[i][j] = _mm512_dpbusd_epi32(acc[i][j], value, row[j]);
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < kTileA; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) _mm512_storeu_si512(sums + i * kTileB + j * 16, acc[i][j]);
}
#endif

}  // namespace

void int8_tile(const uint8_t* a, const int8_t* b, int steps, int32_t* sums) {
#if defined(__x86_64__)
  switch (active_isa()) {
    case Isa::avx512_vnni:
      return tile_vnni(a, b, steps, sums);
    case Isa::avx512:
      return tile_avx512(a, b, steps, sums);
    case Isa::avx2:
      return tile_avx2(a, b, steps, sums);
    case Isa::portable:
      break;
  }
#endif
  tile_portable(a, b, steps, sums);
}

double measure_int8_gmacs(int threads, double seconds) {
  using Clock = std::chrono::steady_clock;
  const int count = std::max(1, threads);
  std::latch ready(count), go(1);
  std::vector<double> rates(static_cast<size_t>(count));
  std::atomic<int64_t> checksum{0};  // keeps the sums alive
  std::vector<std::jthread> pool;
  for (int t = 0; t < count; ++t)
    pool.emplace_back([&, t] {
      std::vector<uint8_t> a(kSteps * kTileA * 4);
      std::vector<int8_t> b(kSteps * kTileB * 4);
      std::vector<int32_t> sums(kTileA * kTileB);
      for (size_t i = 0; i < a.size(); ++i) a[i] = static_cast<uint8_t>(i * 7 % 64);
      for (size_t i = 0; i < b.size(); ++i) b[i] = static_cast<int8_t>(static_cast<int>(i * 13 % 127) - 63);
      ready.count_down();
      go.wait();
      const auto start = Clock::now();
      double elapsed = 0, macs = 0;
      while (elapsed < seconds) {
        for (int repeat = 0; repeat < 64; ++repeat) int8_tile(a.data(), b.data(), kSteps, sums.data());
        macs += 64.0 * kSteps * kTileA * kTileB * 4;
        std::fill(sums.begin() + 1, sums.end(), 0);  // far from overflow; the first one is kept below
        checksum.fetch_add(sums[0], std::memory_order_relaxed);
        sums[0] = 0;
        elapsed = std::chrono::duration<double>(Clock::now() - start).count();
      }
      rates[static_cast<size_t>(t)] = macs / elapsed / 1e9;
    });
  ready.wait();
  go.count_down();
  pool.clear();
  double total = 0;
  for (const double rate : rates) total += rate;
  return total;
}

}  // namespace mneme
