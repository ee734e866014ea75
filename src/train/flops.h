// What a token of training costs in arithmetic: the denominator of "how much of the machine is used".
#pragma once
#include <cstdint>

#include "mneme/model_config.h"
#include "train/run_config.h"

namespace mneme::train {

/// Floating-point operations (a multiply-add is two) that one token of a sequence of `length` needs forward
/// and backward: 6 for every parameter that multiplies it (the head among them, look-ups not), and 3 times
/// what its mixer does with keys, values and states. Element-wise work is not counted, nor what is computed
/// twice to save memory.
double flops_per_token(const ModelConfig& config, uint32_t length);

/// The rate of a square matrix product of this precision on the threads that are set, operations a second:
/// best of a few in about a quarter of a second. A reference, not a bound.
double measured_flops(Precision precision);

}  // namespace mneme::train
