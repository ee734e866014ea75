// What a token of training costs in arithmetic: the denominator of "how much of the machine is used".
#pragma once
#include <cstdint>

#include "mneme/model_config.h"

namespace mneme::train {

/// Floating-point operations (a multiply-add is two) that one token of a sequence of `length` needs forward
/// and backward: 6 for every parameter that multiplies it (the head among them, look-ups not), and 3 times
/// what its mixer does with keys, values and states. Element-wise work is not counted, nor what is computed
/// twice to save memory.
double flops_per_token(const ModelConfig& config, uint32_t length);

/// What this machine reaches in matrix products on the threads that are set, operations a second: a 2048^3
/// product of libtorch in bf16, or a 1024^3 one in f32 where that is faster, the best of a few. Takes about
/// half a second. A reference for the share that a run uses, not a bound.
double measured_flops();

}  // namespace mneme::train
