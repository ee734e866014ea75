#include "simd/attention.h"

// Highway re-includes this file for every target, so these includes have an order of their own.
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "simd/attention.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
#include <hwy/contrib/math/math-inl.h>
#include "simd/score_block-inl.h"
// clang-format on

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/half.h"
#include "simd/highway_isa.h"

HWY_BEFORE_NAMESPACE();
namespace mneme {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr int64_t kValueQ = kN == 16 ? 6 : 2;  // queries whose sums are kept in registers ...
constexpr int64_t kValueV = 4;                 // ... over this many vectors of dimensions

template <class T>
HWY_NOINLINE void all_scores(const AttentionArgs& args, const T* k, int64_t positions, float* scores) {
  const int64_t dim = args.geometry.padded_dim();
  for (int64_t block = 0; block < positions; block += 16) {
    score_queries(args.q, args.queries, dim, k + block * dim, scores + block, kAttentionBlock);
  }
}

// acc[i] += sum over positions of p[i][position] * v[position], for Q queries and C vectors of dimensions
template <int64_t Q, int64_t C, class T>
HWY_INLINE void value_block(const float* p, const T* v, int64_t positions, int64_t dim, float* acc) {
  V sum[Q][C];
  for (int64_t i = 0; i < Q; ++i)
    for (int64_t c = 0; c < C; ++c) sum[i][c] = load(acc + i * dim + c * kN);
  for (int64_t t = 0; t < positions; ++t) {
    V value[C];
    for (int64_t c = 0; c < C; ++c) value[c] = load(v + t * dim + c * kN);
    HWY_UNROLL(6)
    for (int64_t i = 0; i < Q; ++i) {
      const V weight = hn::Set(d, p[i * kAttentionBlock + t]);
      HWY_UNROLL(4)
      for (int64_t c = 0; c < C; ++c) sum[i][c] = hn::MulAdd(value[c], weight, sum[i][c]);
    }
  }
  for (int64_t i = 0; i < Q; ++i)
    for (int64_t c = 0; c < C; ++c) hn::StoreU(sum[i][c], d, acc + i * dim + c * kN);
}

template <int64_t Q, class T>
HWY_INLINE void value_queries(const float* p, const T* v, int64_t positions, int64_t dim, float* acc) {
  int64_t c = 0;
  for (; c + kValueV * kN <= dim; c += kValueV * kN)
    value_block<Q, kValueV>(p, v + c, positions, dim, acc + c);
  for (; c < dim; c += kN) value_block<Q, 1>(p, v + c, positions, dim, acc + c);
}

template <class T>
HWY_NOINLINE void all_values(const AttentionArgs& args, const T* v, int64_t positions, const float* p,
                             float* acc) {
  const int64_t dim = args.geometry.padded_dim();
  int64_t i = 0;
  if constexpr (kValueQ > 4)
    for (; i + kValueQ <= args.queries; i += kValueQ)
      value_queries<kValueQ>(p + i * kAttentionBlock, v, positions, dim, acc + i * dim);
  if constexpr (kValueQ > 4)
    for (; i + 4 <= args.queries; i += 4)
      value_queries<4>(p + i * kAttentionBlock, v, positions, dim, acc + i * dim);
  if constexpr (kValueQ > 4)
    for (; i + 3 <= args.queries; i += 3)
      value_queries<3>(p + i * kAttentionBlock, v, positions, dim, acc + i * dim);
  for (; i + 2 <= args.queries; i += 2)
    value_queries<2>(p + i * kAttentionBlock, v, positions, dim, acc + i * dim);
  for (; i < args.queries; ++i) value_queries<1>(p + i * kAttentionBlock, v, positions, dim, acc + i * dim);
}

// Scores of one query become exp(score - m); m, l and acc follow. Returns false if the query sees nothing
// here.
HWY_INLINE bool softmax_update(const AttentionArgs& args, int64_t query, int64_t begin, int64_t positions,
                               const float* k_scale, const float* v_scale, float* scores,
                               const AttentionState& state) {
  const int64_t hi = args.hi[query], lo = args.lo[query];
  const float infinity = std::numeric_limits<float>::infinity();
  const V minus_infinity = hn::Set(d, -infinity);
  const V cap = hn::Set(d, args.softcap);
  V top = minus_infinity;
  for (int64_t p = 0; p < positions; p += kN) {
    V s = load(scores + p);
    if (k_scale != nullptr) s = hn::Mul(s, load(k_scale + p));
    if (args.softcap > 0) s = hn::Mul(cap, hn::Tanh(d, hn::Div(s, cap)));
    const int64_t first = begin + p;
    const bool all_visible = first + kN <= hi && (first >= lo || first + kN <= args.sinks);
    if (!all_visible) {
      HWY_ALIGN float visible[16];
      hn::StoreU(s, d, visible);
      for (int64_t i = 0; i < kN; ++i) {
        const int64_t at = first + i;
        if (at >= hi || (at < lo && at >= args.sinks)) visible[i] = -infinity;
      }
      s = load(visible);
    }
    hn::StoreU(s, d, scores + p);
    top = hn::Max(top, s);
  }
  const float block_max = hn::GetLane(hn::MaxOfLanes(d, top));
  const float old_max = state.m[query];
  const float new_max = std::max(old_max, block_max);
  if (new_max == -infinity) {
    std::memset(scores, 0, static_cast<size_t>(positions) * sizeof(float));
    return false;
  }
  const V shift = hn::Set(d, new_max);
  V sum = hn::Zero(d);
  for (int64_t p = 0; p < positions; p += kN) {
    const V s = hn::Sub(load(scores + p), shift);
    // exp(-inf) must be 0 exactly; below -87 it is too small to matter and Exp would underflow slowly.
    V e = hn::IfThenElseZero(hn::Gt(s, hn::Set(d, -87.0f)), hn::Exp(d, hn::Max(s, hn::Set(d, -87.0f))));
    sum = hn::Add(sum, e);
    if (v_scale != nullptr) e = hn::Mul(e, load(v_scale + p));
    hn::StoreU(e, d, scores + p);
  }
  const float block_sum = hn::GetLane(hn::SumOfLanes(d, sum));
  if (new_max > old_max) {
    const float correction = old_max == -infinity ? 0.0f : std::exp(old_max - new_max);
    const int64_t dim = args.geometry.padded_dim();
    const V factor = hn::Set(d, correction);
    float* acc = state.acc + query * dim;
    for (int64_t c = 0; c < dim; c += kN) hn::StoreU(hn::Mul(load(acc + c), factor), d, acc + c);
    state.l[query] *= correction;
    state.m[query] = new_max;
  }
  state.l[query] += block_sum;
  return true;
}

bool block_visible(const AttentionArgs& args, int64_t begin, int64_t end) {
  for (int64_t i = 0; i < args.queries; ++i) {
    if (begin < args.hi[i] && (end > args.lo[i] || begin < args.sinks)) return true;
  }
  return false;
}

template <class T>
void attend_typed(const AttentionArgs& args, int64_t begin, int64_t end, AttentionScratch& scratch,
                  const AttentionState& state) {
  const KvGeometry& g = args.geometry;
  const int64_t dim = g.padded_dim();
  const auto grow = [](std::vector<float>& v, int64_t size) {
    if (static_cast<int64_t>(v.size()) < size) v.resize(static_cast<size_t>(size));
  };
  grow(scratch.scores, args.queries * kAttentionBlock);
  // With many queries a block is converted to floats once instead of once per group of queries.
  const bool convert = sizeof(T) != 4 && args.queries > kScoreQ;
  if (convert) {
    grow(scratch.k, kAttentionBlock * dim);
    grow(scratch.v, kAttentionBlock * dim);
  }
  float* scores = scratch.scores.data();
  for (int64_t p = begin; p < end; p += kAttentionBlock) {
    const int64_t positions = std::min(kAttentionBlock, (end - p + 15) / 16 * 16);
    const std::byte* page = args.pages[p / kPagePositions];
    if (page == nullptr || !block_visible(args, p, p + positions)) continue;
    const std::byte* head = page + args.page_offset + args.kv_head * g.head_bytes();
    const int64_t in_page = p % kPagePositions;
    const T* k = reinterpret_cast<const T*>(head) + in_page * dim;
    const T* v = reinterpret_cast<const T*>(head + g.k_bytes()) + in_page * dim;
    const float* k_scale = nullptr;
    const float* v_scale = nullptr;
    if (g.format == KvFormat::int8) {
      k_scale = reinterpret_cast<const float*>(head + 2 * g.k_bytes()) + in_page;
      v_scale = k_scale + kPagePositions;
    }
    if (convert) {
      for (int64_t i = 0; i < positions * dim; i += kN) {
        hn::StoreU(load(k + i), d, scratch.k.data() + i);
        hn::StoreU(load(v + i), d, scratch.v.data() + i);
      }
      all_scores(args, scratch.k.data(), positions, scores);
    } else {
      all_scores(args, k, positions, scores);
    }
    for (int64_t i = 0; i < args.queries; ++i)
      softmax_update(args, i, p, positions, k_scale, v_scale, scores + i * kAttentionBlock, state);
    if (convert)
      all_values(args, scratch.v.data(), positions, scores, state.acc);
    else
      all_values(args, v, positions, scores, state.acc);
  }
}

void attend_any(const AttentionArgs& args, int64_t begin, int64_t end, AttentionScratch& scratch,
                const AttentionState& state) {
  switch (args.geometry.format) {
    case KvFormat::f16:
      return attend_typed<hwy::float16_t>(args, begin, end, scratch, state);
    case KvFormat::int8:
      return attend_typed<int8_t>(args, begin, end, scratch, state);
    case KvFormat::f32:
      return attend_typed<float>(args, begin, end, scratch, state);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace mneme
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mneme {
namespace {

HWY_EXPORT(attend_any);

// d and the 127 of one int8 vector; a vector of zeros has scale 0, or the least one.
float int8_scale(const float* x, int64_t n, float least) {
  float max = 0;
  for (int64_t i = 0; i < n; ++i) max = std::max(max, std::abs(x[i]));
  return std::max(max / 127.0f, least);
}

int8_t round_int8(float x, float scale) {
  if (scale == 0) return 0;
  return static_cast<int8_t>(std::lrintf(std::clamp(x / scale, -127.0f, 127.0f)));
}

struct Slot {
  std::byte* k;
  std::byte* v;
  float* k_scale;
  float* v_scale;
};

Slot slot(const KvGeometry& g, std::byte* page, int64_t kv_head) {
  std::byte* head = page + kv_head * g.head_bytes();
  auto* scales = reinterpret_cast<float*>(head + 2 * g.k_bytes());
  return {head, head + g.k_bytes(), scales, scales + kPagePositions};
}

}  // namespace

void attend(const AttentionArgs& args, int64_t begin, int64_t end, AttentionScratch& scratch,
            const AttentionState& state) {
  sync_highway_isa();
  HWY_DYNAMIC_DISPATCH(attend_any)(args, begin, end, scratch, state);
}

void store_kv(const KvGeometry& g, std::byte* page, int64_t kv_head, int64_t position, const float* k,
              const float* v) {
  const Slot s = slot(g, page, kv_head);
  const int64_t dim = g.padded_dim();
  const int64_t k_at = position / 16 * 16 * dim + position % 16, v_at = position * dim;
  switch (g.format) {
    case KvFormat::f16:
      for (int64_t i = 0; i < g.head_dim; ++i) {
        reinterpret_cast<uint16_t*>(s.k)[k_at + 16 * i] = f32_to_f16(k[i]);
        reinterpret_cast<uint16_t*>(s.v)[v_at + i] = f32_to_f16(v[i]);
      }
      return;
    case KvFormat::f32:
      for (int64_t i = 0; i < g.head_dim; ++i) {
        reinterpret_cast<float*>(s.k)[k_at + 16 * i] = k[i];
        reinterpret_cast<float*>(s.v)[v_at + i] = v[i];
      }
      return;
    case KvFormat::int8:
      s.k_scale[position] = int8_scale(k, g.head_dim, g.least_scale);
      s.v_scale[position] = int8_scale(v, g.head_dim, g.least_scale);
      for (int64_t i = 0; i < g.head_dim; ++i) {
        reinterpret_cast<int8_t*>(s.k)[k_at + 16 * i] = round_int8(k[i], s.k_scale[position]);
        reinterpret_cast<int8_t*>(s.v)[v_at + i] = round_int8(v[i], s.v_scale[position]);
      }
  }
}

void load_kv(const KvGeometry& g, const std::byte* page, int64_t kv_head, int64_t position, float* k,
             float* v) {
  const Slot s = slot(g, const_cast<std::byte*>(page), kv_head);
  const int64_t dim = g.padded_dim();
  for (int64_t i = 0; i < g.head_dim; ++i) {
    const int64_t k_at = position / 16 * 16 * dim + position % 16 + 16 * i, v_at = position * dim + i;
    switch (g.format) {
      case KvFormat::f16:
        k[i] = f16_to_f32(reinterpret_cast<const uint16_t*>(s.k)[k_at]);
        v[i] = f16_to_f32(reinterpret_cast<const uint16_t*>(s.v)[v_at]);
        break;
      case KvFormat::f32:
        k[i] = reinterpret_cast<const float*>(s.k)[k_at];
        v[i] = reinterpret_cast<const float*>(s.v)[v_at];
        break;
      case KvFormat::int8:
        k[i] = static_cast<float>(reinterpret_cast<const int8_t*>(s.k)[k_at]) * s.k_scale[position];
        v[i] = static_cast<float>(reinterpret_cast<const int8_t*>(s.v)[v_at]) * s.v_scale[position];
        break;
    }
  }
}

void merge_attention(const AttentionState& first, int64_t parts, int64_t stride, int64_t padded_dim,
                     int64_t head_dim, const float* sink, float* out) {
  float max = sink != nullptr ? *sink : -std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < parts; ++i) max = std::max(max, first.m[i * stride]);
  float total = sink != nullptr ? std::exp(*sink - max) : 0.0f;
  std::fill_n(out, head_dim, 0.0f);
  for (int64_t i = 0; i < parts; ++i) {
    if (first.m[i * stride] == -std::numeric_limits<float>::infinity()) continue;
    const float weight = std::exp(first.m[i * stride] - max);
    total += weight * first.l[i * stride];
    const float* acc = first.acc + i * stride * padded_dim;
    for (int64_t c = 0; c < head_dim; ++c) out[c] += weight * acc[c];
  }
  const float inverse = 1.0f / total;
  for (int64_t c = 0; c < head_dim; ++c) out[c] *= inverse;
}

}  // namespace mneme
#endif
