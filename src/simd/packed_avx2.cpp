// Product kernels for AVX2 + FMA + F16C: 8 rows a vector; dot products by maddubs.
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "simd/packed_kernels.h"
#include "simd/stripe_kernels.h"
#include "simd/target_region.h"

MNEME_BEGIN_TARGET("avx,avx2,fma,f16c")

namespace mneme {
namespace {

#define MNEME_INLINE static inline __attribute__((always_inline))

struct Avx2 {
  static constexpr int kLanes = 8, kMaxN = 4, kPrefetch = 6144;
  static constexpr bool kWideIsSigned = true;
  static constexpr int pairs_in_16(int max_code) {
    const int most = 32767 / (2 * 127 * max_code);
    return most >= 8 ? 8 : most >= 4 ? 4 : most >= 2 ? 2 : 1;
  }
  using F = __m256;
  using I = __m256i;
  using B = __m256i;
  using A = __m256i;

  MNEME_INLINE void prefetch(const std::byte* p) {
    _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T1);
  }
  /// Into the first-level cache if `near`, else into the second.
  template <bool near>
  MNEME_INLINE void prefetch_to(const std::byte* p) {
    _mm_prefetch(reinterpret_cast<const char*>(p), near ? _MM_HINT_T0 : _MM_HINT_T1);
  }
  MNEME_INLINE F set_f(float x) { return _mm256_set1_ps(x); }
  MNEME_INLINE I set_i(int32_t x) { return _mm256_set1_epi32(x); }
  MNEME_INLINE F load_f(const float* p) { return _mm256_loadu_ps(p); }
  MNEME_INLINE F load_f16(const std::byte* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  MNEME_INLINE F load_bf16(const std::byte* p) {
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
  }
  MNEME_INLINE F load_i8(const std::byte* p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
  }
  MNEME_INLINE void store_f(float* p, F a) { _mm256_storeu_ps(p, a); }
  MNEME_INLINE F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  MNEME_INLINE F add(F a, F b) { return _mm256_add_ps(a, b); }
  MNEME_INLINE F negate(F a) { return _mm256_xor_ps(a, _mm256_set1_ps(-0.0f)); }
  MNEME_INLINE F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  MNEME_INLINE F to_f(I a) { return _mm256_cvtepi32_ps(a); }
  MNEME_INLINE I sub_i(I a, I b) { return _mm256_sub_epi32(a, b); }
  MNEME_INLINE B load_b(const std::byte* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  MNEME_INLINE B low_nibbles(B b) { return _mm256_and_si256(b, _mm256_set1_epi8(15)); }
  MNEME_INLINE B high_nibbles(B b) { return _mm256_and_si256(_mm256_srli_epi16(b, 4), _mm256_set1_epi8(15)); }
  MNEME_INLINE I byte_of(B b, int k) {
    return _mm256_and_si256(_mm256_srl_epi32(b, _mm_cvtsi32_si128(8 * k)), _mm256_set1_epi32(255));
  }
  MNEME_INLINE A repeat4(const int8_t* p) {
    int32_t four;
    std::memcpy(&four, p, 4);
    return _mm256_set1_epi32(four);
  }
  template <bool wide>
  MNEME_INLINE I dot(I acc, B b, A a) {
    __m256i sums;
    if constexpr (wide) {
      // maddubs adds two products in 16 bits: 255 * 127 * 2 would saturate, so codes are taken less 128,
      // their sign moves to the activations, and the bound becomes 128 * 127 * 2 = 32,512.
      const __m256i q = _mm256_xor_si256(b, _mm256_set1_epi8(static_cast<char>(0x80)));
      sums = _mm256_maddubs_epi16(_mm256_abs_epi8(q), _mm256_sign_epi8(a, q));
    } else {
      sums = pairs(b, a);
    }
    return add_widened(acc, sums);
  }
  MNEME_INLINE I pairs(B b, A a) { return _mm256_maddubs_epi16(b, a); }
  MNEME_INLINE I add_pairs(I a, I b) { return _mm256_add_epi16(a, b); }
  MNEME_INLINE I add_widened(I acc, I pairs) {
    return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
  MNEME_INLINE A clamp_7_bits(A a) {
    return _mm256_min_epi8(_mm256_max_epi8(a, _mm256_set1_epi8(-64)), _mm256_set1_epi8(63));
  }
  /// Whether all of 32 lie in -64 .. 63.
  MNEME_INLINE bool have_7_bits(const int8_t* p) {
    const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm256_movemask_epi8(_mm256_add_epi8(a, _mm256_set1_epi8(64))) == 0;
  }
  MNEME_INLINE A sub_bytes(A a, A b) { return _mm256_sub_epi8(a, b); }
  // out[j], lane t: the codes of row 16 j + t (at 0) or 16 j + 8 + t (at 32) of four lines of stripes.h.
  MNEME_INLINE void interleave(const std::byte* const (&line)[4], int64_t at, B (&out)[4]) {
    const __m256i a = load_b(line[0] + at), b = load_b(line[1] + at);
    const __m256i c = load_b(line[2] + at), d = load_b(line[3] + at);
    const __m256i ab_low = _mm256_unpacklo_epi8(a, b), ab_high = _mm256_unpackhi_epi8(a, b);
    const __m256i cd_low = _mm256_unpacklo_epi8(c, d), cd_high = _mm256_unpackhi_epi8(c, d);
    out[0] = _mm256_unpacklo_epi16(ab_low, cd_low);
    out[1] = _mm256_unpackhi_epi16(ab_low, cd_low);
    out[2] = _mm256_unpacklo_epi16(ab_high, cd_high);
    out[3] = _mm256_unpackhi_epi16(ab_high, cd_high);
  }
  MNEME_INLINE uint32_t max_abs_bits32(const float* x) {
    __m256i max = _mm256_setzero_si256();
    for (int i = 0; i < 32; i += 8)
      max =
          _mm256_max_epu32(max, _mm256_and_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + i)),
                                                 _mm256_set1_epi32(0x7fffffff)));
    __m128i m = _mm_max_epu32(_mm256_castsi256_si128(max), _mm256_extracti128_si256(max, 1));
    m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0xb1));
    return static_cast<uint32_t>(_mm_cvtsi128_si32(m));
  }
  MNEME_INLINE void round32(const float* x, float inverse, int8_t* q, int32_t* half_sums) {
    for (int h = 0; h < 2; ++h) {
      const __m256i a =
          _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 16 * h), _mm256_set1_ps(inverse)));
      const __m256i b =
          _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 16 * h + 8), _mm256_set1_ps(inverse)));
      const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
      const __m128i bytes =
          _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(q + 16 * h), bytes);
      const __m256i sum = _mm256_add_epi32(a, b);
      __m128i s = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
      s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
      s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
      half_sums[h] = _mm_cvtsi128_si32(s);
    }
  }
};

}  // namespace
}  // namespace mneme

#include "simd/packed_kernels-inl.h"
#include "simd/stripe_kernels-inl.h"
#include "simd/stripe_panels-inl.h"

namespace mneme {

const PackedKernels& packed_kernels_avx2() {
  static constexpr PackedKernels kernels = make_kernels<Avx2>();
  return kernels;
}
const StripeKernels& stripe_kernels_avx2() {
  static constexpr StripeKernels kernels = make_stripe_kernels<Avx2>();
  return kernels;
}

}  // namespace mneme

MNEME_END_TARGET
#endif
