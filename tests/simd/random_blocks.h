// Random but well-formed rows of every file type, for kernel tests.
#pragma once
#include <cstring>
#include <random>
#include <vector>

#include "core/dtype.h"
#include "core/half.h"

namespace mneme {

inline std::vector<std::byte> random_rows(DType type, int64_t rows, int64_t cols, uint32_t seed) {
  const DTypeInfo& info = dtype_info(type);
  std::mt19937 rng(seed);
  std::uniform_real_distribution<float> scale(0.002f, 0.02f);
  std::normal_distribution<float> normal;
  const auto blocks = static_cast<size_t>(rows * cols / info.block_size);
  std::vector<std::byte> out(blocks * info.block_bytes);
  for (auto& byte : out) byte = static_cast<std::byte>(rng() & 255);
  const auto put16 = [&](size_t at, uint16_t bits) { std::memcpy(out.data() + at, &bits, 2); };
  for (size_t b = 0; b < blocks; ++b) {
    const size_t at = b * info.block_bytes;
    switch (type) {
      case DType::f32: {
        const float value = normal(rng);
        std::memcpy(out.data() + at, &value, 4);
        break;
      }
      case DType::f16:
        put16(at, f32_to_f16(normal(rng)));
        break;
      case DType::bf16:
        put16(at, f32_to_bf16(normal(rng)));
        break;
      case DType::q2_k:
        put16(at + 80, f32_to_f16(scale(rng)));
        put16(at + 82, f32_to_f16(scale(rng)));
        break;
      case DType::q3_k:
        put16(at + 108, f32_to_f16(scale(rng)));
        break;
      case DType::q6_k:
        put16(at + 208, f32_to_f16(scale(rng)));
        break;
      case DType::q4_1:
      case DType::q5_1:
      case DType::q4_k:
      case DType::q5_k:
        put16(at + 2, f32_to_f16(scale(rng)));
        [[fallthrough]];
      default:
        put16(at, f32_to_f16(scale(rng)));
    }
  }
  return out;
}

inline constexpr DType kMatrixTypes[] = {DType::f32,  DType::f16,  DType::bf16, DType::q4_0, DType::q4_1,
                                         DType::q5_0, DType::q5_1, DType::q8_0, DType::q2_k, DType::q3_k,
                                         DType::q4_k, DType::q5_k, DType::q6_k};

}  // namespace mneme
