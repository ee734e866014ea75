// Product kernels in plain C++: the vector vocabulary in its simplest form, which the compiler may vectorise
// for whatever CPU it is built for.
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/half.h"
#include "simd/packed_kernels.h"

// after the table that it fills
#include "simd/packed_kernels-inl.h"

namespace mneme {
namespace {

struct Portable {
  static constexpr int kLanes = 8, kMaxN = 4, kPrefetch = 0;
  static constexpr bool kWideIsSigned = false;
  static constexpr int pairs_in_16(int) { return 1; }
  struct F {
    float v[kLanes];
  };
  struct I {
    int32_t v[kLanes];
  };
  struct B {
    uint8_t v[4 * kLanes];
  };
  struct A {
    int8_t v[4];
  };

  template <class R, class Fn>
  static R lanes(Fn fn) {
    R r;
    for (int i = 0; i < kLanes; ++i) r.v[i] = fn(i);
    return r;
  }
  static void prefetch(const std::byte*) {}
  static F set_f(float x) {
    return lanes<F>([&](int) { return x; });
  }
  static I set_i(int32_t x) {
    return lanes<I>([&](int) { return x; });
  }
  static F load_f(const float* p) {
    return lanes<F>([&](int i) { return p[i]; });
  }
  static F load_f16(const std::byte* p) {
    return lanes<F>([&](int i) { return f16_to_f32(load_le<uint16_t>(p + 2 * i)); });
  }
  static F load_bf16(const std::byte* p) {
    return lanes<F>([&](int i) { return bf16_to_f32(load_le<uint16_t>(p + 2 * i)); });
  }
  static F load_i8(const std::byte* p) {
    return lanes<F>([&](int i) { return static_cast<float>(load_le<int8_t>(p + i)); });
  }
  static void store_f(float* p, const F& a) { std::memcpy(p, a.v, sizeof a.v); }
  static F mul(const F& a, const F& b) {
    return lanes<F>([&](int i) { return a.v[i] * b.v[i]; });
  }
  static F add(const F& a, const F& b) {
    return lanes<F>([&](int i) { return a.v[i] + b.v[i]; });
  }
  static F negate(const F& a) {
    return lanes<F>([&](int i) { return -a.v[i]; });
  }
  static F fma(const F& a, const F& b, const F& c) {
    return lanes<F>([&](int i) { return a.v[i] * b.v[i] + c.v[i]; });
  }
  static F to_f(const I& a) {
    return lanes<F>([&](int i) { return static_cast<float>(a.v[i]); });
  }
  static I sub_i(const I& a, const I& b) {
    return lanes<I>([&](int i) { return a.v[i] - b.v[i]; });
  }
  static B load_b(const std::byte* p) {
    B b;
    std::memcpy(b.v, p, sizeof b.v);
    return b;
  }
  static B low_nibbles(B b) {
    for (auto& x : b.v) x &= 15;
    return b;
  }
  static B high_nibbles(B b) {
    for (auto& x : b.v) x >>= 4;
    return b;
  }
  static I byte_of(const B& b, int k) {
    return lanes<I>([&](int i) { return int32_t{b.v[4 * i + k]}; });
  }
  static A repeat4(const int8_t* p) { return {{p[0], p[1], p[2], p[3]}}; }
  template <bool wide>
  static I dot(I acc, const B& b, const A& a) {
    for (int i = 0; i < kLanes; ++i)
      for (int k = 0; k < 4; ++k) acc.v[i] += int32_t{b.v[4 * i + k]} * a.v[k];
    return acc;
  }
  static uint32_t max_abs_bits32(const float* x) {
    uint32_t max = 0;
    for (int i = 0; i < 32; ++i) {
      const uint32_t bits = load_le<uint32_t>(x + i) & 0x7fffffffu;
      max = bits > max ? bits : max;
    }
    return max;
  }
  static void round32(const float* x, float inverse, int8_t* q, int32_t* half_sums) {
    for (int h = 0; h < 2; ++h) {
      half_sums[h] = 0;
      for (int i = 16 * h; i < 16 * h + 16; ++i) {
        // Adding 1.5 * 2^23 rounds to an integer, ties to even, for |value| < 2^22.
        const float shifted = x[i] * inverse + 12582912.0f;
        const int32_t value = static_cast<int32_t>(load_le<uint32_t>(&shifted)) - 0x4b400000;
        q[i] = static_cast<int8_t>(value);
        half_sums[h] += value;
      }
    }
  }
};

}  // namespace

const PackedKernels& packed_kernels_portable() {
  static constexpr PackedKernels kernels = make_kernels<Portable>();
  return kernels;
}

}  // namespace mneme
