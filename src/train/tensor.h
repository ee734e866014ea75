// The part of libtorch that the trainer uses: tensors, and autograd through backward() and custom functions.
// These four headers compile in half the time of torch/torch.h, whose modules and optimisers are not needed:
// parameters are a flat map by canonical name (parameters.h), optimisers are ours (optimiser.h).
#pragma once
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/types.h>

namespace mneme::train {
using Tensor = at::Tensor;
}  // namespace mneme::train
