// The time of a pass before it is run: each stage takes as long as the slower of reading its bytes and doing
// its arithmetic, with the rates that this machine reaches (cost/kernel_times.h), and then a barrier.
#pragma once
#include <array>

#include "cost/kernel_times.h"
#include "cost/work.h"

namespace mneme {

struct PredictedTime {
  std::array<double, kCostParts> parts{};  // seconds, stages' ends included
  double reading = 0;                      // seconds that the bytes alone take
  double computing = 0;                    // that the arithmetic alone takes
  double stages = 0;                       // the ends of stages, and to start the pass
  double read_gbps = 0;                    // 1e9 bytes/s at this working set
  double seconds() const;
};

/// One token at decode that sees `context` positions, itself included. Throws what KernelTimes throws.
PredictedTime predict_decode(const ModelShape& shape, KvType kv, uint64_t context, KernelTimes& times);
/// A prompt of `tokens` tokens read from the start in passes of `chunk`.
PredictedTime predict_prompt(const ModelShape& shape, KvType kv, uint64_t tokens, uint32_t chunk,
                             KernelTimes& times);

}  // namespace mneme
