// Spiking neurons, as plain references: what they are, not how they run fast (the kernels that an engine pass
// uses are in src/simd).
//
// The adaptive-threshold neuron of SpikingBrain (arXiv:2509.05276) turns a row of activations x [width] into
// whole numbers of spikes:
//
//   V_th = mean|x| / k, within [1e-5, 1e4]        one threshold a row, or a head; nothing is learned
//   s_i  = round(x_i / V_th), ties to even        signed and without a bound: an outlier is a large count
//   x_i ~= V_th s_i                               so a projection gives V_th (W s)
//
// A larger k lowers the threshold and fires more; the mean of |s| is about k whatever x is. That one step is
// what remains of a neuron in time, v[t+1] = v[t] - V_th s[t] + x[t+1] with s in {-1, 0, 1} (equation 20),
// when only the sum of its spikes counts: see settle(). The neurons below it keep time: LIF with a leak and
// either reset (equation 9), and LIF whose threshold drains the potential at every step.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace mneme {

/// The bounds of a threshold, those of the published code.
inline constexpr float kMinSpikeThreshold = 1e-5f, kMaxSpikeThreshold = 1e4f;
/// Counts end here, so that any finite row has counts; 2^24 is also where floats stop being exact integers.
inline constexpr int32_t kMaxSpikeCount = 1 << 24;

struct SpikeRule {
  float k = 3.0f;  // > 0, finite
  float dead_zone =
      0.0f;  // in thresholds, >= 0: |x| below dead_zone * V_th is silent; up to 0.5 changes nothing
  bool operator==(const SpikeRule&) const = default;
};
/// Throws Error(invalid_argument) for a rule outside those ranges.
void check_spike_rule(const SpikeRule& rule);

/// V_th of a row. NaN if x holds a NaN or an infinity, the lower bound if x is empty or all zero.
float spike_threshold(std::span<const float> x, float k) noexcept;

/// Fills counts [width] with the spikes of a row and returns its threshold. A row with a NaN or an infinity
/// has a NaN threshold and no spikes, so that whatever is made of it shows the damage. `counts` is as long as
/// x.
float spike_row(std::span<const float> x, const SpikeRule& rule, std::span<int32_t> counts) noexcept;

/// The same with a threshold for every `head_dim` neighbours, as queries and keys have. Returns the
/// thresholds [heads]. Throws Error(invalid_argument) unless head_dim divides the width.
std::vector<float> spike_heads(std::span<const float> x, int64_t head_dim, const SpikeRule& rule,
                               std::span<int32_t> counts);

/// Equation 20 in virtual time. Each step adds its input to the potential and fires at most one spike, -1 or
/// 1, which takes a threshold away: a soft reset without a leak. It fires when the potential is more than
/// half a threshold away from 0; at exactly half, only if the sum of its spikes is odd and becomes even by
/// it, which is how rounding to even breaks ties.
class IntegrateAndFire {
 public:
  explicit IntegrateAndFire(double threshold) noexcept : threshold_(threshold) {}
  int step(double input) noexcept;
  double potential() const noexcept { return potential_; }
  int64_t count() const noexcept { return count_; }  // the sum of its spikes so far

 private:
  double threshold_, potential_ = 0;
  int64_t count_ = 0;
};

/// Feeds `inputs`, then nothing until the neuron is quiet. `steps` is how long that took. Wherever in time
/// the input came, the count is round(sum of inputs / threshold): this is why one step can stand for all.
struct Settled {
  int64_t count = 0, steps = 0;
  double residue = 0;  // of the potential: at most half a threshold
};
/// Throws Error(limit) if that takes more than 2^26 spikes, Error(invalid_argument) for a threshold that is
/// not positive or inputs that are not finite.
Settled settle(std::span<const float> inputs, double threshold);

enum class SpikeReset { soft, hard };

/// A leaky integrate-and-fire neuron (equation 9): u = leak * v + x; it fires if u >= threshold; then v = u -
/// threshold (soft) or v = reset_potential (hard), else v = u.
class LeakyIntegrateAndFire {
 public:
  struct Options {
    float leak = 0.9f;  // 1: none
    float threshold = 1.0f;
    SpikeReset reset = SpikeReset::soft;
    float reset_potential = 0.0f;  // of a hard reset
  };
  /// Throws Error(invalid_argument) for a leak outside [0, 1], a threshold that is not positive, or a reset
  /// potential at or above it.
  explicit LeakyIntegrateAndFire(const Options& options);
  bool step(float input) noexcept;
  float potential() const noexcept { return potential_; }

 private:
  Options options_;
  float potential_ = 0;
};

/// LIF whose threshold is a drain: v' = leak * v + w . x - theta, s = [v' > 0]. Nothing else resets it; with
/// leak 0 it is a perceptron with threshold theta, and theta may be changed between steps.
class DrainedNeuron {
 public:
  /// Throws Error(invalid_argument) for a leak outside [0, 1] or values that are not finite.
  DrainedNeuron(std::vector<float> weights, float leak, float theta);
  /// Throws Error(invalid_argument) unless there are as many inputs as weights.
  bool step(std::span<const float> inputs);
  void set_theta(float theta) noexcept { theta_ = theta; }
  float potential() const noexcept { return potential_; }

 private:
  std::vector<float> weights_;
  float leak_, theta_, potential_ = 0;
};

}  // namespace mneme
