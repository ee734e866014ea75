// ExpertCache: which experts of a model stay in memory. Only the choice: it knows slots and numbers, no
// bytes.
//
// The policy is LRFU (Lee et al., IEEE Trans. Computers 50(12), 2001): every use of an expert is worth 1 when
// it happens and half as much each `half_life` tokens later; the expert whose uses are worth least leaves. A
// short half-life is LRU, a long one LFU. All experts keep their worth, also those that are not in memory:
// there are thousands, not millions, and so an expert that comes back is not a stranger. docs/experts.md
// compares hit rates with LRU and S3-FIFO, which the rows of memory tables use.
//
// Worths are kept as base-2 logarithms at a common time, so that nothing has to be aged: a use at time t adds
// 2^(t / half_life).
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

namespace mneme {

/// Not thread-safe.
class ExpertCache {
 public:
  static constexpr double kHalfLife = 128;  // tokens; measured in docs/experts.md

  /// Experts are numbered [0, experts); `slots` of them fit into memory.
  ExpertCache(uint32_t experts, uint32_t slots, double half_life = kHalfLife);

  uint32_t slots() const noexcept { return static_cast<uint32_t>(expert_in_.size()); }
  /// The slot of an expert, or -1.
  int32_t slot_of(uint32_t expert) const noexcept { return slot_of_[expert]; }
  /// The expert in a slot, or -1.
  int32_t expert_in(uint32_t slot) const noexcept { return expert_in_[slot]; }

  /// A token passes: uses from now on are worth more.
  void tick() noexcept { now_ += step_; }
  /// Counts a use, whether the expert is here or not.
  void use(uint32_t expert) noexcept;

  /// Gives the expert, which is not here, a slot: a free one, or that of the expert of least worth among
  /// those for whose slot `may_leave` is true. `left` is that expert, or -1. Returns -1 if nobody may leave.
  int32_t insert(uint32_t expert, const std::function<bool(uint32_t slot)>& may_leave, int32_t& left);
  /// Frees the slot of an expert that is here.
  void erase(uint32_t expert) noexcept;

 private:
  double step_, now_ = 0;
  std::vector<int32_t> slot_of_;    // [experts]
  std::vector<double> worth_;       // [experts]: log2
  std::vector<int32_t> expert_in_;  // [slots]
  std::vector<uint32_t> free_;
};

}  // namespace mneme
