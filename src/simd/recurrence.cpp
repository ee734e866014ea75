#include "simd/recurrence.h"

// Highway re-includes this file for every target, so these includes have an order of their own.
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "simd/recurrence.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

#include <algorithm>
#include <vector>

#include "simd/highway_isa.h"

HWY_BEFORE_NAMESPACE();
namespace mneme {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::CappedTag<float, kStateColumns>;
using V = hn::Vec<D>;
constexpr D d;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(d));
constexpr int kGroup = 8;  // query heads that one pass over the state reads for; more take further passes

#if HWY_TARGET == HWY_AVX3 || HWY_ARCH_ARM_A64
constexpr int kRegisters = 32;
#else
constexpr int kRegisters = 16;
#endif

// Vectors of columns that a pass keeps in registers: `heads` sums each, the value, the state.
constexpr int vectors_for(int heads) {
  for (int n = 4; n > 1; n /= 2)
    if ((heads + 2) * n + 3 <= kRegisters) return n;
  return 1;
}

// One token of N vectors of columns.
struct Token {
  const float *k, *decay, *v;  // v at the columns
  float beta;
  const float* q;  // of the first of the heads
  int64_t dim, stride;
  const float* in;  // the state at the columns
  float* out;
};

// sum_r x[r] S[r] over two interleaved sums, so that additions do not wait for each other.
template <int N>
HWY_INLINE void project(const Token& t, V* sum) {
  V odd[N];
  for (int j = 0; j < N; ++j) sum[j] = odd[j] = hn::Zero(d);
  int64_t r = 0;
  for (; r + 2 <= t.dim; r += 2) {
    const V a = hn::Set(d, t.k[r]), b = hn::Set(d, t.k[r + 1]);
    for (int j = 0; j < N; ++j) {
      sum[j] = hn::MulAdd(a, hn::LoadU(d, t.in + r * t.stride + j * kLanes), sum[j]);
      odd[j] = hn::MulAdd(b, hn::LoadU(d, t.in + (r + 1) * t.stride + j * kLanes), odd[j]);
    }
  }
  if (r < t.dim)
    for (int j = 0; j < N; ++j)
      sum[j] = hn::MulAdd(hn::Set(d, t.k[r]), hn::LoadU(d, t.in + r * t.stride + j * kLanes), sum[j]);
  for (int j = 0; j < N; ++j) sum[j] = hn::Add(sum[j], odd[j]);
}

// The update of a state and the read-out for `kHeads` heads; y: [kHeads][N].
template <bool kDelta, int kHeads, int N>
HWY_INLINE void update_and_read(const Token& t, V* y) {
  V v[N];
  for (int j = 0; j < N; ++j) v[j] = hn::LoadU(d, t.v + j * kLanes);
  if (kDelta) {
    V seen[N];
    project<N>(t, seen);
    const V decay = hn::Set(d, t.decay[0]), beta = hn::Set(d, t.beta);
    for (int j = 0; j < N; ++j) v[j] = hn::Mul(beta, hn::NegMulAdd(decay, seen[j], v[j]));
  }
  V sum[HWY_MAX(kHeads, 1) * N];  // a local, so that the compiler leaves it in registers
  for (int i = 0; i < kHeads * N; ++i) sum[i] = hn::Zero(d);
  for (int64_t r = 0; r < t.dim; ++r) {
    const V decay = hn::Set(d, t.decay[kDelta ? 0 : r]), k = hn::Set(d, t.k[r]);
    V s[N];
    for (int j = 0; j < N; ++j) {
      s[j] = hn::MulAdd(decay, hn::LoadU(d, t.in + r * t.stride + j * kLanes), hn::Mul(k, v[j]));
      hn::StoreU(s[j], d, t.out + r * t.stride + j * kLanes);
    }
    for (int h = 0; h < kHeads; ++h) {
      const V q = hn::Set(d, t.q[h * t.dim + r]);
      for (int j = 0; j < N; ++j) sum[h * N + j] = hn::MulAdd(q, s[j], sum[h * N + j]);
    }
  }
  for (int i = 0; i < kHeads * N; ++i) y[i] = sum[i];
}

// The read-out alone, of the state after the token.
template <int kHeads, int N>
HWY_INLINE void read(const Token& t, V* y) {
  for (int i = 0; i < kHeads * N; ++i) y[i] = hn::Zero(d);
  for (int64_t r = 0; r < t.dim; ++r)
    for (int h = 0; h < kHeads; ++h) {
      const V q = hn::Set(d, t.q[h * t.dim + r]);
      for (int j = 0; j < N; ++j)
        y[h * N + j] = hn::MulAdd(q, hn::LoadU(d, t.out + r * t.stride + j * kLanes), y[h * N + j]);
    }
}

// Writes vectors at columns [column, column + N lanes) of `heads` rows of dim values.
template <int kHeads, int N>
HWY_INLINE void store_rows(const V* y, int64_t column, int64_t dim, float* to) {
  for (int h = 0; h < kHeads; ++h)
    for (int j = 0; j < N; ++j) {
      const int64_t c = column + j * kLanes;
      float* row = to + h * dim + c;
      if (c + kLanes <= dim) {
        hn::StoreU(y[h * N + j], d, row);
      } else if (c < dim) {
        HWY_ALIGN float last[kLanes];
        hn::Store(y[h * N + j], d, last);
        std::copy_n(last, dim - c, row);
      }
    }
}

template <bool kDelta, int kHeads, int N>
void run_columns(const RecurrenceShape& shape, const RecurrenceTokens& tokens, int64_t column,
                 const float* in, float* out);

// Further heads of a group, when there are more than kGroup.
template <int N>
void read_more(const RecurrenceShape& shape, Token t, int64_t column, float* y) {
  for (int64_t first = kGroup; first < shape.group; ++first) {
    V sum[N];
    t.q += (first == kGroup ? kGroup : 1) * shape.dim;
    read<1, N>(t, sum);
    store_rows<1, N>(sum, column, shape.dim, y + first * shape.dim);
  }
}

template <bool kDelta, int kHeads, int N>
void run_columns(const RecurrenceShape& shape, const RecurrenceTokens& tokens, int64_t column,
                 const float* in, float* out) {
  Token t;
  t.dim = shape.dim;
  t.stride = shape.columns();
  t.in = in + column;
  t.out = out + column;
  for (int64_t i = 0; i < tokens.count; ++i, t.in = t.out) {
    const float* update = tokens.update + i * tokens.update_stride;
    t.v = update + column;
    t.k = update + shape.k_offset();
    t.decay = update + shape.decay_offset();
    t.beta = kDelta ? update[shape.beta_offset()] : 0.0f;
    t.q = kHeads > 0 ? tokens.q + i * tokens.q_stride : nullptr;
    V y[HWY_MAX(kHeads, 1) * N];
    update_and_read<kDelta, kHeads, N>(t, y);
    if (kHeads == 0) continue;
    float* to = tokens.y + i * tokens.y_stride;
    store_rows<kHeads, N>(y, column, shape.dim, to);
    if (kHeads == kGroup) read_more<N>(shape, t, column, to);
  }
}

template <bool kDelta, int kHeads>
void run_tile(const RecurrenceShape& shape, const RecurrenceTokens& tokens, int64_t begin, int64_t end,
              const float* in, float* out) {
  constexpr int N = vectors_for(kHeads);
  int64_t c = begin;
  for (; c + N * kLanes <= end; c += N * kLanes) run_columns<kDelta, kHeads, N>(shape, tokens, c, in, out);
  if (N == 4 && c + 2 * kLanes <= end) {
    run_columns<kDelta, kHeads, 2>(shape, tokens, c, in, out);
    c += 2 * kLanes;
  }
  for (; c < end; c += kLanes) run_columns<kDelta, kHeads, 1>(shape, tokens, c, in, out);
}

template <bool kDelta>
void run_rule(const RecurrenceShape& shape, const RecurrenceTokens& tokens, int64_t begin, int64_t end,
              const float* in, float* out) {
  switch (tokens.q == nullptr ? 0 : std::min<int64_t>(shape.group, kGroup)) {
    case 0:
      return run_tile<kDelta, 0>(shape, tokens, begin, end, in, out);
    case 1:
      return run_tile<kDelta, 1>(shape, tokens, begin, end, in, out);
    case 2:
      return run_tile<kDelta, 2>(shape, tokens, begin, end, in, out);
    case 3:
      return run_tile<kDelta, 3>(shape, tokens, begin, end, in, out);
    case 4:
      return run_tile<kDelta, 4>(shape, tokens, begin, end, in, out);
    case 5:
      return run_tile<kDelta, 5>(shape, tokens, begin, end, in, out);
    case 6:
      return run_tile<kDelta, 6>(shape, tokens, begin, end, in, out);
    case 7:
      return run_tile<kDelta, 7>(shape, tokens, begin, end, in, out);
    default:
      return run_tile<kDelta, 8>(shape, tokens, begin, end, in, out);
  }
}

void run_n(const RecurrenceShape& shape, const RecurrenceTokens& tokens, int64_t begin, int64_t end,
           const float* in, float* out) {
  if (shape.rule == RecurrenceShape::Rule::delta)
    run_rule<true>(shape, tokens, begin, end, in, out);
  else
    run_rule<false>(shape, tokens, begin, end, in, out);
}

}  // namespace HWY_NAMESPACE
}  // namespace mneme
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mneme {
namespace {

HWY_EXPORT(run_n);

}  // namespace

void run_recurrence(const RecurrenceShape& shape, const RecurrenceTokens& tokens, int64_t begin, int64_t end,
                    const float* in, float* out) {
  sync_highway_isa();
  HWY_DYNAMIC_DISPATCH(run_n)(shape, tokens, begin, end, in, out);
}

void run_recurrence_plain(const RecurrenceShape& shape, const RecurrenceTokens& tokens, double* state,
                          double* y) {
  const int64_t dim = shape.dim, columns = shape.columns();
  const bool delta = shape.rule == RecurrenceShape::Rule::delta;
  for (int64_t t = 0; t < tokens.count; ++t) {
    const float* update = tokens.update + t * tokens.update_stride;
    const float *v = update, *k = update + shape.k_offset(), *decay = update + shape.decay_offset();
    for (int64_t r = 0; r < dim; ++r)
      for (int64_t c = 0; c < dim; ++c) state[r * columns + c] *= decay[delta ? 0 : r];
    for (int64_t c = 0; c < dim; ++c) {
      double u = v[c];
      if (delta) {
        for (int64_t r = 0; r < dim; ++r) u -= state[r * columns + c] * k[r];
        u *= update[shape.beta_offset()];
      }
      for (int64_t r = 0; r < dim; ++r) state[r * columns + c] += k[r] * u;
    }
    if (tokens.q == nullptr) continue;
    for (int64_t h = 0; h < shape.group; ++h)
      for (int64_t c = 0; c < dim; ++c) {
        double sum = 0;
        for (int64_t r = 0; r < dim; ++r)
          sum += double{tokens.q[t * tokens.q_stride + h * dim + r]} * state[r * columns + c];
        y[(t * shape.group + h) * dim + c] = sum;
      }
  }
}

}  // namespace mneme
#endif
