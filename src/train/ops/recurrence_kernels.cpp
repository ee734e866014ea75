#include "train/ops/recurrence_kernels.h"

// Highway re-includes this file for every target, so these includes have an order of their own.
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "train/ops/recurrence_kernels.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
#include <hwy/contrib/math/math-inl.h>
// clang-format on

#include <hwy/aligned_allocator.h>

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "simd/highway_isa.h"

HWY_BEFORE_NAMESPACE();
namespace mneme::train {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::CappedTag<float, 16>;
using V = hn::Vec<D>;
constexpr D d;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(d));
constexpr int64_t kChunk = 64;

constexpr int64_t padded(int64_t n) {
  return (n + 15) / 16 * 16;
}

/// N vectors of columns of a matrix, all its rows.
struct Tile {
  float* data;
  int64_t stride, rows;
  float* at(int64_t row, int j) const { return data + row * stride + j * kLanes; }
};

template <int N>
HWY_INLINE void load(const float* from, V* to) {
  for (int j = 0; j < N; ++j) to[j] = hn::LoadU(d, from + j * kLanes);
}
template <int N>
HWY_INLINE void store(const V* from, float* to) {
  for (int j = 0; j < N; ++j) hn::StoreU(from[j], d, to + j * kLanes);
}

// S[r] = decay[r] S[r] + x[r] y; `every` 0: one decay for all rows.
template <int N>
HWY_INLINE void decay_and_write(Tile s, const float* decay, int64_t every, const float* x, const V* y) {
  V row[N];
  for (int j = 0; j < N; ++j) row[j] = y[j];
  for (int64_t r = 0; r < s.rows; ++r) {
    const V a = hn::Set(d, decay[r * every]), b = hn::Set(d, x[r]);
    for (int j = 0; j < N; ++j)
      hn::StoreU(hn::MulAdd(a, hn::LoadU(d, s.at(r, j)), hn::Mul(b, row[j])), d, s.at(r, j));
  }
}

// S[r] = decay * S[r] + x[r] y with a decay a column.
template <int N>
HWY_INLINE void decay_columns_and_write(Tile s, const V* decay, const float* x, const V* y) {
  V row[N], a[N];
  for (int j = 0; j < N; ++j) row[j] = y[j], a[j] = decay[j];
  for (int64_t r = 0; r < s.rows; ++r) {
    const V b = hn::Set(d, x[r]);
    for (int j = 0; j < N; ++j)
      hn::StoreU(hn::MulAdd(a[j], hn::LoadU(d, s.at(r, j)), hn::Mul(b, row[j])), d, s.at(r, j));
  }
}

// S[r] += x[r] y
template <int N>
HWY_INLINE void write(Tile s, const float* x, const V* y) {
  V row[N];
  for (int j = 0; j < N; ++j) row[j] = y[j];
  for (int64_t r = 0; r < s.rows; ++r) {
    const V b = hn::Set(d, x[r]);
    for (int j = 0; j < N; ++j) hn::StoreU(hn::MulAdd(b, row[j], hn::LoadU(d, s.at(r, j))), d, s.at(r, j));
  }
}

// sum_r x[r] S[r], over two interleaved sums, so that additions do not wait for each other.
template <int N>
HWY_INLINE void read(Tile s, const float* x, V* out) {
  V even[N], odd[N];
  for (int j = 0; j < N; ++j) even[j] = odd[j] = hn::Zero(d);
  int64_t r = 0;
  for (; r + 2 <= s.rows; r += 2) {
    const V a = hn::Set(d, x[r]), b = hn::Set(d, x[r + 1]);
    for (int j = 0; j < N; ++j) {
      even[j] = hn::MulAdd(a, hn::LoadU(d, s.at(r, j)), even[j]);
      odd[j] = hn::MulAdd(b, hn::LoadU(d, s.at(r + 1, j)), odd[j]);
    }
  }
  if (r < s.rows)
    for (int j = 0; j < N; ++j) even[j] = hn::MulAdd(hn::Set(d, x[r]), hn::LoadU(d, s.at(r, j)), even[j]);
  for (int j = 0; j < N; ++j) out[j] = hn::Add(even[j], odd[j]);
}

// out[r] += S[r] . y
template <int N>
HWY_INLINE void read_rows(Tile s, const V* y, float* out) {
  V row[N];
  for (int j = 0; j < N; ++j) row[j] = y[j];
  for (int64_t r = 0; r < s.rows; ++r) {
    V sum = hn::Mul(hn::LoadU(d, s.at(r, 0)), row[0]);
    for (int j = 1; j < N; ++j) sum = hn::MulAdd(hn::LoadU(d, s.at(r, j)), row[j], sum);
    out[r] += hn::GetLane(hn::SumOfLanes(d, sum));
  }
}

using Buffer = hwy::AlignedFreeUniquePtr<float[]>;
Buffer zeros(int64_t n) {
  Buffer out = hwy::AllocateAligned<float>(static_cast<size_t>(std::max<int64_t>(n, 1)));
  std::fill_n(out.get(), n, 0.0f);
  return out;
}

// Copies rows of `dim` values into rows of `width`, whose other values stay zero.
void pack(ConstRows from, int64_t first, int64_t count, int64_t dim, float factor, float* to, int64_t width) {
  for (int64_t t = 0; t < count; ++t) {
    const float* row = from.at(first + t);
    for (int64_t i = 0; i < dim; ++i) to[t * width + i] = factor * row[i];
  }
}
void unpack(const float* from, int64_t width, int64_t first, int64_t count, int64_t dim, Rows to) {
  for (int64_t t = 0; t < count; ++t) std::copy_n(from + t * width, dim, to.at(first + t));
}

void exp_row(const float* from, int64_t n, float* to) {  // `to` has room for padded(n)
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) hn::StoreU(hn::Exp(d, hn::LoadU(d, from + i)), d, to + i);
  if (i == n) return;
  HWY_ALIGN float last[kLanes] = {};
  std::copy_n(from + i, n - i, last);
  hn::Store(hn::Exp(d, hn::Load(d, last)), d, last);
  std::copy_n(last, n - i, to + i);
}

/// The decays of a chunk [kChunk + 1, width]; width 1 for delta. The row behind the last is that of the token
/// after the chunk.
struct Decays {
  explicit Decays(const RecurrenceHead& head)
      : width(head.delta ? 1 : padded(head.k_dim)), rows(zeros((kChunk + 1) * width)) {}
  void fill(const RecurrenceHead& head, int64_t first, int64_t count) {
    const int64_t end = std::min(count + 1, head.length - first);
    for (int64_t t = 0; t < end; ++t) {
      const float* from = head.log_decay.at(first + t);
      if (head.delta)
        rows[static_cast<size_t>(t)] = std::exp(*from);
      else
        exp_row(from, head.k_dim, rows.get() + t * width);
    }
  }
  const float* at(int64_t t) const { return rows.get() + t * width; }
  int64_t width;
  Buffer rows;
};

/// Calls f<N>(first column) for tiles of N vectors that cover `columns` (a multiple of 16).
template <class F>
HWY_INLINE void for_tiles(int64_t columns, const F& f) {
  int64_t c = 0;
  for (; c + 4 * kLanes <= columns; c += 4 * kLanes) f(std::integral_constant<int, 4>(), c);
  for (; c < columns; c += kLanes) f(std::integral_constant<int, 1>(), c);
}

// --- forward ---

struct Forward {
  const RecurrenceHead& head;
  int64_t width = padded(head.v_dim);
  Buffer state = zeros(head.k_dim * width);
  Buffer v = zeros(kChunk * width), unseen = zeros(kChunk * width), out = zeros(kChunk * head.group * width);
  Decays decays{head};

  template <int N>
  void run(int64_t first, int64_t count, int64_t column) {
    const Tile s{state.get() + column, width, head.k_dim};
    for (int64_t t = 0; t < count; ++t) {
      const float *k = head.k.at(first + t), *decay = decays.at(t);
      V value[N], y[N];
      load<N>(v.get() + t * width + column, value);
      if (head.delta) {
        read<N>(s, k, y);
        const V beta = hn::Set(d, *head.beta.at(first + t)), factor = hn::Set(d, *decay);
        for (int j = 0; j < N; ++j) value[j] = hn::NegMulAdd(factor, y[j], value[j]);
        store<N>(value, unseen.get() + t * width + column);
        for (int j = 0; j < N; ++j) value[j] = hn::Mul(beta, value[j]);
      }
      decay_and_write<N>(s, decay, head.delta ? 0 : 1, k, value);
      for (int64_t h = 0; h < head.group; ++h) {
        read<N>(s, head.q.at(first + t) + h * head.q_head, y);
        for (int j = 0; j < N; ++j) y[j] = hn::Mul(y[j], hn::Set(d, head.scale));
        store<N>(y, out.get() + (t * head.group + h) * width + column);
      }
    }
  }
};

void forward_n(const RecurrenceHead& head, Rows out, int64_t out_head, float* unseen) {
  Forward pass{head};
  for (int64_t first = 0; first < head.length; first += kChunk) {
    const int64_t count = std::min(kChunk, head.length - first);
    pass.decays.fill(head, first, count);
    pack(head.v, first, count, head.v_dim, 1.0f, pass.v.get(), pass.width);
    for_tiles(pass.width,
              [&](auto n, int64_t column) { pass.run<decltype(n)::value>(first, count, column); });
    for (int64_t h = 0; h < head.group; ++h)
      unpack(pass.out.get() + h * pass.width, head.group * pass.width, first, count, head.v_dim,
             {out.data + h * out_head, out.step});
    if (head.delta) unpack(pass.unseen.get(), pass.width, first, count, head.v_dim, {unseen, head.v_dim});
  }
}

// --- backward: the sweep back in time ---

struct Back {
  const RecurrenceHead& head;
  const RecurrenceGradients& gradients;
  const float* unseen;
  int64_t width = padded(head.v_dim);
  Buffer state = zeros(head.k_dim * width);  // D
  Buffer v = zeros(kChunk * width), dv = zeros(kChunk * width);
  Buffer upper = zeros(kChunk * head.group * width);  // scaled gradients of the output
  Decays decays{head};

  template <int N>
  void run(int64_t first, int64_t count, int64_t column) {
    const Tile s{state.get() + column, width, head.k_dim};
    for (int64_t t = count - 1; t >= 0; --t) {
      const float *k = head.k.at(first + t), *q = head.q.at(first + t);
      V y[N], value[N];
      for (int64_t h = 0; h < head.group; ++h) {
        load<N>(upper.get() + (t * head.group + h) * width + column, y);
        if (h == 0)
          decay_and_write<N>(s, decays.at(t + 1), head.delta ? 0 : 1, q, y);
        else
          write<N>(s, q + h * head.q_head, y);
      }
      load<N>(v.get() + t * width + column, value);  // delta: what was not seen
      read<N>(s, k, y);
      if (head.delta) {
        const V beta = hn::Set(d, *head.beta.at(first + t));
        V sum = hn::Mul(y[0], value[0]);
        for (int j = 1; j < N; ++j) sum = hn::MulAdd(y[j], value[j], sum);
        *gradients.beta.at(first + t) += hn::GetLane(hn::SumOfLanes(d, sum));
        for (int j = 0; j < N; ++j) y[j] = hn::Mul(beta, y[j]), value[j] = hn::Mul(beta, value[j]);
      }
      read_rows<N>(s, value, gradients.k.at(first + t));
      store<N>(y, dv.get() + t * width + column);
      if (!head.delta) continue;
      for (int j = 0; j < N; ++j) y[j] = hn::Neg(y[j]);
      write<N>(s, k, y);
    }
  }

  void chunk(int64_t first, int64_t count) {
    decays.fill(head, first, count);
    pack(head.delta ? ConstRows{unseen, head.v_dim} : head.v, first, count, head.v_dim, 1.0f, v.get(), width);
    for (int64_t h = 0; h < head.group; ++h)
      pack({gradients.out.data + h * gradients.out_head, gradients.out.step}, first, count, head.v_dim,
           head.scale, upper.get() + h * width, head.group * width);
    for (int64_t t = first; t < first + count; ++t) {
      std::fill_n(gradients.k.at(t), head.k_dim, 0.0f);
      if (head.delta) *gradients.beta.at(t) = 0;
    }
    for_tiles(width, [&](auto n, int64_t column) { run<decltype(n)::value>(first, count, column); });
    unpack(dv.get(), width, first, count, head.v_dim, gradients.v);
  }

  /// The gradient of the state that enters the chunk filled last, [v_dim, k_dim].
  void entering(float* to) const {
    for (int64_t r = 0; r < head.k_dim; ++r) {
      const float decay = decays.at(0)[head.delta ? 0 : r];
      for (int64_t c = 0; c < head.v_dim; ++c)
        to[c * head.k_dim + r] = decay * state[static_cast<size_t>(r * width + c)];
    }
  }
};

// --- backward: the sweep forth in time, over transposed states ---

struct Forth {
  const RecurrenceHead& head;
  const RecurrenceGradients& gradients;
  const float* unseen;
  int64_t width = padded(head.k_dim);
  Buffer state = zeros(head.v_dim * width);  // S^T [v_dim, width]
  Buffer k = zeros(kChunk * width), dk = zeros(kChunk * width), dq = zeros(kChunk * head.group * width);
  Buffer upper = zeros(kChunk * head.group * head.v_dim), u = zeros(head.v_dim);
  Buffer slope = zeros(head.k_dim);  // of the log-decay, summed back in time
  Decays decays{head};

  template <int N>
  void run(int64_t first, int64_t count, int64_t column) {
    const Tile s{state.get() + column, width, head.v_dim};
    for (int64_t t = 0; t < count; ++t) {
      V key[N], y[N];
      load<N>(k.get() + t * width + column, key);
      if (head.delta) {
        const float decay = *decays.at(t), beta = *head.beta.at(first + t);
        read<N>(s, gradients.v.at(first + t), y);
        for (int j = 0; j < N; ++j) y[j] = hn::Mul(y[j], hn::Set(d, -decay));
        store<N>(y, dk.get() + t * width + column);
        for (int64_t i = 0; i < head.v_dim; ++i)
          u[static_cast<size_t>(i)] = beta * unseen[(first + t) * head.v_dim + i];
        decay_and_write<N>(s, &decay, 0, u.get(), key);
      } else {
        V decay[N];
        load<N>(decays.at(t) + column, decay);
        decay_columns_and_write<N>(s, decay, head.v.at(first + t), key);
      }
      for (int64_t h = 0; h < head.group; ++h) {
        read<N>(s, upper.get() + (t * head.group + h) * head.v_dim, y);
        store<N>(y, dq.get() + (t * head.group + h) * width + column);
      }
    }
  }

  void chunk(int64_t first, int64_t count, const float* leaving) {
    decays.fill(head, first, count);
    pack(head.k, first, count, head.k_dim, 1.0f, k.get(), width);
    for (int64_t h = 0; h < head.group; ++h)
      pack({gradients.out.data + h * gradients.out_head, gradients.out.step}, first, count, head.v_dim,
           head.scale, upper.get() + h * head.v_dim, head.group * head.v_dim);
    for_tiles(width, [&](auto n, int64_t column) { run<decltype(n)::value>(first, count, column); });
    for (int64_t h = 0; h < head.group; ++h)
      unpack(dq.get() + h * width, head.group * width, first, count, head.k_dim,
             {gradients.q.data + h * gradients.q_head, gradients.q.step});
    if (head.delta) {
      for (int64_t t = 0; t < count; ++t)
        for (int64_t r = 0; r < head.k_dim; ++r)
          gradients.k.at(first + t)[r] += dk[static_cast<size_t>(t * width + r)];
    }
    log_decays(first, count, leaving);
  }

  /// q_t dq_t summed over query heads, by key channel.
  void add_query_flow(int64_t t, int64_t first, float* to) const {
    for (int64_t h = 0; h < head.group; ++h) {
      const float* q = head.q.at(first + t) + h * head.q_head;
      const float* slopes = dq.get() + (t * head.group + h) * width;
      for (int64_t r = 0; r < head.k_dim; ++r) to[r] += q[r] * slopes[r];
    }
  }

  void log_decays(int64_t first, int64_t count, const float* leaving) {
    float* sum = slope.get();
    std::fill_n(sum, head.k_dim, 0.0f);
    for (int64_t c = 0; leaving != nullptr && c < head.v_dim; ++c)
      for (int64_t r = 0; r < head.k_dim; ++r)
        sum[r] += leaving[c * head.k_dim + r] * state[static_cast<size_t>(c * width + r)];
    float total = 0;
    if (head.delta)
      for (int64_t r = 0; r < head.k_dim; ++r) total += sum[r];
    for (int64_t t = count - 1; t >= 0; --t) {
      if (head.delta) {
        std::fill_n(sum, head.k_dim, 0.0f);
        add_query_flow(t, first, sum);
        const float *v = head.v.at(first + t), *dv = gradients.v.at(first + t);
        for (int64_t r = 0; r < head.k_dim; ++r) total += sum[r];
        for (int64_t c = 0; c < head.v_dim; ++c) total -= v[c] * dv[c];
        *gradients.log_decay.at(first + t) = total;
        continue;
      }
      add_query_flow(t, first, sum);
      const float *key = head.k.at(first + t), *slopes = gradients.k.at(first + t);
      for (int64_t r = 0; r < head.k_dim; ++r) sum[r] -= key[r] * slopes[r];
      std::copy_n(sum, head.k_dim, gradients.log_decay.at(first + t));
    }
  }
};

void backward_n(const RecurrenceHead& head, const float* unseen, const RecurrenceGradients& gradients) {
  const int64_t chunks = (head.length + kChunk - 1) / kChunk, values = head.v_dim * head.k_dim;
  Buffer entering = zeros(chunks * values);
  Back back{head, gradients, unseen};
  for (int64_t i = chunks - 1; i >= 0; --i) {
    back.chunk(i * kChunk, std::min(kChunk, head.length - i * kChunk));
    back.entering(entering.get() + i * values);
  }
  Forth forth{head, gradients, unseen};
  for (int64_t i = 0; i < chunks; ++i)
    forth.chunk(i * kChunk, std::min(kChunk, head.length - i * kChunk),
                i + 1 < chunks ? entering.get() + (i + 1) * values : nullptr);
}

}  // namespace HWY_NAMESPACE
}  // namespace mneme::train
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mneme::train {
namespace {

HWY_EXPORT(forward_n);
HWY_EXPORT(backward_n);

}  // namespace

void recurrence_forward(const RecurrenceHead& head, Rows out, int64_t out_head, float* unseen) {
  sync_highway_isa();
  HWY_DYNAMIC_DISPATCH(forward_n)(head, out, out_head, unseen);
}

void recurrence_backward(const RecurrenceHead& head, const float* unseen,
                         const RecurrenceGradients& gradients) {
  sync_highway_isa();
  HWY_DYNAMIC_DISPATCH(backward_n)(head, unseen, gradients);
}

}  // namespace mneme::train
#endif
