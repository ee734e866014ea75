// Dequantizers, one function per block format. Layouts are in core/dtype.h; integer parts are assembled first
// and multiplied last, in the order of GGML's reference, so results are bit-equal to it.
#include "simd/blocks.h"

#include <cstring>

#include "core/fail.h"
#include "core/half.h"

namespace mneme {
namespace {

using Byte = uint8_t;

float half_at(const Byte* p) {
  return f16_to_f32(load_le<uint16_t>(p));
}

void block_q4_0(const Byte* b, float* y) {
  const float d = half_at(b);
  for (int i = 0; i < 16; ++i) {
    y[i] = static_cast<float>((b[2 + i] & 15) - 8) * d;
    y[i + 16] = static_cast<float>((b[2 + i] >> 4) - 8) * d;
  }
}

void block_q4_1(const Byte* b, float* y) {
  const float d = half_at(b), m = half_at(b + 2);
  for (int i = 0; i < 16; ++i) {
    y[i] = static_cast<float>(b[4 + i] & 15) * d + m;
    y[i + 16] = static_cast<float>(b[4 + i] >> 4) * d + m;
  }
}

// The fifth bits of Q5_0 and Q5_1: bit i of the word belongs to value i.
void block_q5_0(const Byte* b, float* y) {
  const float d = half_at(b);
  const auto high = load_le<uint32_t>(b + 2);
  for (int i = 0; i < 16; ++i) {
    const int low = (b[6 + i] & 15) | static_cast<int>((high >> i) & 1) << 4;
    const int up = (b[6 + i] >> 4) | static_cast<int>((high >> (i + 16)) & 1) << 4;
    y[i] = static_cast<float>(low - 16) * d;
    y[i + 16] = static_cast<float>(up - 16) * d;
  }
}

void block_q5_1(const Byte* b, float* y) {
  const float d = half_at(b), m = half_at(b + 2);
  const auto high = load_le<uint32_t>(b + 4);
  for (int i = 0; i < 16; ++i) {
    const int low = (b[8 + i] & 15) | static_cast<int>((high >> i) & 1) << 4;
    const int up = (b[8 + i] >> 4) | static_cast<int>((high >> (i + 16)) & 1) << 4;
    y[i] = static_cast<float>(low) * d + m;
    y[i + 16] = static_cast<float>(up) * d + m;
  }
}

void block_q8_0(const Byte* b, float* y) {
  const float d = half_at(b);
  for (int i = 0; i < 32; ++i) y[i] = static_cast<float>(static_cast<int8_t>(b[2 + i])) * d;
}

// Q2_K and Q3_K: 64 bytes of 2-bit values. Sub-block s of 16 values lies in bytes 32*(s/8) + 16*(s%2) ...
// +15, at bit 2*((s%8)/2).
void block_q2_k(const Byte* b, float* y) {
  const float d = half_at(b + 80), dmin = half_at(b + 82);
  for (int s = 0; s < 16; ++s) {
    const float scale = d * static_cast<float>(b[s] & 15), min = dmin * static_cast<float>(b[s] >> 4);
    const Byte* q = b + 16 + 32 * (s / 8) + 16 * (s % 2);
    const int shift = 2 * ((s % 8) / 2);
    for (int i = 0; i < 16; ++i) y[16 * s + i] = scale * static_cast<float>((q[i] >> shift) & 3) - min;
  }
}

void block_q3_k(const Byte* b, float* y) {
  const Byte* packed = b + 96;  // 16 scales of 6 bits: 8 bytes of low nibbles, 4 bytes of upper bit pairs
  const float d = half_at(b + 108);
  for (int s = 0; s < 16; ++s) {
    const int low = s < 8 ? packed[s] & 15 : packed[s - 8] >> 4;
    const int high = (packed[8 + s % 4] >> (2 * (s / 4))) & 3;
    const float scale = d * static_cast<float>((low | high << 4) - 32);
    const Byte* q = b + 32 + 32 * (s / 8) + 16 * (s % 2);
    const Byte* third = b + 16 * (s % 2);  // a set bit s/2 means that 4 is not subtracted
    const int shift = 2 * ((s % 8) / 2);
    for (int i = 0; i < 16; ++i) {
      const int value = ((q[i] >> shift) & 3) - 4 + 4 * ((third[i] >> (s / 2)) & 1);
      y[16 * s + i] = scale * static_cast<float>(value);
    }
  }
}

struct ScaleMin {
  int scale, min;
};

// Q4_K and Q5_K pack eight 6-bit scales and eight 6-bit mins into 12 bytes: the first four of each whole in
// bytes 0-3 and 4-7, the rest as nibbles in bytes 8-11 with their upper two bits on top of bytes 0-7.
ScaleMin scale_min(const Byte* p, int j) {
  if (j < 4) return {p[j] & 63, p[j + 4] & 63};
  return {(p[j + 4] & 15) | (p[j - 4] >> 6) << 4, (p[j + 4] >> 4) | (p[j] >> 6) << 4};
}

void block_q4_k(const Byte* b, float* y) {
  const float d = half_at(b), dmin = half_at(b + 2);
  for (int j = 0; j < 8; ++j) {
    const auto [scale, min] = scale_min(b + 4, j);
    const float a = d * static_cast<float>(scale), m = dmin * static_cast<float>(min);
    const Byte* q = b + 16 + 32 * (j / 2);
    const int shift = 4 * (j % 2);
    for (int i = 0; i < 32; ++i) y[32 * j + i] = a * static_cast<float>((q[i] >> shift) & 15) - m;
  }
}

void block_q5_k(const Byte* b, float* y) {
  const float d = half_at(b), dmin = half_at(b + 2);
  const Byte* fifth = b + 16;
  for (int j = 0; j < 8; ++j) {
    const auto [scale, min] = scale_min(b + 4, j);
    const float a = d * static_cast<float>(scale), m = dmin * static_cast<float>(min);
    const Byte* q = b + 48 + 32 * (j / 2);
    const int shift = 4 * (j % 2);
    for (int i = 0; i < 32; ++i) {
      const int value = ((q[i] >> shift) & 15) | ((fifth[i] >> j) & 1) << 4;
      y[32 * j + i] = a * static_cast<float>(value) - m;
    }
  }
}

// Two halves of 128 values, each 64 bytes of nibbles and 32 bytes of upper bit pairs.
void block_q6_k(const Byte* b, float* y) {
  const float d = half_at(b + 208);
  for (int s = 0; s < 16; ++s) {
    const int half = s / 8, group = (s % 8) / 2, side = 16 * (s % 2);  // group: which 32 values of the half
    const Byte* low = b + 64 * half + 32 * (group % 2) + side;
    const Byte* high = b + 128 + 32 * half + side;
    const float scale = d * static_cast<float>(static_cast<int8_t>(b[192 + s]));
    for (int i = 0; i < 16; ++i) {
      const int value = ((low[i] >> (4 * (group / 2))) & 15) | ((high[i] >> (2 * group)) & 3) << 4;
      y[16 * s + i] = scale * static_cast<float>(value - 32);
    }
  }
}

template <void (*Block)(const Byte*, float*), size_t Values, size_t Size>
void each_block(const Byte* src, float* dst, size_t n) {
  for (size_t i = 0; i < n / Values; ++i) Block(src + i * Size, dst + i * Values);
}

template <class T>
void each_number(const Byte* src, float* dst, size_t n) {
  for (size_t i = 0; i < n; ++i) dst[i] = static_cast<float>(load_le<T>(src + i * sizeof(T)));
}

void check_row(DType type, size_t n) {
  const auto& info = dtype_info(type);
  require(n % info.block_size == 0, ErrorCode::invalid_argument,
          "a {} row must hold a multiple of {} values, not {}", info.name, info.block_size, n);
}

}  // namespace

void dequantize_row(DType type, const std::byte* from, float* dst, size_t n) {
  check_row(type, n);
  const auto* src = reinterpret_cast<const Byte*>(from);
  switch (type) {
    case DType::f32:
      if (n > 0) std::memcpy(dst, src, n * sizeof(float));
      return;
    case DType::f16:
      for (size_t i = 0; i < n; ++i) dst[i] = f16_to_f32(load_le<uint16_t>(src + 2 * i));
      return;
    case DType::bf16:
      for (size_t i = 0; i < n; ++i) dst[i] = bf16_to_f32(load_le<uint16_t>(src + 2 * i));
      return;
    case DType::q4_0:
      return each_block<block_q4_0, 32, 18>(src, dst, n);
    case DType::q4_1:
      return each_block<block_q4_1, 32, 20>(src, dst, n);
    case DType::q5_0:
      return each_block<block_q5_0, 32, 22>(src, dst, n);
    case DType::q5_1:
      return each_block<block_q5_1, 32, 24>(src, dst, n);
    case DType::q8_0:
      return each_block<block_q8_0, 32, 34>(src, dst, n);
    case DType::q2_k:
      return each_block<block_q2_k, 256, 84>(src, dst, n);
    case DType::q3_k:
      return each_block<block_q3_k, 256, 110>(src, dst, n);
    case DType::q4_k:
      return each_block<block_q4_k, 256, 144>(src, dst, n);
    case DType::q5_k:
      return each_block<block_q5_k, 256, 176>(src, dst, n);
    case DType::q6_k:
      return each_block<block_q6_k, 256, 210>(src, dst, n);
    case DType::i8:
      return each_number<int8_t>(src, dst, n);
    case DType::i16:
      return each_number<int16_t>(src, dst, n);
    case DType::i32:
      return each_number<int32_t>(src, dst, n);
    case DType::i64:
      return each_number<int64_t>(src, dst, n);
    case DType::f64:
      return each_number<double>(src, dst, n);
    case DType::u8:
      return each_number<uint8_t>(src, dst, n);
    case DType::f8_e4m3:
    case DType::f8_e8m0:
      fail(ErrorCode::unsupported,
           "{} values mean nothing without the tensor of their scales; only rows of memory tables may have "
           "this type",
           dtype_info(type).name);
  }
}

}  // namespace mneme
