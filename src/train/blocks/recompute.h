// Activation checkpointing (Chen et al. 2016, arXiv 1604.06174): a part of the pass whose intermediate values
// are thrown away and computed again when its gradient is wanted.
#pragma once
#include <functional>
#include <vector>

#include "train/tensor.h"

namespace mneme::train {

/// body(x), with gradients to x and to `others`: whatever else body reads and that requires gradients. Body
/// must be deterministic, and what it refers to must outlive the backward pass. Works under both
/// torch::autograd::backward and grad.
Tensor recomputed(std::function<Tensor(const Tensor&)> body, const Tensor& x,
                  const std::vector<Tensor>& others);

}  // namespace mneme::train
