// Rate of int8 multiply-adds: the ceiling of prefill with quantized weights.
#pragma once
#include <cstdint>

namespace mneme {

/// 1e9 int8 x int8 multiply-adds with int32 sums per second, over `threads` threads for about `seconds`. The
/// inner loop is a matrix product's: a tile of sums in registers, operands in the first-level cache, with
/// VNNI, AVX2's maddubs or plain C++ by the active instruction set.
double measure_int8_gmacs(int threads, double seconds);

/// One tile of that loop, for tests: sums[i][j] += dot(a[i], b[j]) over `steps` steps of 4 values, for
/// i < kTileA, j < kTileB. a: [steps, kTileA, 4] u8 below 64; b: [steps, kTileB, 4] i8.
inline constexpr int kTileA = 4;
inline constexpr int kTileB = 64;
void int8_tile(const uint8_t* a, const int8_t* b, int steps, int32_t* sums);

}  // namespace mneme
