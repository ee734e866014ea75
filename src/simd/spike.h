// The adaptive-threshold neuron (SpikingBrain 1.0, arXiv 2509.05276, section 3.3): a row of activations
// becomes spike counts,
//
//   V = clamp(mean|x| / k, 1e-5, 1e4)      the threshold, one a row
//   s = round(x / V), ties to even; signed, not clipped; 0 where |x| < dead_zone * V
//
// and stands for x ≈ V s. The bigger k, the lower the threshold and the more spikes; E|s| is about k. A dead
// zone up to 0.5 changes nothing, because those values round to 0 anyway.
//
// Counts are held exactly: an int8 clamped to ±127, and for what lies beyond a list of further int8 counts of
// the same column. int8, because that is what dot products multiply 64 at a time (16-bit counts would need
// the weights widened and twice the instructions), and because few are beyond: the sum of |s| over a row is
// about k times its length, so that the list has at most k / 127 entries an input. To bound it where the
// threshold's upper clamp bites, V is never below mean|x| / 256 nor below max|x| / 2^18; the second also
// keeps the sum of 32 products of a count and a code within 32 bits. A row whose mean of |x| is beyond the
// range of float, or that holds a NaN or an infinity, has the threshold NaN and no spikes: the product shows
// it.
#pragma once
#include <cstdint>
#include <vector>

#include "simd/packed_matrix.h"

namespace mneme {

struct NeuronSetting {
  float k = 3.0f;
  float dead_zone = 0.0f;
  bool operator==(const NeuronSetting&) const = default;
};

inline constexpr float kLeastThreshold = 1e-5f, kMostThreshold = 1e4f;
inline constexpr float kMostMeanCount = 256;
/// No count is beyond: |x| / V is at most that where V is at least max|x| / 2^18. A message of counts
/// (parallel/count_coder.h) is held to it too, because products rely on it.
inline constexpr int32_t kMostCount = 1 << 18;

/// Columns and their counts, in groups of 4 within blocks of 32 columns. A block's last group is filled with
/// counts of 0.
struct EventList {
  std::vector<uint32_t> begin;   // [blocks + 1]: the first group of each block; empty: no list
  std::vector<uint8_t> columns;  // [4 * groups]: 0..31, in the block
  std::vector<int8_t> counts;    // [4 * groups] a row of X, `stride` apart
  int64_t stride = 0;
  int64_t groups = 0;
};

/// The largest share of columns in the list of `rows` rows of X at which walking the list is faster than
/// reading every column, on this processor (docs/spike-products.md has the measurements).
double event_share(int64_t rows);

/// Spike counts of rows of activations, as the products read them. Storage only: how many columns a row has
/// (a multiple of 32) is the caller's to say.
struct SpikeRows {
  std::vector<int8_t> base;       // [rows, cols]: counts clamped to ±127
  std::vector<uint32_t> fired;    // [rows, cols/32]: bit c is set if column c of the block is not silent
  std::vector<int32_t> sums;      // [rows, cols/32]: of the whole counts
  std::vector<float> threshold;   // [rows]
  std::vector<int64_t> spiking;   // [rows]: inputs that are not silent
  std::vector<EventList> beyond;  // [rows]: counts beyond ±127; mostly without a list
  EventList events;               // of the rows [0, event_rows) together: every column that one of them fires
  std::vector<uint32_t> united;   // [cols/32]: `fired` of those rows together, if they are several
  int64_t event_rows = 0;         // 0: no list is wanted
  bool listed = false;            // whether `events` is there

  /// Room for rows x cols. `with_events`: a list of events is wanted of these rows, which are few. Never
  /// shrinks, so that a warmed-up engine does not allocate (except for counts beyond ±127, at first).
  void reserve(int64_t rows, int64_t cols, bool with_events);
};

/// What a row says to every neuron that reads it: mean and largest |x|; both NaN if the row is not finite.
struct RowMagnitude {
  float mean = 0, most = 0;
};
RowMagnitude magnitude_of(const float* x, int64_t cols);

/// Fires row `row` of [rows, cols] from x [cols]. If the list is of one row, it is made at once (where gaps
/// are dear, only if it is short enough to be walked). Rows may be fired from different threads. cols: a
/// multiple of 32.
void fire_row(const NeuronSetting& neuron, const RowMagnitude& magnitude, const float* x, int64_t row,
              int64_t cols, SpikeRows& out);
inline void fire_row(const NeuronSetting& neuron, const float* x, int64_t row, int64_t cols, SpikeRows& out) {
  fire_row(neuron, magnitude_of(x, cols), x, row, cols, out);
}
/// After every row of a list has been fired: makes the list of their union, if it is short enough to be
/// walked (event_share) or `however_long`.
void unite_events(int64_t cols, SpikeRows& out, bool however_long = false);

/// Whether the event-driven way is taken for rows [n_begin, n_end) of X against a W of `cols` columns: they
/// have a list, and it is short enough.
bool takes_events(const SpikeRows& x, int64_t cols, int64_t n_begin, int64_t n_end);

/// counts[c] of row `row` [cols], whole: what fire_row made of it. Floats hold every count exactly.
void spike_counts(const SpikeRows& spikes, int64_t row, int64_t cols, int32_t* counts);
void spike_counts(const SpikeRows& spikes, int64_t row, int64_t cols, float* counts);
/// Makes row `row` what fire_row would have made it, from its threshold and whole counts [cols] (as floats,
/// of at most kMostCount, which the caller has checked): for rows that were fired elsewhere.
void place_spikes(const float* counts, float threshold, int64_t row, int64_t cols, SpikeRows& out);

/// out[c] = threshold * count of row `row`, after it was fired.
void spikes_to_floats(const SpikeRows& spikes, int64_t row, int64_t cols, float* out);

/// x[n] = threshold * count of each, any n: what attention makes of a spiking query, one head at a time.
void spike_in_place(const NeuronSetting& neuron, float* x, int64_t n);

/// Plain C++ specification: writes counts [n], returns the threshold.
float fire_reference(const NeuronSetting& neuron, const float* x, int64_t n, int32_t* counts);

}  // namespace mneme
