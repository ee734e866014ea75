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
#include <type_traits>

#include "core/half.h"
#include "simd/highway_isa.h"

HWY_BEFORE_NAMESPACE();
namespace mneme {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr int64_t kValueQ = kN == 16 ? 6 : 2;  // queries whose sums are kept in registers ...
constexpr int64_t kValueV = 4;                 // ... over this many vectors of dimensions
// Sums of scores that are under way at once: enough to hide how long one addition takes, few enough for the
// registers.
constexpr int64_t kScoreSums = kN == 16 ? 16 : 8;
constexpr int64_t kStride = 4;  // steps of a loop between two calls of Ahead::fetch()

// Cache lines that will be read soon. They are fetched a few at a time between the arithmetic, because memory
// delivers them at its own pace: a core waits for about as many as it has buffers for, and those that nobody
// asked for while it computed are time lost. The hint is for the second-level cache: the first would take
// part in the misses that it cannot answer itself.
class Ahead {
 public:
  void add(const std::byte* begin, int64_t bytes) {
    ranges_[count_++] = {begin, begin + bytes};
    lines_ += bytes / kLine;
  }
  int64_t lines() const { return lines_; }
  HWY_INLINE void fetch(int64_t lines) {
    for (; lines > 0; --lines) {
      if (at_ == end_) {
        if (next_ == count_) return;
        at_ = ranges_[next_].begin;
        end_ = ranges_[next_++].end;
      }
      __builtin_prefetch(at_, 0, 2);
      at_ += kLine;
    }
  }

 private:
  static constexpr int64_t kLine = 64;
  struct Range {
    const std::byte *begin, *end;  // whole lines
  };
  Range ranges_[3] = {};
  int count_ = 0, next_ = 0;
  int64_t lines_ = 0;
  const std::byte *at_ = nullptr, *end_ = nullptr;
};

// How many of `lines` to fetch every kStride of `steps` steps.
HWY_INLINE int64_t lines_a_stride(int64_t lines, int64_t steps) {
  return (lines * kStride + steps - 1) / steps;
}

// sum[i][j] += factors[i * stride] * v[j]
template <int64_t Q, int64_t M>
HWY_INLINE void multiply_add(const float* factors, int64_t stride, const V (&v)[M], V (&sum)[Q][M]) {
  HWY_UNROLL(8)
  for (int64_t i = 0; i < Q; ++i) {
    const V factor = hn::Set(d, factors[i * stride]);
    HWY_UNROLL(8)
    for (int64_t j = 0; j < M; ++j) sum[i][j] = hn::MulAdd(v[j], factor, sum[i][j]);
  }
}

// sum[i][j] -> out[i * stride + j * kN ...]
template <int64_t Q, int64_t M>
HWY_INLINE void store_sums(const V (&sum)[Q][M], float* out, int64_t stride) {
  for (int64_t i = 0; i < Q; ++i)
    for (int64_t j = 0; j < M; ++j) hn::StoreU(sum[i][j], d, out + i * stride + j * kN);
}

// scores[i][p] for Q queries and M vectors of positions, each summed as in score_block().
template <int64_t Q, int64_t M, class T>
HWY_INLINE void score_vectors(const float* q, int64_t dim, const T* k, int64_t lines, Ahead& ahead_of_all,
                              float* scores) {
  Ahead ahead = ahead_of_all;  // a copy, because stores of scores might change it for all a compiler knows
  V sum[Q][M];
  for (int64_t i = 0; i < Q; ++i)
    for (int64_t j = 0; j < M; ++j) sum[i][j] = hn::Zero(d);
  for (int64_t c = 0; c < dim; ++c) {
    V key[M];
    for (int64_t j = 0; j < M; ++j) key[j] = load(k + (j * kN / 16 * dim + c) * 16 + j * kN % 16);
    if (c % kStride == 0) ahead.fetch(lines);
    multiply_add(q + c, dim, key, sum);
  }
  store_sums(sum, scores, kAttentionBlock);
  ahead_of_all = ahead;
}

template <int64_t Q, class T>
HWY_INLINE void score_positions(const float* q, int64_t dim, const T* k, int64_t positions, int64_t lines,
                                Ahead& ahead, float* scores) {
  constexpr int64_t kGroup = 16 / kN;  // vectors of 16 positions
  constexpr int64_t M = HWY_MIN(HWY_MAX(kScoreSums / Q / kGroup, 1), 4) * kGroup;
  const int64_t each = lines_a_stride(lines, positions / (M * kN) * dim + 1);
  int64_t p = 0;
  for (; p + M * kN <= positions; p += M * kN)
    score_vectors<Q, M>(q, dim, k + p * dim, each, ahead, scores + p);
  for (; p < positions; p += 16) score_vectors<Q, kGroup>(q, dim, k + p * dim, each, ahead, scores + p);
}

// Calls take(Q) for groups of Q queries from the largest of `sizes` on, until all are taken.
template <int64_t... sizes, class Take>
HWY_INLINE void in_groups(int64_t queries, Take take) {
  int64_t i = 0;
  const auto groups_of = [&](auto size) {
    for (; i + size <= queries; i += size) take(size, i);
  };
  (groups_of(std::integral_constant<int64_t, sizes>()), ...);
}

template <class T>
HWY_NOINLINE void all_scores(const AttentionArgs& args, const T* k, int64_t positions, int64_t lines,
                             Ahead& ahead, float* scores) {
  const int64_t dim = args.geometry.padded_dim();
  in_groups<kScoreQ, 4, 3, 2, 1>(args.queries, [&](auto size, int64_t i) {
    score_positions<size>(args.q + i * dim, dim, k, positions, i == 0 ? lines : 0, ahead,
                          scores + i * kAttentionBlock);
  });
}

// acc[i] += sum over positions of p[i][position] * v[position], for Q queries and C vectors of dimensions
template <int64_t Q, int64_t C, class T>
HWY_INLINE void value_block(const float* p, const T* v, int64_t positions, int64_t dim, int64_t lines,
                            Ahead& ahead_of_all, float* acc) {
  Ahead ahead = ahead_of_all;
  V sum[Q][C];
  for (int64_t i = 0; i < Q; ++i)
    for (int64_t c = 0; c < C; ++c) sum[i][c] = load(acc + i * dim + c * kN);
  for (int64_t t = 0; t < positions; ++t) {
    V value[C];
    for (int64_t c = 0; c < C; ++c) value[c] = load(v + t * dim + c * kN);
    if (t % kStride == 0) ahead.fetch(lines);
    multiply_add(p + t, kAttentionBlock, value, sum);
  }
  store_sums(sum, acc, dim);
  ahead_of_all = ahead;
}

template <int64_t Q, class T>
HWY_INLINE void value_queries(const float* p, const T* v, int64_t positions, int64_t dim, int64_t lines,
                              Ahead& ahead, float* acc) {
  constexpr int64_t kWide = kValueV * kN;
  const int64_t each = lines_a_stride(lines, positions * HWY_MAX(dim / kWide, 1));
  int64_t c = 0;
  for (; c + kWide <= dim; c += kWide)
    value_block<Q, kValueV>(p, v + c, positions, dim, each, ahead, acc + c);
  for (; c < dim; c += kN) value_block<Q, 1>(p, v + c, positions, dim, each, ahead, acc + c);
}

template <class T>
HWY_NOINLINE void all_values(const AttentionArgs& args, const T* v, int64_t positions, const float* p,
                             int64_t lines, Ahead& ahead, float* acc) {
  const int64_t dim = args.geometry.padded_dim();
  const auto take = [&](auto size, int64_t i) {
    value_queries<size>(p + i * kAttentionBlock, v, positions, dim, i == 0 ? lines : 0, ahead, acc + i * dim);
  };
  if constexpr (kValueQ > 4)
    in_groups<kValueQ, 4, 3, 2, 1>(args.queries, take);
  else
    in_groups<kValueQ, 1>(args.queries, take);
}

// Scales, caps and hides the scores of one query; returns the largest.
HWY_INLINE float visible_scores(const AttentionArgs& args, int64_t query, int64_t begin, int64_t positions,
                                const float* k_scale, float* scores) {
  const int64_t hi = args.hi[query], lo = args.lo[query];
  const float infinity = std::numeric_limits<float>::infinity();
  const V cap = hn::Set(d, args.softcap);
  V top = hn::Set(d, -infinity);
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
  return hn::GetLane(hn::MaxOfLanes(d, top));
}

// Scores of one query, the largest of which is block_max, become exp(score - m); m, l and acc follow.
HWY_INLINE void softmax_update(const AttentionArgs& args, int64_t query, int64_t positions, float block_max,
                               const float* v_scale, float* scores, const AttentionState& state) {
  const float infinity = std::numeric_limits<float>::infinity();
  const float old_max = state.m[query];
  const float new_max = std::max(old_max, block_max);
  if (new_max == -infinity) {  // it sees nothing so far
    std::memset(scores, 0, static_cast<size_t>(positions) * sizeof(float));
    return;
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
}

// Both for every query, the first for several of them before the second: what one waits for, others fill.
HWY_NOINLINE void all_softmax(const AttentionArgs& args, int64_t begin, int64_t positions,
                              const float* k_scale, const float* v_scale, int64_t lines, Ahead& ahead,
                              float* scores, const AttentionState& state) {
  constexpr int64_t kTogether = 8;
  const int64_t each = (lines + args.queries - 1) / args.queries;
  for (int64_t first = 0; first < args.queries; first += kTogether) {
    const int64_t end = std::min(first + kTogether, args.queries);
    float top[kTogether];
    for (int64_t i = first; i < end; ++i) {
      ahead.fetch(each);
      top[i - first] = visible_scores(args, i, begin, positions, k_scale, scores + i * kAttentionBlock);
    }
    for (int64_t i = first; i < end; ++i)
      softmax_update(args, i, positions, top[i - first], v_scale, scores + i * kAttentionBlock, state);
  }
}

bool block_visible(const AttentionArgs& args, int64_t begin, int64_t end) {
  for (int64_t i = 0; i < args.queries; ++i) {
    if (begin < args.hi[i] && (end > args.lo[i] || begin < args.sinks)) return true;
  }
  return false;
}

// Where the keys and values of a block of kAttentionBlock positions are.
template <class T>
struct KvBlock {
  const T *k = nullptr, *v = nullptr;  // null where the page is not there
  const float *k_scale = nullptr, *v_scale = nullptr;

  KvBlock(const AttentionArgs& args, int64_t kv_head, int64_t position) {
    const KvGeometry& g = args.geometry;
    const std::byte* page = args.pages[position / kPagePositions];
    if (page == nullptr) return;
    const std::byte* head = page + args.page_offset + kv_head * g.head_bytes();
    const int64_t in_page = position % kPagePositions, at = in_page * g.padded_dim();
    k = reinterpret_cast<const T*>(head) + at;
    v = reinterpret_cast<const T*>(head + g.k_bytes()) + at;
    if (g.format != KvFormat::int8) return;
    k_scale = reinterpret_cast<const float*>(head + 2 * g.k_bytes()) + in_page;
    v_scale = k_scale + kPagePositions;
  }
};

// The lines to be fetched while the block at p is computed: those of the next one, and for a beginning that
// nobody announced its own values too.
template <class T>
Ahead ahead_of(const AttentionArgs& args, const KvBlock<T>& block, bool announced, int64_t p, int64_t end,
               AttentionScratch& scratch) {
  const int64_t bytes = kAttentionBlock * args.geometry.padded_dim() * static_cast<int64_t>(sizeof(T));
  Ahead ahead;
  if (!announced) ahead.add(reinterpret_cast<const std::byte*>(block.v), bytes);
  const bool more = p + kAttentionBlock < end;
  scratch.announced = nullptr;
  if (!more && args.then_position < 0) return ahead;
  const KvBlock<T> next(args, more ? args.kv_head : args.then_kv_head,
                        more ? p + kAttentionBlock : args.then_position / kAttentionBlock * kAttentionBlock);
  if (next.k == nullptr) return ahead;
  ahead.add(reinterpret_cast<const std::byte*>(next.k), bytes);
  ahead.add(reinterpret_cast<const std::byte*>(next.v), bytes);
  scratch.announced = next.k;
  return ahead;
}

template <class T>
void attend_typed(const AttentionArgs& args, int64_t begin, int64_t end, AttentionScratch& scratch,
                  const AttentionState& state) {
  const int64_t dim = args.geometry.padded_dim();
  const auto grow = [](std::vector<float>& v, int64_t size) {
    if (static_cast<int64_t>(v.size()) < size) v.resize(static_cast<size_t>(size));
  };
  grow(scratch.scores, args.queries * kAttentionBlock);
  // With many queries a block is converted to floats once instead of once per group of queries, and its
  // arithmetic takes so long that the processor's own prefetching keeps up.
  const bool many = args.queries > kScoreQ, convert = sizeof(T) != 4 && many;
  if (convert) {
    grow(scratch.k, kAttentionBlock * dim);
    grow(scratch.v, kAttentionBlock * dim);
  }
  float* scores = scratch.scores.data();
  for (int64_t p = begin; p < end; p += kAttentionBlock) {
    const int64_t positions = std::min(kAttentionBlock, (end - p + 15) / 16 * 16);
    const KvBlock<T> block(args, args.kv_head, p);
    if (block.k == nullptr || !block_visible(args, p, p + positions)) continue;
    Ahead ahead;
    if (!many) ahead = ahead_of(args, block, scratch.announced == block.k, p, end, scratch);
    // Shares of the lines as the parts have shares of the time.
    const int64_t lines = ahead.lines(), in_softmax = lines / 4, in_scores = (lines - in_softmax) / 2;
    const auto compute = [&](const auto* k, const auto* v) {
      all_scores(args, k, positions, in_scores, ahead, scores);
      all_softmax(args, p, positions, block.k_scale, block.v_scale, in_softmax, ahead, scores, state);
      all_values(args, v, positions, scores, in_scores, ahead, state.acc);
    };
    if (!convert) {
      compute(block.k, block.v);
      continue;
    }
    for (int64_t i = 0; i < positions * dim; i += kN) {
      hn::StoreU(load(block.k + i), d, scratch.k.data() + i);
      hn::StoreU(load(block.v + i), d, scratch.v.data() + i);
    }
    compute(scratch.k.data(), scratch.v.data());
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
