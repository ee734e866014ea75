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

// sums[c]: of |x| over the columns c, c + 32, ...; returns the bits of the largest |x|.
int32_t magnitudes_n(const float* x, int64_t n, float* sums) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  I most = hn::Zero(di);
  for (int64_t c = 0; c < 32; c += lanes) {
    F sum = hn::Zero(d);
    for (int64_t i = c; i < n; i += 32) {
      const F magnitude = hn::Abs(hn::LoadU(d, x + i));
      most = hn::Max(most, hn::BitCast(di, magnitude));
      sum = hn::Add(sum, magnitude);
    }
    hn::StoreU(sum, d, sums + c);
  }
  return hn::GetLane(hn::MaxOfLanes(di, most));
}

// A block of 32: whole counts, clamped counts, and the columns and counts of those that fire, one after the
// other (up to 16 more of each are overwritten). Returns the bits of the columns that fire.
uint32_t fire_block(const float* x, float threshold, float dead, int32_t* counts, int8_t* base, int32_t* sum,
                    bool* beyond, uint8_t* columns, int8_t* listed) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const F v = hn::Set(d, threshold), least = hn::Set(d, dead);
  const I most = hn::Set(di, 127);
  I total = hn::Zero(di), excess = hn::Zero(di);
  uint32_t fired = 0;
  for (int64_t c = 0; c < 32; c += lanes) {
    const F values = hn::LoadU(d, x + c);
    const auto loud = hn::RebindMask(di, hn::Ge(hn::Abs(values), least));
    const I count = hn::IfThenElseZero(loud, hn::NearestInt(hn::Div(values, v)));
    const I clamped = hn::Max(hn::Min(count, most), hn::Neg(most));
    total = hn::Add(total, count);
    excess = hn::Or(excess, hn::Xor(count, clamped));
    hn::StoreU(count, di, counts + c);
    hn::StoreU(hn::DemoteTo(d8, clamped), d8, base + c);
    const auto fires = hn::Ne(count, hn::Zero(di));
    uint8_t bytes[8] = {};
    hn::StoreMaskBits(di, fires, bytes);
    uint32_t bits;
    std::memcpy(&bits, bytes, 4);
    fired |= bits << c;
    if (columns != nullptr) {
      const I index = hn::Iota(di, static_cast<int32_t>(c));
      hn::StoreU(hn::DemoteTo(du8, hn::Compress(index, fires)), du8, columns);
      hn::StoreU(hn::DemoteTo(d8, hn::Compress(clamped, fires)), d8, listed);
      const auto written = hn::CountTrue(di, fires);
      columns += written;
      listed += written;
    }
  }
  *sum = hn::GetLane(hn::SumOfLanes(di, total));
  *beyond = !hn::AllFalse(di, hn::Ne(excess, hn::Zero(di)));
  return fired;
}

}  // namespace HWY_NAMESPACE
}  // namespace mneme
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mneme {
namespace {

HWY_EXPORT(magnitudes_n);
HWY_EXPORT(fire_block);

constexpr int64_t kSlack = 16;  // that the kernel may write beyond a list
constexpr int32_t kInfinity = 0x7f800000;

// The threshold of a row from 32 partial sums of |x| and the bits of the largest one.
float threshold_of(float (&sums)[32], int32_t most_bits, int64_t n, float k) {
  for (int step = 16; step > 0; step /= 2)
    for (int c = 0; c < step; ++c) sums[c] += sums[c + step];
  const float mean = sums[0] / static_cast<float>(n);
  if (most_bits >= kInfinity || !std::isfinite(mean)) return __builtin_nanf("");
  const float threshold = std::clamp(mean / k, kLeastThreshold, kMostThreshold);
  const float most = std::bit_cast<float>(most_bits);
  return std::max({threshold, mean / kMostMeanCount, most / kMostCount});
}

// Fills a block's last group with counts of 0.
template <class Columns, class Counts>
int64_t pad_group(int64_t end, Columns& columns, Counts& counts) {
  const uint8_t last = end > 0 ? columns[static_cast<size_t>(end - 1)] : 0;
  for (; end % 4 != 0; ++end) {
    columns[static_cast<size_t>(end)] = last;
    counts[static_cast<size_t>(end)] = 0;
  }
  return end;
}

// Appends what the counts of block b have beyond ±127, in pieces of at most that.
void add_beyond(const int32_t* counts, int64_t b, int64_t blocks, EventList& list) {
  if (list.begin.empty()) list.begin.assign(static_cast<size_t>(blocks + 1), 0);
  const auto end = static_cast<size_t>(4 * list.groups);
  list.columns.resize(end);
  list.counts.resize(end);
  for (int c = 0; c < 32; ++c) {
    int32_t rest = counts[c] - std::clamp(counts[c], -127, 127);
    while (rest != 0) {
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
  list.groups = static_cast<int64_t>(list.columns.size() / 4);
  std::fill(list.begin.begin() + b + 1, list.begin.end(), static_cast<uint32_t>(list.groups));
}

template <class T>
void grow(std::vector<T>& vector, int64_t size) {
  if (std::ssize(vector) < size) vector.resize(static_cast<size_t>(size));
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
  if (!with_events) return;
  events.stride = cols + kSlack;
  grow(events.begin, blocks + 1);
  grow(events.columns, events.stride);
  grow(events.counts, rows * events.stride);
}

void fire_row(const NeuronSetting& neuron, const float* x, int64_t row, int64_t cols, SpikeRows& out) {
  sync_highway_isa();
  const int64_t blocks = cols / kBlock;
  float sums[32];
  const int32_t most = HWY_DYNAMIC_DISPATCH(magnitudes_n)(x, cols, sums);
  const float threshold = threshold_of(sums, most, cols, neuron.k);
  int8_t* base = out.base.data() + row * cols;
  uint32_t* fired = out.fired.data() + row * blocks;
  int32_t* totals = out.sums.data() + row * blocks;
  EventList& beyond = out.beyond[static_cast<size_t>(row)];
  beyond.begin.clear();
  beyond.groups = 0;
  out.threshold[static_cast<size_t>(row)] = threshold;
  out.spiking[static_cast<size_t>(row)] = 0;
  const bool listed = out.event_rows == 1;
  if (std::isnan(threshold)) {
    std::fill_n(base, cols, int8_t{0});
    std::fill_n(fired, blocks, 0u);
    std::fill_n(totals, blocks, 0);
    if (listed) std::fill_n(out.events.begin.begin(), blocks + 1, 0u);
    out.events.groups = listed ? 0 : out.events.groups;
    return;
  }
  const auto fire = &HWY_DYNAMIC_DISPATCH(fire_block);
  const float dead = neuron.dead_zone * threshold;
  int64_t end = 0, spiking = 0;
  for (int64_t b = 0; b < blocks; ++b) {
    int32_t counts[32];
    bool over = false;
    uint8_t* columns = listed ? out.events.columns.data() + end : nullptr;
    int8_t* listed_counts = listed ? out.events.counts.data() + end : nullptr;
    fired[b] = fire(x + b * kBlock, threshold, dead, counts, base + b * kBlock, totals + b, &over, columns,
                    listed_counts);
    const int count = std::popcount(fired[b]);
    spiking += count;
    if (over) add_beyond(counts, b, blocks, beyond);
    if (!listed) continue;
    out.events.begin[static_cast<size_t>(b)] = static_cast<uint32_t>(end / 4);
    end = pad_group(end + count, out.events.columns, out.events.counts);
  }
  out.spiking[static_cast<size_t>(row)] = spiking;
  if (!listed) return;
  out.events.begin[static_cast<size_t>(blocks)] = static_cast<uint32_t>(end / 4);
  out.events.groups = end / 4;
}

void unite_events(int64_t cols, SpikeRows& out) {
  if (out.event_rows < 2) return;
  const int64_t blocks = cols / kBlock, rows = out.event_rows;
  EventList& list = out.events;
  int64_t end = 0;
  for (int64_t b = 0; b < blocks; ++b) {
    list.begin[static_cast<size_t>(b)] = static_cast<uint32_t>(end / 4);
    uint32_t fired = 0;
    for (int64_t n = 0; n < rows; ++n) fired |= out.fired[static_cast<size_t>(n * blocks + b)];
    const int64_t begin = end;
    for (; fired != 0; fired &= fired - 1)
      list.columns[static_cast<size_t>(end++)] = static_cast<uint8_t>(std::countr_zero(fired));
    const int64_t full = end;
    for (; end % 4 != 0; ++end)
      list.columns[static_cast<size_t>(end)] = list.columns[static_cast<size_t>(full - 1)];
    for (int64_t n = 0; n < rows; ++n) {
      const int8_t* base = out.base.data() + n * cols + b * kBlock;
      int8_t* counts = list.counts.data() + n * list.stride;
      for (int64_t e = begin; e < full; ++e) counts[e] = base[list.columns[static_cast<size_t>(e)]];
      std::fill(counts + full, counts + end, int8_t{0});
    }
  }
  list.begin[static_cast<size_t>(blocks)] = static_cast<uint32_t>(end / 4);
  list.groups = end / 4;
}

void spikes_to_floats(const SpikeRows& spikes, int64_t row, int64_t cols, float* out) {
  const int8_t* base = spikes.base.data() + row * cols;
  for (int64_t c = 0; c < cols; ++c) out[c] = base[c];
  const EventList& beyond = spikes.beyond[static_cast<size_t>(row)];
  if (!beyond.begin.empty())
    for (int64_t b = 0; b < cols / kBlock; ++b)
      for (size_t e = 4 * size_t{beyond.begin[static_cast<size_t>(b)]};
           e < 4 * size_t{beyond.begin[static_cast<size_t>(b + 1)]}; ++e)
        out[b * kBlock + beyond.columns[e]] += static_cast<float>(beyond.counts[e]);
  const float threshold = spikes.threshold[static_cast<size_t>(row)];
  for (int64_t c = 0; c < cols; ++c) out[c] *= threshold;
}

float fire_reference(const NeuronSetting& neuron, const float* x, int64_t n, int32_t* counts) {
  float sums[32] = {};
  int32_t most = 0;
  for (int64_t i = 0; i < n; ++i) {
    const float magnitude = std::abs(x[i]);
    sums[i % 32] += magnitude;
    most = std::max(most, std::bit_cast<int32_t>(magnitude));
  }
  const float threshold = threshold_of(sums, most, n, neuron.k);
  for (int64_t i = 0; i < n; ++i) {
    const bool silent = std::isnan(threshold) || std::abs(x[i]) < neuron.dead_zone * threshold;
    counts[i] = silent ? 0 : static_cast<int32_t>(std::nearbyint(x[i] / threshold));
  }
  return threshold;
}

}  // namespace mneme
#endif
