// Quantizers of the types that Mneme writes. A block's scale is chosen from its largest value and stored as
// f16; the values are divided by the unrounded f32 scale, as GGML's reference does.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/fail.h"
#include "core/half.h"
#include "simd/blocks.h"

namespace mneme {
namespace {

constexpr int kBlock = 32;

void store_half(float value, uint8_t* to) {
  const uint16_t bits = f32_to_f16(value);
  std::memcpy(to, &bits, sizeof bits);
}

/// The largest magnitude of a block; refuses what no scale can represent.
float largest(const float* x, float most) {
  float top = 0;
  bool finite = true;
  for (int i = 0; i < kBlock; ++i) {
    const float a = std::fabs(x[i]);
    top = a > top ? a : top;
    finite &= a <= most;  // false for a NaN as well
  }
  if (!finite) {
    for (int i = 0; i < kBlock; ++i)
      require(std::fabs(x[i]) <= most, ErrorCode::corrupt,
              "the value {} cannot be quantized: finite values up to {:.5g} can", x[i], most);
  }
  return top;
}

// 1/d, or 0 where that is not finite: the scale of a block of zeros, or one far below the smallest f16.
float inverse(float d) {
  const float id = 1.0f / d;
  return std::isfinite(id) ? id : 0.0f;
}

void block_q8_0(const float* x, uint8_t* b) {
  const float d = largest(x, 65504.0f * 127) / 127.0f;
  const float id = inverse(d);
  store_half(d, b);
  for (int i = 0; i < kBlock; ++i) {
    const float v = x[i] * id;  // halves round away from zero, as roundf does
    b[2 + i] = static_cast<uint8_t>(static_cast<int8_t>(v + std::copysign(0.49999997f, v)));
  }
}

void block_q4_0(const float* x, uint8_t* b) {
  largest(x, 65504.0f * 8);
  float extreme = 0, magnitude = 0;  // the value of largest magnitude, with its sign, becomes -8
  for (int i = 0; i < kBlock; ++i) {
    const float a = std::fabs(x[i]);
    extreme = a > magnitude ? x[i] : extreme;
    magnitude = a > magnitude ? a : magnitude;
  }
  const float d = extreme / -8.0f;
  const float id = inverse(d);
  store_half(d, b);
  const auto quantized = [id](float v) { return std::min(15, static_cast<int>(v * id + 8.5f)); };
  for (int i = 0; i < 16; ++i) b[2 + i] = static_cast<uint8_t>(quantized(x[i]) | quantized(x[i + 16]) << 4);
}

void block_q4_1(const float* x, uint8_t* b) {
  largest(x, 65504.0f);
  const auto [low, high] = std::minmax_element(x, x + kBlock);
  const float min = *low;
  const float d = (*high - min) / 15.0f;
  const float id = inverse(d);
  store_half(d, b);
  store_half(min, b + 2);
  const auto quantized = [id, min](float v) { return std::min(15, static_cast<int>((v - min) * id + 0.5f)); };
  for (int i = 0; i < 16; ++i) b[4 + i] = static_cast<uint8_t>(quantized(x[i]) | quantized(x[i + 16]) << 4);
}

template <void (*Block)(const float*, uint8_t*)>
void each_block(const float* src, uint8_t* dst, size_t n, size_t block_bytes) {
  for (size_t i = 0; i < n / kBlock; ++i) Block(src + i * kBlock, dst + i * block_bytes);
}

template <uint16_t (*Convert)(float)>
void each_half(const float* src, uint8_t* dst, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    const uint16_t bits = Convert(src[i]);
    std::memcpy(dst + 2 * i, &bits, sizeof bits);
  }
}

}  // namespace

bool can_quantize(DType type) noexcept {
  return type == DType::f32 || type == DType::f16 || type == DType::bf16 || type == DType::q8_0 ||
         type == DType::q4_0 || type == DType::q4_1;
}

void quantize_row(DType type, const float* src, std::byte* to, size_t n) {
  const auto& info = dtype_info(type);
  require(can_quantize(type), ErrorCode::unsupported,
          "{} tensors can be read but not written; write F32, F16, BF16, Q8_0, Q4_0 or Q4_1", info.name);
  require(n % info.block_size == 0, ErrorCode::invalid_argument,
          "a {} row must hold a multiple of {} values, not {}", info.name, info.block_size, n);
  auto* dst = reinterpret_cast<uint8_t*>(to);
  if (type == DType::f32) {
    if (n > 0) std::memcpy(dst, src, n * sizeof(float));
  } else if (type == DType::f16) {
    each_half<f32_to_f16>(src, dst, n);
  } else if (type == DType::bf16) {
    each_half<f32_to_bf16>(src, dst, n);
  } else if (type == DType::q8_0) {
    each_block<block_q8_0>(src, dst, n, info.block_bytes);
  } else if (type == DType::q4_0) {
    each_block<block_q4_0>(src, dst, n, info.block_bytes);
  } else {
    each_block<block_q4_1>(src, dst, n, info.block_bytes);
  }
}

}  // namespace mneme
