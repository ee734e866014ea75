// Scores of a few queries against 16 keys whose dimensions are interleaved, [dim][16]: the layout of keys in
// a cache page and of mean keys in a summary tile. Included by kernels that Highway compiles once for every
// target.
//
// The sum over dimensions of one query and one key is taken in ascending order by fused multiply-adds (where
// the target has them), whatever the number of queries and whatever the vector length: a score does not
// depend on its company.
#if defined(MNEME_SIMD_SCORE_BLOCK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MNEME_SIMD_SCORE_BLOCK_INL_H_
#undef MNEME_SIMD_SCORE_BLOCK_INL_H_
#else
#define MNEME_SIMD_SCORE_BLOCK_INL_H_
#endif

#include <hwy/highway.h>

#include <cstdint>

HWY_BEFORE_NAMESPACE();
namespace mneme {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::CappedTag<float, 16>;
using V = hn::Vec<D>;
constexpr D d;
constexpr int64_t kN = HWY_MIN(HWY_LANES(float), 16);  // lanes
constexpr int64_t kScoreQ = 8;                         // queries whose scores are computed together

HWY_INLINE V load(const float* p) {
  return hn::LoadU(d, p);
}
HWY_INLINE V load(const hwy::float16_t* p) {
  return hn::PromoteTo(d, hn::LoadU(hn::Rebind<hwy::float16_t, D>(), p));
}
HWY_INLINE V load(const int8_t* p) {
  const hn::Rebind<int8_t, D> d8;
  const hn::Rebind<int32_t, D> d32;
  return hn::ConvertTo(d, hn::PromoteTo(d32, hn::LoadU(d8, p)));
}

// scores[i][p] for Q queries and 16 positions: sum over dim of q[i][dim] * k[dim][p]
template <int64_t Q, class T>
HWY_INLINE void score_block(const float* q, int64_t dim, const T* k, float* scores, int64_t stride) {
  for (int64_t p = 0; p < 16; p += kN) {
    V sum[Q];
    for (int64_t i = 0; i < Q; ++i) sum[i] = hn::Zero(d);
    for (int64_t c = 0; c < dim; ++c) {
      const V key = load(k + c * 16 + p);
      HWY_UNROLL(8)
      for (int64_t i = 0; i < Q; ++i) sum[i] = hn::MulAdd(key, hn::Set(d, q[i * dim + c]), sum[i]);
    }
    for (int64_t i = 0; i < Q; ++i) hn::StoreU(sum[i], d, scores + i * stride + p);
  }
}

// The same for any number of queries [queries, dim], as many together as registers allow.
template <class T>
HWY_INLINE void score_queries(const float* q, int64_t queries, int64_t dim, const T* k, float* scores,
                              int64_t stride) {
  int64_t i = 0;
  for (; i + kScoreQ <= queries; i += kScoreQ)
    score_block<kScoreQ>(q + i * dim, dim, k, scores + i * stride, stride);
  for (; i + 4 <= queries; i += 4) score_block<4>(q + i * dim, dim, k, scores + i * stride, stride);
  for (; i + 3 <= queries; i += 3) score_block<3>(q + i * dim, dim, k, scores + i * stride, stride);
  for (; i + 2 <= queries; i += 2) score_block<2>(q + i * dim, dim, k, scores + i * stride, stride);
  for (; i < queries; ++i) score_block<1>(q + i * dim, dim, k, scores + i * stride, stride);
}

}  // namespace HWY_NAMESPACE
}  // namespace mneme
HWY_AFTER_NAMESPACE();

#endif
