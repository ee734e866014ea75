// Spiking inputs of projections as a differentiable operation: what the engine's adaptive-threshold neuron
// (simd/spike.h) makes of a row, and the gradients that training gives to a step function.
//
//   forward    V s, with V = mean|x| / k and s = round(x / V): bit for bit the floats that the engine
//              multiplies, because on the CPU in f32 it is the engine's own code
//   backward   straight through (SpikingBrain, arXiv 2509.05276, section 3.3): the gradient of x is that of
//              V s, for silent inputs too, and V counts as a constant. An input in the dead zone can so come
//              back, and what a projection learns does not depend on how far its inputs are from a step.
//
// Firing itself has a price only where a FiringPenalty asks for one. The mean of |s| is about k whatever x
// is, so that counts cannot be the price; the share of inputs that fire can. Its smooth stand-in for one row
// is
//
//   P = mean over i of ramp((u_i - tau) / (width tau)),   u_i = |x_i| / V,   tau = max(1/2, dead zone)
//
// where ramp goes from 0 at -1 to 1 at 1 along two parabolas, so that its slope is a triangle. Here V is
// *not* a constant: dividing all of x by two changes neither u nor P, and the gradient (which is orthogonal
// to x) makes a row sparser instead of smaller.
#pragma once
#include <cstdint>

#include "simd/spike.h"
#include "train/tensor.h"

namespace mneme::train {

/// Exact sums over what was fired.
struct SpikeCount {
  uint64_t inputs = 0;  // values of x
  uint64_t fired = 0;   // those that are not silent
  uint64_t spikes = 0;  // the sum of |s|
};

/// Adds weight * (mean of P over the rows) to the loss, in its gradients alone: no scalar has to be carried
/// through the pass, and layers that are computed again pay once.
struct FiringPenalty {
  double weight = 0;  // in the loss's own unit
  double width = 1;   // of the ramp, in (0, 1]
};

/// V s for rows of x's last dimension, which is a multiple of 32; `count`, if not null, is added to. Rows of
/// NaN where a row holds a NaN or an infinity. Deterministic for any number of threads. Throws
/// Error(invalid_argument) for rows of another length.
Tensor spiked(const Tensor& x, const NeuronSetting& neuron, const FiringPenalty& penalty = {},
              SpikeCount* count = nullptr);

/// V s for rows of x's last dimension, of any length: what the engine's spike_in_place() makes of a query, by
/// libtorch's own operations. The gradient goes straight through.
Tensor spiked_queries(const Tensor& x, const NeuronSetting& neuron);

/// P of every row, by libtorch's own operations (differentiable): the specification of the penalty.
Tensor firing_probability(const Tensor& x, const NeuronSetting& neuron, double width);

}  // namespace mneme::train
