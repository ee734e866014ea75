// Product kernels for AVX-512 with VNNI: vpdpbusd multiplies 64 pairs of bytes and adds them to 16 sums.
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "simd/packed_kernels.h"
#include "simd/stripe_kernels.h"
#include "simd/target_region.h"

MNEME_BEGIN_TARGET("avx,avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")

#include "simd/packed_avx512_vocabulary.h"

namespace mneme {
namespace {

struct Avx512Vnni : Avx512Base {
  template <bool wide>
  MNEME_INLINE I dot(I acc, B b, A a) {
    return _mm512_dpbusd_epi32(acc, b, a);
  }
};

}  // namespace
}  // namespace mneme

#include "simd/packed_kernels-inl.h"
#include "simd/stripe_kernels-inl.h"
#include "simd/stripe_panels-inl.h"

namespace mneme {

const PackedKernels& packed_kernels_avx512_vnni() {
  static constexpr PackedKernels kernels = make_kernels<Avx512Vnni>();
  return kernels;
}
const StripeKernels& stripe_kernels_avx512_vnni() {
  static constexpr StripeKernels kernels = make_stripe_kernels<Avx512Vnni>();
  return kernels;
}

}  // namespace mneme

MNEME_END_TARGET
#endif
