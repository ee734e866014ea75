// The two 8-bit formats of a scaled FP8 row, to and from float. Source: OCP 8-bit Floating Point (2023) and
// OCP Microscaling Formats (2023).
//
//   E4M3  1 sign, 4 exponent (bias 7), 3 mantissa bits: |x| <= 448, subnormals down to 2^-9, no infinity,
//         NaN is 0x7f and 0xff
//   E8M0  8 exponent bits, nothing else: byte e is 2^(e - 127), byte 255 is NaN
#pragma once
#include <bit>
#include <cstdint>
#include <limits>

namespace mneme {

inline constexpr float kE4m3Max = 448.0f;

/// Exact for all 256 codes.
constexpr float e4m3_to_f32(uint8_t code) noexcept {
  const uint32_t sign = static_cast<uint32_t>(code & 0x80u) << 24;
  const uint32_t magnitude = code & 0x7fu;
  uint32_t bits = (magnitude << 20) + ((127u - 7u) << 23);
  const float subnormal = static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-9f;
  bits = magnitude < 8u ? std::bit_cast<uint32_t>(subnormal) : bits;
  bits = magnitude == 0x7fu ? 0x7fc00000u : bits;
  return std::bit_cast<float>(bits | sign);
}

/// Nearest, ties to even; beyond 448 (infinities too) the largest finite code; a NaN becomes 0x7f.
constexpr uint8_t f32_to_e4m3(float value) noexcept {
  const uint32_t all = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (all >> 24) & 0x80u;
  const uint32_t bits = all & 0x7fffffffu;
  if (bits > 0x7f800000u) return 0x7f;
  // Below 2^-6 the code counts units of 2^-9: adding 2^14 rounds to that unit and leaves the count in the
  // mantissa.
  const uint32_t subnormal =
      std::bit_cast<uint32_t>(std::bit_cast<float>(bits < 0x3c800000u ? bits : 0u) + 0x1p14f) -
      std::bit_cast<uint32_t>(0x1p14f);
  const uint32_t normal = (bits - ((127u - 7u) << 23) + 0x7ffffu + ((bits >> 20) & 1u)) >> 20;
  uint32_t code = bits < 0x3c800000u ? subnormal : normal;
  code = bits >= std::bit_cast<uint32_t>(kE4m3Max) ? 0x7eu : code;
  return static_cast<uint8_t>(code | sign);
}

/// Exact; byte 0 is the subnormal float 2^-127.
constexpr float e8m0_to_f32(uint8_t code) noexcept {
  const uint32_t bits = code == 255 ? 0x7fc00000u : code == 0 ? 0x00400000u : uint32_t{code} << 23;
  return std::bit_cast<float>(bits);
}

}  // namespace mneme
