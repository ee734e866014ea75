// Product kernels for AVX-512 without VNNI: 16 rows a vector; dot products by maddubs.
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "simd/packed_kernels.h"
#include "simd/stripe_kernels.h"
#include "simd/target_region.h"

MNEME_BEGIN_TARGET("avx,avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")

#include "simd/packed_avx512_vocabulary.h"

namespace mneme {
namespace {

struct Avx512 : Avx512Base {
  template <bool wide>
  MNEME_INLINE I dot(I acc, B b, A a) {
    const __m512i ones = _mm512_set1_epi16(1);
    if constexpr (wide) {
      // Two products of u8 and s8 saturate maddubs' 16 bits beyond 32,767: halve the codes' range into two
      // sums.
      const __m512i low = _mm512_and_si512(b, _mm512_set1_epi8(127));
      const __m512i high = _mm512_and_si512(_mm512_srli_epi16(b, 7), _mm512_set1_epi8(1));
      const __m512i sum_low = _mm512_madd_epi16(_mm512_maddubs_epi16(low, a), ones);
      const __m512i sum_high = _mm512_madd_epi16(_mm512_maddubs_epi16(high, a), ones);
      return _mm512_add_epi32(acc, _mm512_add_epi32(sum_low, _mm512_slli_epi32(sum_high, 7)));
    } else {
      return _mm512_add_epi32(acc, _mm512_madd_epi16(_mm512_maddubs_epi16(b, a), ones));
    }
  }
};

}  // namespace
}  // namespace mneme

#include "simd/packed_kernels-inl.h"
#include "simd/stripe_kernels-inl.h"
#include "simd/stripe_panels-inl.h"

namespace mneme {

const PackedKernels& packed_kernels_avx512() {
  static constexpr PackedKernels kernels = make_kernels<Avx512>();
  return kernels;
}
const StripeKernels& stripe_kernels_avx512() {
  static constexpr StripeKernels kernels = make_stripe_kernels<Avx512>();
  return kernels;
}

}  // namespace mneme

MNEME_END_TARGET
#endif
