#include "model/expert_cache.h"

#include <cmath>
#include <limits>

namespace mneme {
namespace {

constexpr double kNeverUsed = -std::numeric_limits<double>::infinity();

}  // namespace

ExpertCache::ExpertCache(uint32_t experts, uint32_t slots, double half_life)
    : step_(1 / half_life), slot_of_(experts, -1), worth_(experts, kNeverUsed), expert_in_(slots, -1) {
  free_.reserve(slots);
  for (uint32_t slot = slots; slot > 0; --slot) free_.push_back(slot - 1);
}

void ExpertCache::use(uint32_t expert) noexcept {
  double& worth = worth_[expert];
  const double before = worth == kNeverUsed ? 0 : std::exp2(worth - now_);
  worth = now_ + std::log2(1 + before);
}

int32_t ExpertCache::insert(uint32_t expert, const std::function<bool(uint32_t slot)>& may_leave,
                            int32_t& left) {
  left = -1;
  int32_t slot = -1;
  if (!free_.empty()) {
    slot = static_cast<int32_t>(free_.back());
    free_.pop_back();
  } else {
    for (uint32_t s = 0; s < slots(); ++s) {
      const auto in = static_cast<size_t>(expert_in_[s]);
      const bool less = slot < 0 || worth_[in] < worth_[static_cast<size_t>(left)];
      if (!less || !may_leave(s)) continue;
      slot = static_cast<int32_t>(s);
      left = expert_in_[s];
    }
    if (slot < 0) return -1;
    slot_of_[static_cast<size_t>(left)] = -1;
  }
  expert_in_[static_cast<size_t>(slot)] = static_cast<int32_t>(expert);
  slot_of_[expert] = slot;
  return slot;
}

void ExpertCache::erase(uint32_t expert) noexcept {
  const auto slot = static_cast<uint32_t>(slot_of_[expert]);
  slot_of_[expert] = -1;
  expert_in_[slot] = -1;
  free_.push_back(slot);
}

}  // namespace mneme
