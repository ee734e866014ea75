#include "simd/spike.h"

// Highway re-includes this file for every target, so these includes have an order of their own.
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "simd/spike.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "simd/highway_isa.h"
#include "simd/isa.h"

#ifndef MNEME_ROW_FIRING
#define MNEME_ROW_FIRING
namespace mneme {

/// What fire_blocks_n() reads and writes: one row of SpikeRows, and its list of events if `columns` is there.
struct RowFiring {
  const float* x;
  int64_t blocks;
  float threshold, dead;
  int8_t* base;
  uint32_t* fired;
  int32_t* sums;
  uint32_t* begin;
  uint8_t* columns;
  int8_t* counts;
  bool beyond;  // whether a count is beyond ±127
  int64_t spiking, end;
};

}  // namespace mneme
#endif

HWY_BEFORE_NAMESPACE();
namespace mneme {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::CappedTag<float, 16>;  // divides a block of 32
constexpr D d;
constexpr hn::RebindToSigned<D> di;
constexpr hn::Rebind<int8_t, D> d8;
constexpr hn::Rebind<uint8_t, D> du8;
using F = hn::Vec<D>;
using I = hn::VFromD<decltype(di)>;

// sums[c]: of |x| over the columns c, c + 32, ...; returns the bits of the largest |x|. Two chains of
// additions side by side, because each waits for its last one.
int32_t magnitudes_n(const float* x, int64_t n, float* sums) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  I most = hn::Zero(di);
  for (int64_t c = 0; c < 32; c += 2 * lanes) {
    F sum0 = hn::Zero(d), sum1 = hn::Zero(d);
    for (int64_t i = c; i < n; i += 32) {
      const F a = hn::Abs(hn::LoadU(d, x + i)), b = hn::Abs(hn::LoadU(d, x + i + lanes));
      most = hn::Max(most, hn::Max(hn::BitCast(di, a), hn::BitCast(di, b)));
      sum0 = hn::Add(sum0, a);
      sum1 = hn::Add(sum1, b);
    }
    hn::StoreU(sum0, d, sums + c);
    hn::StoreU(sum1, d, sums + c + lanes);
  }
  return hn::GetLane(hn::MaxOfLanes(di, most));
}

// round(x / v), ties to even. A division takes several times as long as all the rest, so x is multiplied by
// the inverse of v. That is at most |x / v| 2^-22 away from the rounded quotient, which matters only near
// halves: there it is divided after all. Counts are below 2^19.
HWY_INLINE I rounded_quotient(F x, F v, F inverse) {
  const F quotient = hn::Mul(x, inverse);
  const I count = hn::NearestInt(quotient);
  const F off = hn::Abs(hn::Sub(quotient, hn::ConvertTo(d, count)));
  const F safe = hn::NegMulAdd(hn::Abs(quotient), hn::Set(d, 0x1p-20f), hn::Set(d, 0.5f));
  if (HWY_LIKELY(hn::AllTrue(d, hn::Lt(off, safe)))) return count;
  return hn::NearestInt(hn::Div(x, v));
}

// A row: counts clamped to ±127, sums of whole counts and bits of the columns that fire, block by block; and
// with a list, columns and clamped counts of those that fire, one after the other, each block filled up to a
// multiple of 4 (up to 16 more are overwritten).
void fire_blocks_n(RowFiring& out) {
  constexpr size_t kMaskBytes = (hn::MaxLanes(d) + 7) / 8;
  const RowFiring row = out;  // a copy, because stores of bytes might change `out` for all a compiler knows
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const F v = hn::Set(d, row.threshold), inverse = hn::Set(d, 1.0f / row.threshold);
  const F least = hn::Set(d, row.dead);
  const I most = hn::Set(di, 127), low = hn::Set(di, 255);
  I excess = hn::Zero(di);
  int64_t end = 0, spiking = 0;
  for (int64_t b = 0; b < row.blocks; ++b) {
    I total = hn::Zero(di);
    uint32_t fired = 0;
    int64_t at = end;
    for (int64_t c = 0; c < 32; c += lanes) {
      const F values = hn::LoadU(d, row.x + 32 * b + c);
      const auto loud = hn::RebindMask(di, hn::Ge(hn::Abs(values), least));
      const I count = hn::IfThenElseZero(loud, rounded_quotient(values, v, inverse));
      const I clamped = hn::Max(hn::Min(count, most), hn::Neg(most));
      total = hn::Add(total, count);
      excess = hn::Or(excess, hn::Xor(count, clamped));
      hn::StoreU(hn::DemoteTo(d8, clamped), d8, row.base + 32 * b + c);
      const auto fires = hn::Ne(count, hn::Zero(di));
      uint8_t bytes[8] = {};
      hn::StoreMaskBits(di, fires, bytes);
      uint32_t bits = 0;
      std::memcpy(&bits, bytes, kMaskBytes);  // no more than was stored, or the load would wait for the store
      fired |= bits << c;
      if (row.columns == nullptr) continue;
      const I both = hn::Or(hn::ShiftLeft<8>(clamped), hn::Iota(di, static_cast<int32_t>(c)));
      const I packed = hn::Compress(both, fires);
      hn::StoreU(hn::DemoteTo(du8, hn::And(packed, low)), du8, row.columns + at);
      hn::StoreU(hn::DemoteTo(d8, hn::ShiftRight<8>(packed)), d8, row.counts + at);
      at += std::popcount(bits);
    }
    row.fired[b] = fired;
    row.sums[b] = hn::GetLane(hn::SumOfLanes(di, total));
    const int count = std::popcount(fired);
    spiking += count;
    if (row.columns == nullptr) continue;
    row.begin[b] = static_cast<uint32_t>(end / 4);
    // Up to three more counts of 0, of the last column: its lines are at hand.
    const uint32_t last = at > 0 ? row.columns[at - 1] * 0x01010101u : 0;
    std::memcpy(row.columns + at, &last, 4);
    std::memset(row.counts + at, 0, 4);
    end += (count + 3) / 4 * 4;
  }
  out.beyond = !hn::AllFalse(di, hn::Ne(excess, hn::Zero(di)));
  out.spiking = spiking;
  out.end = end;
}

}  // namespace HWY_NAMESPACE
}  // namespace mneme
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mneme {
namespace {

HWY_EXPORT(magnitudes_n);
HWY_EXPORT(fire_blocks_n);

constexpr int64_t kSlack = 16;  // that the kernel may write beyond a list
constexpr int32_t kInfinity = 0x7f800000;

// From 32 partial sums of |x| and the bits of the largest one.
RowMagnitude row_magnitude(float (&sums)[32], int32_t most_bits, int64_t n) {
  for (int step = 16; step > 0; step /= 2)
    for (int c = 0; c < step; ++c) sums[c] += sums[c + step];
  const float mean = sums[0] / static_cast<float>(n);
  if (most_bits >= kInfinity || !std::isfinite(mean)) return {__builtin_nanf(""), __builtin_nanf("")};
  return {mean, std::bit_cast<float>(most_bits)};
}

// magnitude_of() without vectors, for any n: the same sums in the same order.
RowMagnitude plain_magnitude(const float* x, int64_t n) {
  float sums[32] = {};
  int32_t most = 0;
  for (int64_t i = 0; i < n; ++i) {
    const float magnitude = std::abs(x[i]);
    sums[i % 32] += magnitude;
    most = std::max(most, std::bit_cast<int32_t>(magnitude));
  }
  return row_magnitude(sums, most, n);
}

float threshold_of(const RowMagnitude& row, float k) {
  if (std::isnan(row.mean)) return row.mean;
  const float threshold = std::clamp(row.mean / k, kLeastThreshold, kMostThreshold);
  return std::max({threshold, row.mean / kMostMeanCount, row.most / static_cast<float>(kMostCount)});
}

// Lists what counts have beyond ±127, in pieces of at most that.
void list_beyond(const RowFiring& row, EventList& list) {
  list.begin.resize(static_cast<size_t>(row.blocks + 1));
  list.columns.clear();
  list.counts.clear();
  for (int64_t b = 0; b < row.blocks; ++b) {
    list.begin[static_cast<size_t>(b)] = static_cast<uint32_t>(list.columns.size() / 4);
    const int8_t* base = row.base + 32 * b;
    int most = 0;
    for (int c = 0; c < 32; ++c) most |= int{base[c] == 127} | int{base[c] == -127};
    for (int c = 0; most != 0 && c < 32; ++c) {
      if (std::abs(base[c]) != 127) continue;
      const auto count = static_cast<int32_t>(std::nearbyint(row.x[32 * b + c] / row.threshold));
      for (int32_t rest = count - base[c]; rest != 0;) {
        const int32_t piece = std::clamp(rest, -127, 127);
        list.columns.push_back(static_cast<uint8_t>(c));
        list.counts.push_back(static_cast<int8_t>(piece));
        rest -= piece;
      }
    }
    while (list.columns.size() % 4 != 0) {
      list.columns.push_back(list.columns.back());
      list.counts.push_back(0);
    }
  }
  list.groups = static_cast<int64_t>(list.columns.size() / 4);
  list.begin[static_cast<size_t>(row.blocks)] = static_cast<uint32_t>(list.groups);
}

bool is_short(const EventList& list, int64_t rows, int64_t cols) {
  return static_cast<double>(4 * list.groups) <= event_share(rows) * static_cast<double>(cols);
}

template <class T>
void grow(std::vector<T>& vector, int64_t size) {
  if (std::ssize(vector) < size) vector.resize(static_cast<size_t>(size));
}

// Makes the list of `united`, the columns that any row of the list fires, if it is short enough or
// `however_long`.
void list_united(int64_t cols, SpikeRows& out, bool however_long) {
  const int64_t blocks = cols / kBlock, rows = out.event_rows;
  EventList& list = out.events;
  const std::vector<uint32_t>& united = out.united;
  list.groups = 0;
  for (int64_t b = 0; b < blocks; ++b) {
    list.begin[static_cast<size_t>(b)] = static_cast<uint32_t>(list.groups);
    list.groups += (std::popcount(united[static_cast<size_t>(b)]) + 3) / 4;
  }
  list.begin[static_cast<size_t>(blocks)] = static_cast<uint32_t>(list.groups);
  out.listed = however_long || is_short(list, rows, cols);
  if (!out.listed) return;
  for (int64_t b = 0; b < blocks; ++b) {
    size_t end = 4 * size_t{list.begin[static_cast<size_t>(b)]};
    const size_t begin = end, next = 4 * size_t{list.begin[static_cast<size_t>(b + 1)]};
    for (uint32_t fired = united[static_cast<size_t>(b)]; fired != 0; fired &= fired - 1)
      list.columns[end++] = static_cast<uint8_t>(std::countr_zero(fired));
    for (size_t e = end; e < next; ++e) list.columns[e] = list.columns[end - 1];
    for (int64_t n = 0; n < rows; ++n) {
      const int8_t* base = out.base.data() + n * cols + b * kBlock;
      int8_t* counts = list.counts.data() + n * list.stride;
      for (size_t e = begin; e < end; ++e) counts[e] = base[list.columns[e]];
      std::fill(counts + end, counts + next, int8_t{0});
    }
  }
}

// Fires a row at a threshold, and with values below `dead` silent.
void fire_at(float threshold, float dead, const float* x, int64_t row, int64_t cols, SpikeRows& out) {
  sync_highway_isa();
  const int64_t blocks = cols / kBlock;
  RowFiring firing{};
  firing.x = x;
  firing.blocks = blocks;
  firing.threshold = threshold;
  firing.dead = dead;
  firing.base = out.base.data() + row * cols;
  firing.fired = out.fired.data() + row * blocks;
  firing.sums = out.sums.data() + row * blocks;
  // A list of one row is written in the same pass, unless it is rarely short enough to be walked.
  const bool alone = out.event_rows == 1, listed = alone && !gaps_are_dear();
  if (listed) {
    firing.begin = out.events.begin.data();
    firing.columns = out.events.columns.data();
    firing.counts = out.events.counts.data();
  }
  EventList& beyond = out.beyond[static_cast<size_t>(row)];
  beyond.begin.clear();
  beyond.groups = 0;
  if (std::isnan(threshold)) {
    std::fill_n(firing.base, cols, int8_t{0});
    std::fill_n(firing.fired, blocks, 0u);
    std::fill_n(firing.sums, blocks, 0);
    if (listed) std::fill_n(firing.begin, blocks, 0u);
  } else {
    HWY_DYNAMIC_DISPATCH(fire_blocks_n)(firing);
    if (firing.beyond) list_beyond(firing, beyond);
  }
  out.threshold[static_cast<size_t>(row)] = threshold;
  out.spiking[static_cast<size_t>(row)] = firing.spiking;
  if (alone && !listed) {
    std::copy_n(out.fired.begin(), blocks, out.united.begin());
    list_united(cols, out, false);
  }
  if (!listed) return;
  firing.begin[blocks] = static_cast<uint32_t>(firing.end / 4);
  out.events.groups = firing.end / 4;
  out.listed = true;
}

template <class T>
void whole_counts(const SpikeRows& spikes, int64_t row, int64_t cols, T* counts) {
  std::copy_n(spikes.base.data() + row * cols, cols, counts);
  const EventList& beyond = spikes.beyond[static_cast<size_t>(row)];
  if (beyond.begin.empty()) return;
  for (int64_t b = 0; b < cols / kBlock; ++b)
    for (size_t e = 4 * size_t{beyond.begin[static_cast<size_t>(b)]};
         e < 4 * size_t{beyond.begin[static_cast<size_t>(b + 1)]}; ++e)
      counts[b * kBlock + beyond.columns[e]] += static_cast<T>(beyond.counts[e]);
}
}  // namespace

void SpikeRows::reserve(int64_t rows, int64_t cols, bool with_events) {
  const int64_t blocks = cols / kBlock;
  grow(base, rows * cols);
  grow(fired, rows * blocks);
  grow(sums, rows * blocks);
  grow(threshold, rows);
  grow(spiking, rows);
  grow(beyond, rows);
  event_rows = with_events ? rows : 0;
  listed = false;
  if (!with_events) return;
  grow(united, blocks);
  events.stride = cols + kSlack;
  grow(events.begin, blocks + 1);
  grow(events.columns, events.stride);
  grow(events.counts, rows * events.stride);
}

double event_share(int64_t rows) {
  if (gaps_are_dear()) return rows <= 4 ? 0.35 : 0.42;
  return rows <= 1 ? 0.95 : rows == 2 ? 0.88 : 0.85;
}

RowMagnitude magnitude_of(const float* x, int64_t cols) {
  sync_highway_isa();
  float sums[32];
  const int32_t most = HWY_DYNAMIC_DISPATCH(magnitudes_n)(x, cols, sums);
  return row_magnitude(sums, most, cols);
}

void fire_row(const NeuronSetting& neuron, const RowMagnitude& magnitude, const float* x, int64_t row,
              int64_t cols, SpikeRows& out) {
  const float threshold = threshold_of(magnitude, neuron.k);
  fire_at(threshold, neuron.dead_zone * threshold, x, row, cols, out);
}

void place_spikes(const float* counts, float threshold, int64_t row, int64_t cols, SpikeRows& out) {
  fire_at(std::isnan(threshold) ? threshold : 1.0f, 0.0f, counts, row, cols, out);
  out.threshold[static_cast<size_t>(row)] = threshold;
}

void spike_counts(const SpikeRows& spikes, int64_t row, int64_t cols, int32_t* counts) {
  whole_counts(spikes, row, cols, counts);
}
void spike_counts(const SpikeRows& spikes, int64_t row, int64_t cols, float* counts) {
  whole_counts(spikes, row, cols, counts);
}

void unite_events(int64_t cols, SpikeRows& out, bool however_long) {
  const int64_t blocks = cols / kBlock, rows = out.event_rows;
  if (rows == 0 || (rows == 1 && (out.listed || !however_long)))
    return;  // fire_row() has listed a single row
  std::copy_n(out.fired.begin(), blocks, out.united.begin());
  for (int64_t n = 1; n < rows; ++n)
    for (int64_t b = 0; b < blocks; ++b)
      out.united[static_cast<size_t>(b)] |= out.fired[static_cast<size_t>(n * blocks + b)];
  list_united(cols, out, however_long);
}

bool takes_events(const SpikeRows& x, int64_t cols, int64_t n_begin, int64_t n_end) {
  return x.listed && n_begin == 0 && n_end == x.event_rows && is_short(x.events, x.event_rows, cols);
}

void spikes_to_floats(const SpikeRows& spikes, int64_t row, int64_t cols, float* out) {
  spike_counts(spikes, row, cols, out);
  const float threshold = spikes.threshold[static_cast<size_t>(row)];
  for (int64_t c = 0; c < cols; ++c) out[c] *= threshold;
}

void spike_in_place(const NeuronSetting& neuron, float* x, int64_t n) {
  const float threshold = threshold_of(plain_magnitude(x, n), neuron.k);
  const float silent = neuron.dead_zone * threshold;  // NaN if the row holds one; so are the results then
  for (int64_t i = 0; i < n; ++i)
    x[i] = std::abs(x[i]) < silent ? 0.0f : threshold * std::nearbyint(x[i] / threshold);
}

float fire_reference(const NeuronSetting& neuron, const float* x, int64_t n, int32_t* counts) {
  const float threshold = threshold_of(plain_magnitude(x, n), neuron.k);
  for (int64_t i = 0; i < n; ++i) {
    const bool silent = std::isnan(threshold) || std::abs(x[i]) < neuron.dead_zone * threshold;
    counts[i] = silent ? 0 : static_cast<int32_t>(std::nearbyint(x[i] / threshold));
  }
  return threshold;
}

}  // namespace mneme
#endif
