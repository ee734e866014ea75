// The two 16-bit float formats of tensors, as bits in a uint16_t, to and from float. Plain integer arithmetic
// without branches on data, so that loops over them vectorise on any CPU. Rounding is to nearest, ties to
// even, as IEEE 754 and every tensor library do; conversions to float are exact.
//
//   F16   1 sign, 5 exponent, 10 mantissa bits: |x| <= 65504, subnormals down to 2^-24
//   BF16  1 sign, 8 exponent,  7 mantissa bits: the upper half of a float
#pragma once
#include <bit>
#include <cstdint>
#include <cstring>

namespace mneme {

/// Exact, subnormals and infinities included; a NaN stays a NaN.
constexpr float f16_to_f32(uint16_t half) noexcept {
  constexpr uint32_t kRebias = (127 - 15) << 23;
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t magnitude = half & 0x7fffu;
  uint32_t bits = (magnitude << 13) + kRebias;
  bits += magnitude >= 0x7c00u ? kRebias : 0;  // infinity and NaN: exponent 255
  const float subnormal = static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-24f;
  bits = magnitude < 0x0400u ? std::bit_cast<uint32_t>(subnormal) : bits;
  return std::bit_cast<float>(bits | sign);
}

/// Nearest, ties to even; beyond 65520 infinity; a NaN becomes a quiet NaN.
constexpr uint16_t f32_to_f16(float value) noexcept {
  const uint32_t all = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (all >> 16) & 0x8000u;
  const uint32_t bits = all & 0x7fffffffu;
  // Below 2^-14 the result is subnormal: adding 0.5 moves the mantissa to where a half's lies and rounds it.
  const uint32_t small =
      std::bit_cast<uint32_t>(std::bit_cast<float>(bits < 0x38800000u ? bits : 0u) + 0.5f) -
      std::bit_cast<uint32_t>(0.5f);
  const uint32_t normal = (bits - 0x38000000u + 0xfffu + ((bits >> 13) & 1u)) >> 13;
  const uint32_t nan = 0x7e00u | ((bits >> 13) & 0x3ffu);
  uint32_t half = bits < 0x38800000u ? small : normal;
  half = bits >= 0x477ff000u ? 0x7c00u : half;
  half = bits > 0x7f800000u ? nan : half;
  return static_cast<uint16_t>(half | sign);
}

constexpr float bf16_to_f32(uint16_t value) noexcept {
  return std::bit_cast<float>(static_cast<uint32_t>(value) << 16);
}

/// Nearest, ties to even; a NaN becomes a quiet NaN.
constexpr uint16_t f32_to_bf16(float value) noexcept {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const uint32_t nan = (bits >> 16) | 0x40u;
  return static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}

/// Reads a little-endian value of any alignment from a tensor's bytes.
template <class T>
inline T load_le(const void* from) noexcept {
  static_assert(std::endian::native == std::endian::little, "tensor files are little-endian");
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

}  // namespace mneme
