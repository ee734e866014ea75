// What the spike counts of a projection's input are like, and what they would cost.
//
// Three figures are called sparsity in the literature, and they are not the same (docs/spikes.md):
//   silent share     inputs without a spike: whole columns of weights that need not be read
//   slot sparsity    1 - (ones of |s|) / T at T steps: free slots of a bitwise code in time
//   silent windows   |s| cut into three windows of T bits; the part of all windows without a spike.
// The last is what SpikingBrain's 69.15 % is: almost any input reaches it, since high windows are empty.
#pragma once
#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "model/spike_codes.h"

namespace mneme {

/// How often each count occurs. All figures follow from that, so they do not depend on order or threads.
class SpikeHistogram {
 public:
  void add(std::span<const int32_t> counts);
  void add(const SpikeHistogram& other);

  uint64_t values() const noexcept { return values_; }
  bool empty() const noexcept { return values_ == 0; }
  int32_t least() const noexcept { return least_; }  // 0 while empty, as largest()
  int32_t most() const noexcept { return most_; }
  int64_t largest() const noexcept;  // max|s|
  /// Of a count with its sign.
  uint64_t occurrences(int32_t count) const;

  double silent() const;         // part of the values that are 0
  double mean_size() const;      // E|s|
  double popcount() const;       // mean ones of |s|: the additions for one weight in a bitwise code
  double at_most_seven() const;  // part with |s| <= 7
  /// 1 - popcount / steps. Throws Error(invalid_argument) for steps outside [1, 31]; negative if counts have
  /// more bits than there are steps.
  double slot_sparsity(int64_t steps) const;
  /// The parts of all windows that hold 0, 1, ... `steps` spikes, three windows of `steps` bits to a value;
  /// the bits of a larger count are in its last window, which then counts as full at most. Throws as
  /// slot_sparsity.
  std::vector<double> window_spikes(int64_t steps) const;
  /// How many values fire 0, 1, 2, ... spikes in a code of `steps` steps.
  std::map<int64_t, uint64_t> spikes_per_value(SpikeCode code, int64_t steps) const;

  /// In the order of the counts.
  template <class Body>  // body(count, occurrences)
  void for_each(const Body& body) const {
    for (const auto& [count, n] : rare_)
      if (count < -kCommon) body(count, n);
    for (int32_t count = -kCommon; count <= kCommon && !common_.empty(); ++count)
      if (const uint64_t n = common_[static_cast<size_t>(int64_t{count} + kCommon)]; n > 0) body(count, n);
    for (const auto& [count, n] : rare_)
      if (count > kCommon) body(count, n);
  }

 private:
  static constexpr int32_t kCommon = 1023;
  std::vector<uint64_t> common_;      // [2 kCommon + 1], from -kCommon
  std::map<int32_t, uint64_t> rare_;  // the others
  uint64_t values_ = 0;
  int32_t least_ = 0, most_ = 0;
  double part(uint64_t n) const {
    return values_ == 0 ? 0 : static_cast<double>(n) / static_cast<double>(values_);
  }
};

/// The energy of one multiply-accumulate, in pJ, as SpikingBrain's report models it: constants of a 45 nm
/// process and nothing but arithmetic. A model, never a measurement.
struct SpikeEnergy {
  static constexpr double kFp16Mac = 1.5, kInt8Mac = 0.23, kInt8Add = 0.03;
  /// What the model leaves out, for whoever prints a figure of it.
  static constexpr std::string_view kOmissions =
      "memory traffic, bit-weight shifts, the scale of each row, accumulators wider than 8 bits, norms, "
      "attention and "
      "softmax, asynchronous control";

  double spike = 0;  // popcount * kInt8Add
  double less_than_fp16() const noexcept { return 1 - spike / kFp16Mac; }
  double less_than_int8() const noexcept { return 1 - spike / kInt8Mac; }
};
SpikeEnergy spike_energy(double popcount) noexcept;

}  // namespace mneme
