#include "train/ops/fused_kernels.h"

// Highway re-includes this file for every target, so these includes have an order of their own.
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "train/ops/fused_kernels.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
#include <hwy/contrib/math/math-inl.h>
// clang-format on

#include <algorithm>
#include <cmath>

#include "simd/highway_isa.h"

HWY_BEFORE_NAMESPACE();
namespace mneme::train {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::CappedTag<float, 16>;
using V = hn::Vec<D>;
constexpr D d;
constexpr int64_t kLanes = static_cast<int64_t>(hn::MaxLanes(d));

/// Up to a vector of values; those behind `count` are zero, and are not written.
HWY_INLINE V load_some(const float* from, int64_t count) {
  HWY_ALIGN float part[kLanes] = {};
  std::copy_n(from, count, part);
  return hn::Load(d, part);
}
HWY_INLINE void store_some(V value, int64_t count, float* to) {
  HWY_ALIGN float part[kLanes];
  hn::Store(value, d, part);
  std::copy_n(part, count, to);
}

/// f(load, store, i) for every vector of n values, the last perhaps in part.
template <class F>
HWY_INLINE void for_vectors(int64_t n, const F& f) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    f([i](const float* from) { return hn::LoadU(d, from + i); },
      [i](V value, float* to) { hn::StoreU(value, d, to + i); });
  const int64_t count = n - i;
  if (count > 0)
    f([=](const float* from) { return load_some(from + i, count); },
      [=](V value, float* to) { store_some(value, count, to + i); });
}

HWY_INLINE float sum_of(V x) {
  return hn::GetLane(hn::SumOfLanes(d, x));
}

void rms_norm_n(const float* x, const float* weight, float eps, float offset, int64_t rows, int64_t n,
                float* y, float* factors) {
  const V plus = hn::Set(d, offset);
  for (int64_t r = 0; r < rows; ++r, x += n, y += n) {
    V sum = hn::Zero(d);
    for_vectors(n, [&](auto load, auto) {
      const V a = load(x);
      sum = hn::MulAdd(a, a, sum);
    });
    factors[r] = 1.0f / std::sqrt(sum_of(sum) / static_cast<float>(n) + eps);
    const V f = hn::Set(d, factors[r]);
    for_vectors(n, [&](auto load, auto store) {
      store(hn::Mul(hn::Mul(load(x), f), hn::Add(load(weight), plus)), y);
    });
  }
}

void rms_norm_back_n(const float* x, const float* weight, const float* factors, const float* dy, float offset,
                     int64_t rows, int64_t n, float* dx, float* dweight) {
  const V plus = hn::Set(d, offset);
  for (int64_t r = 0; r < rows; ++r, x += n, dy += n, dx += n) {
    const float factor = factors[r];
    const V f = hn::Set(d, factor);
    V sum = hn::Zero(d);
    for_vectors(n, [&](auto load, auto store) {
      const V a = hn::Mul(load(dy), load(x));
      sum = hn::MulAdd(a, hn::Add(load(weight), plus), sum);
      store(hn::MulAdd(a, f, load(dweight)), dweight);
    });
    const V along = hn::Set(d, -factor * factor * factor * sum_of(sum) / static_cast<float>(n));
    for_vectors(n, [&](auto load, auto store) {
      const V g = hn::Mul(load(dy), hn::Add(load(weight), plus));
      store(hn::MulAdd(along, load(x), hn::Mul(f, g)), dx);
    });
  }
}

HWY_INLINE V sigmoid(V x) {
  const V e = hn::Exp(d, hn::Min(hn::Neg(x), hn::Set(d, 88.0f)));
  return hn::Div(hn::Set(d, 1.0f), hn::Add(hn::Set(d, 1.0f), e));
}

void silu_n(const float* gate, const float* up, int64_t n, float* out) {
  for_vectors(n, [&](auto load, auto store) {
    const V g = load(gate);
    store(hn::Mul(hn::Mul(g, sigmoid(g)), load(up)), out);
  });
}

void silu_back_n(const float* gate, const float* up, const float* upper, int64_t n, float* dgate,
                 float* dup) {
  const V one = hn::Set(d, 1.0f);
  for_vectors(n, [&](auto load, auto store) {
    const V g = load(gate), u = load(up), y = load(upper), s = sigmoid(g);
    const V slope = hn::Mul(s, hn::MulAdd(g, hn::Sub(one, s), one));
    store(hn::Mul(hn::Mul(y, u), slope), dgate);
    store(hn::Mul(hn::Mul(y, g), s), dup);
  });
}

void rotate_n(const float* x, const float* cos, const float* sin, float sign, int64_t pairs, int64_t dim,
              bool half, float* out) {
  if (half) {
    const V turn = hn::Set(d, sign);
    for_vectors(pairs, [&](auto load, auto store) {
      const V a = load(x), b = load(x + pairs), c = load(cos), s = hn::Mul(load(sin), turn);
      store(hn::Sub(hn::Mul(a, c), hn::Mul(b, s)), out);
      store(hn::MulAdd(a, s, hn::Mul(b, c)), out + pairs);
    });
  } else {
    for (int64_t i = 0; i < pairs; ++i) {
      const float a = x[2 * i], b = x[2 * i + 1], s = sign * sin[i];
      out[2 * i] = a * cos[i] - b * s;
      out[2 * i + 1] = a * s + b * cos[i];
    }
  }
  std::copy(x + 2 * pairs, x + dim, out + 2 * pairs);
}

HWY_INLINE V most_of(const float* x, int64_t n, V most) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) most = hn::Max(most, hn::LoadU(d, x + i));
  for (; i < n; ++i) most = hn::Max(most, hn::Set(d, x[i]));
  return most;
}

/// x = exp(scale * (x - highest)) for scale > 0; their sum.
HWY_INLINE float exponentials(float* x, int64_t n, V highest, V scale) {
  V sums = hn::Zero(d);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const V e = hn::Exp(d, hn::Mul(hn::Sub(hn::LoadU(d, x + i), highest), scale));
    sums = hn::Add(sums, e);
    hn::StoreU(e, d, x + i);
  }
  float sum = sum_of(sums);
  if (i == n) return sum;
  HWY_ALIGN float last[kLanes];
  hn::Store(hn::Exp(d, hn::Mul(hn::Sub(load_some(x + i, n - i), highest), scale)), d, last);
  std::copy_n(last, n - i, x + i);
  for (int64_t j = 0; j < n - i; ++j) sum += last[j];
  return sum;
}

HWY_INLINE void multiply_by(float* x, int64_t n, V factor) {
  for_vectors(n, [&](auto load, auto store) { store(hn::Mul(load(x), factor), x); });
}

void softmax_n(float* scores, int64_t n, const SeenKeys& seen, float scale) {
  float *const band = scores + seen.begin, first = seen.head > 0 ? scores[0] : *band;
  const int64_t width = seen.end - seen.begin;
  const V most = most_of(band, width, most_of(scores, seen.head, hn::Set(d, first)));
  const V highest = hn::Set(d, hn::GetLane(hn::MaxOfLanes(d, most))), factor = hn::Set(d, scale);
  const float sum =
      exponentials(scores, seen.head, highest, factor) + exponentials(band, width, highest, factor);
  const V share = hn::Set(d, 1.0f / sum);
  multiply_by(scores, seen.head, share);
  multiply_by(band, width, share);
  std::fill(scores + seen.head, band, 0.0f);
  std::fill(scores + seen.end, scores + n, 0.0f);
}

HWY_INLINE float dot(const float* x, const float* y, int64_t n) {
  V sum = hn::Zero(d);
  for_vectors(n, [&](auto load, auto) { sum = hn::MulAdd(load(x), load(y), sum); });
  return sum_of(sum);
}

void softmax_back_n(const float* weights, int64_t n, const SeenKeys& seen, float scale, float* slope) {
  const int64_t width = seen.end - seen.begin;
  const float mean = dot(weights, slope, seen.head) + dot(weights + seen.begin, slope + seen.begin, width);
  const V middle = hn::Set(d, mean), factor = hn::Set(d, scale);
  const auto apply = [&](const float* w, float* s, int64_t count) HWY_ATTR {
    for_vectors(count, [&](auto load, auto store) {
      store(hn::Mul(hn::Mul(load(w), factor), hn::Sub(load(s), middle)), s);
    });
  };
  apply(weights, slope, seen.head);
  apply(weights + seen.begin, slope + seen.begin, width);
  std::fill(slope + seen.head, slope + seen.begin, 0.0f);
  std::fill(slope + seen.end, slope + n, 0.0f);
}

float cross_entropy_n(float* logits, int64_t vocab, int64_t target, float cap, float factor) {
  const V c = hn::Set(d, cap), inverse = hn::Set(d, cap > 0 ? 1.0f / cap : 0.0f);
  if (cap > 0)
    for_vectors(vocab, [&](auto load, auto store) {
      store(hn::Mul(c, hn::Tanh(d, hn::Mul(load(logits), inverse))), logits);
    });
  V most = hn::Set(d, logits[0]);
  int64_t i = 0;
  for (; i + kLanes <= vocab; i += kLanes) most = hn::Max(most, hn::LoadU(d, logits + i));
  float top = hn::GetLane(hn::MaxOfLanes(d, most));
  for (; i < vocab; ++i) top = std::max(top, logits[i]);
  const V highest = hn::Set(d, top);
  const float chosen = logits[target];
  // With gradients the exponentials are stored in place of the logits; with a cap those are needed once more.
  V sums = hn::Zero(d);
  for (i = 0; i + kLanes <= vocab; i += kLanes) {
    const V e = hn::Exp(d, hn::Sub(hn::LoadU(d, logits + i), highest));
    sums = hn::Add(sums, e);
    if (factor != 0 && cap <= 0) hn::StoreU(e, d, logits + i);
  }
  float sum = sum_of(sums);
  for (; i < vocab; ++i) {
    const float e = std::exp(logits[i] - top);
    sum += e;
    if (factor != 0 && cap <= 0) logits[i] = e;
  }
  const float loss = std::log(sum) + top - chosen;
  if (factor == 0) return loss;
  const V share = hn::Set(d, factor / sum), one = hn::Set(d, 1.0f);
  if (cap <= 0) {
    for_vectors(vocab, [&](auto load, auto store) { store(hn::Mul(load(logits), share), logits); });
    logits[target] -= factor;
    return loss;
  }
  for_vectors(vocab, [&](auto load, auto store) {
    const V l = load(logits), t = hn::Mul(l, inverse);
    store(hn::Mul(hn::Mul(hn::Exp(d, hn::Sub(l, highest)), share), hn::NegMulAdd(t, t, one)), logits);
  });
  logits[target] -= factor * (1.0f - (chosen / cap) * (chosen / cap));
  return loss;
}

}  // namespace HWY_NAMESPACE
}  // namespace mneme::train
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mneme::train {
namespace {

HWY_EXPORT(rms_norm_n);
HWY_EXPORT(rms_norm_back_n);
HWY_EXPORT(silu_n);
HWY_EXPORT(silu_back_n);
HWY_EXPORT(rotate_n);
HWY_EXPORT(softmax_n);
HWY_EXPORT(softmax_back_n);
HWY_EXPORT(cross_entropy_n);

}  // namespace

void rms_norm_rows(const float* x, const float* weight, float eps, float offset, int64_t rows, int64_t n,
                   float* y, float* factors) {
  sync_highway_isa();
  HWY_DYNAMIC_DISPATCH(rms_norm_n)(x, weight, eps, offset, rows, n, y, factors);
}
void rms_norm_rows_back(const float* x, const float* weight, const float* factors, const float* dy,
                        float offset, int64_t rows, int64_t n, float* dx, float* dweight) {
  sync_highway_isa();
  HWY_DYNAMIC_DISPATCH(rms_norm_back_n)(x, weight, factors, dy, offset, rows, n, dx, dweight);
}
void silu_times_n(const float* gate, const float* up, int64_t n, float* out) {
  sync_highway_isa();
  HWY_DYNAMIC_DISPATCH(silu_n)(gate, up, n, out);
}
void silu_times_back_n(const float* gate, const float* up, const float* upper, int64_t n, float* dgate,
                       float* dup) {
  sync_highway_isa();
  HWY_DYNAMIC_DISPATCH(silu_back_n)(gate, up, upper, n, dgate, dup);
}
void rotate_row(const float* x, const float* cos, const float* sin, float sign, int64_t pairs, int64_t dim,
                bool half, float* out) {
  sync_highway_isa();
  HWY_DYNAMIC_DISPATCH(rotate_n)(x, cos, sin, sign, pairs, dim, half, out);
}
void softmax_row(float* scores, int64_t n, const SeenKeys& seen, float scale) {
  sync_highway_isa();
  HWY_DYNAMIC_DISPATCH(softmax_n)(scores, n, seen, scale);
}
void softmax_row_back(const float* weights, int64_t n, const SeenKeys& seen, float scale, float* slope) {
  sync_highway_isa();
  HWY_DYNAMIC_DISPATCH(softmax_back_n)(weights, n, seen, scale, slope);
}
float cross_entropy_row(float* logits, int64_t vocab, int64_t target, float cap, float factor) {
  sync_highway_isa();
  return HWY_DYNAMIC_DISPATCH(cross_entropy_n)(logits, vocab, target, cap, factor);
}

}  // namespace mneme::train
#endif
