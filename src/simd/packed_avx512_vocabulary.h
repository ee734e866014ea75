// The 512-bit vector vocabulary, shared by packed_avx512.cpp and packed_avx512_vnni.cpp, which differ in the
// dot product. Included inside a target region, after <immintrin.h>.

namespace mneme {
namespace {

#define MNEME_INLINE static inline __attribute__((always_inline))

struct Avx512Base {
  static constexpr int kLanes = 16, kMaxN = 12, kPrefetch = 6144;
  static constexpr bool kWideIsSigned = false;
  static constexpr int pairs_in_16(int) { return 1; }
  using F = __m512;
  using I = __m512i;
  using B = __m512i;
  using A = __m512i;

  MNEME_INLINE void prefetch(const std::byte* p) {
    _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T1);
  }
  /// Into the first-level cache if `near`, else into the second.
  template <bool near>
  MNEME_INLINE void prefetch_to(const std::byte* p) {
    _mm_prefetch(reinterpret_cast<const char*>(p), near ? _MM_HINT_T0 : _MM_HINT_T1);
  }
  MNEME_INLINE F set_f(float x) { return _mm512_set1_ps(x); }
  MNEME_INLINE I set_i(int32_t x) { return _mm512_set1_epi32(x); }
  MNEME_INLINE F load_f(const float* p) { return _mm512_loadu_ps(p); }
  MNEME_INLINE F load_f16(const std::byte* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  MNEME_INLINE F load_bf16(const std::byte* p) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
  }
  MNEME_INLINE F load_i8(const std::byte* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
  MNEME_INLINE void store_f(float* p, F a) { _mm512_storeu_ps(p, a); }
  MNEME_INLINE F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  MNEME_INLINE F add(F a, F b) { return _mm512_add_ps(a, b); }
  MNEME_INLINE F negate(F a) { return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f)); }
  MNEME_INLINE F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  MNEME_INLINE F to_f(I a) { return _mm512_cvtepi32_ps(a); }
  MNEME_INLINE I sub_i(I a, I b) { return _mm512_sub_epi32(a, b); }
  MNEME_INLINE B load_b(const std::byte* p) { return _mm512_loadu_si512(p); }
  MNEME_INLINE B low_nibbles(B b) { return _mm512_and_si512(b, _mm512_set1_epi8(15)); }
  MNEME_INLINE B high_nibbles(B b) { return _mm512_and_si512(_mm512_srli_epi16(b, 4), _mm512_set1_epi8(15)); }
  MNEME_INLINE I byte_of(B b, int k) {
    return _mm512_and_si512(_mm512_srl_epi32(b, _mm_cvtsi32_si128(8 * k)), _mm512_set1_epi32(255));
  }
  MNEME_INLINE A repeat4(const int8_t* p) {
    int32_t four;
    std::memcpy(&four, p, 4);
    return _mm512_set1_epi32(four);
  }
  // out[j], lane t: the codes of row 16 j + t of four lines of stripes.h, side by side.
  MNEME_INLINE void interleave(const std::byte* const (&line)[4], int64_t at, B (&out)[4]) {
    const __m512i a = load_b(line[0] + at), b = load_b(line[1] + at);
    const __m512i c = load_b(line[2] + at), d = load_b(line[3] + at);
    const __m512i ab_low = _mm512_unpacklo_epi8(a, b), ab_high = _mm512_unpackhi_epi8(a, b);
    const __m512i cd_low = _mm512_unpacklo_epi8(c, d), cd_high = _mm512_unpackhi_epi8(c, d);
    out[0] = _mm512_unpacklo_epi16(ab_low, cd_low);
    out[1] = _mm512_unpackhi_epi16(ab_low, cd_low);
    out[2] = _mm512_unpacklo_epi16(ab_high, cd_high);
    out[3] = _mm512_unpackhi_epi16(ab_high, cd_high);
  }
  MNEME_INLINE uint32_t max_abs_bits32(const float* x) {
    const __m512i mask = _mm512_set1_epi32(0x7fffffff);
    return _mm512_reduce_max_epu32(_mm512_max_epu32(_mm512_and_si512(_mm512_loadu_si512(x), mask),
                                                    _mm512_and_si512(_mm512_loadu_si512(x + 16), mask)));
  }
  MNEME_INLINE void round32(const float* x, float inverse, int8_t* q, int32_t* half_sums) {
    for (int h = 0; h < 2; ++h) {
      const __m512i v =
          _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + 16 * h), _mm512_set1_ps(inverse)));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(q + 16 * h), _mm512_cvtsepi32_epi8(v));
      half_sums[h] = _mm512_reduce_add_epi32(v);
    }
  }
};

}  // namespace
}  // namespace mneme
