// Spike trains: five ways to write whole numbers of spikes s [width] as T steps of {-1, 0, 1}, as in
// SpikingBrain's Int2Spike (arXiv:2509.05276). Step t has a weight w_t, and s = sum over t of w_t spikes[t];
// so a projection is W s = sum over t of w_t (W spikes[t]), additions only.
//
//   code             counts    T                        step t fires                       w_t
//   binary           s >= 0    max(s)                   1 while something remains          1
//   ternary          signed    max|s|                   sign(remainder)                    1
//   unsigned         s >= 0    bits of max(s)           bit T-1-t of s                     2^(T-1-t)
//   bidirectional    signed    bits of max|s|           bit T-1-t of |s|, times sign(s)    2^(T-1-t)
//   twos_complement  signed    bits of max|s| + 1, >= 2 bit T-1-t of s mod 2^T             2^(T-1-t)
//
// where the first weight of two's complement is negative.
//
// "bits of m" is ceil(log2(m + 1)): 7 for 127, 8 for 128. T is at least 1. The number of spikes is what a
// code costs: |s| for the first two, the ones of |s| for the next two. Two's complement is not sparse at all:
// -1 is all ones.
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace mneme {

enum class SpikeCode : uint8_t { binary, ternary, unsigned_, bidirectional, twos_complement };
inline constexpr std::array kSpikeCodes{SpikeCode::binary, SpikeCode::ternary, SpikeCode::unsigned_,
                                        SpikeCode::bidirectional, SpikeCode::twos_complement};

/// "binary", "ternary", "unsigned", "bidirectional", "twos-complement".
std::string_view to_string(SpikeCode code) noexcept;
std::optional<SpikeCode> spike_code_from(std::string_view name) noexcept;
/// Whether the code has counts >= 0 only.
bool is_unsigned(SpikeCode code) noexcept;

/// The steps that counts from `least` to `most` need. Throws Error(invalid_argument) if least is negative and
/// the code is unsigned.
int64_t spike_steps(SpikeCode code, int32_t least, int32_t most);
/// How many of the `steps` of one count hold a spike, for a count in the domain.
int64_t spikes_of(SpikeCode code, int32_t count, int64_t steps) noexcept;
/// w_t of step t of `steps`.
int64_t step_weight(SpikeCode code, int64_t steps, int64_t t) noexcept;

struct SpikeTrain {
  SpikeCode code = SpikeCode::bidirectional;
  int64_t steps = 0, width = 0;
  std::vector<int8_t> spikes;  // [steps, width], each -1, 0 or 1

  std::span<const int8_t> step(int64_t t) const {
    return {spikes.data() + t * width, static_cast<size_t>(width)};
  }
  /// The part of all slots that hold a spike; 0 without slots.
  double rate() const noexcept;
};

/// Counts as a train. `steps` 0: as many as they need. Throws Error: invalid_argument for a count outside the
/// code's domain or that does not fit into the steps given, limit for a train of more than 2^31 slots.
SpikeTrain encode_spikes(SpikeCode code, std::span<const int32_t> counts, int64_t steps = 0);
std::vector<int32_t> decode_spikes(const SpikeTrain& train);

/// y[r] = sum over t of w_t (sum over i of weights[r, i] spikes[t, i]), with additions and one shift a step:
/// what an event-driven machine does. weights: [y.size(), width]. Throws Error(invalid_argument) if the sizes
/// differ.
void spike_train_product(const SpikeTrain& train, std::span<const int8_t> weights, std::span<int64_t> y);

}  // namespace mneme
