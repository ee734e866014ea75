// Tensors on huge pages: where rows are read and written at random, the translation of their addresses would
// cost more as a table grows.
#pragma once
#include <memory>

#include "core/checked.h"
#include "core/huge_buffer.h"
#include "train/tensor.h"

namespace mneme::train {

/// Zeros on the CPU; pages take memory only once they are written. Throws Error(out_of_memory).
inline Tensor huge_zeros(at::IntArrayRef shape, at::ScalarType type = at::kFloat) {
  uint64_t bytes = c10::elementSize(type);
  for (const int64_t extent : shape) bytes = checked_mul(bytes, static_cast<uint64_t>(extent), "a tensor");
  auto buffer = std::make_shared<HugeBuffer>(bytes > 0 ? bytes : 1);
  return at::from_blob(
      buffer->data(), shape, [buffer](void*) mutable { buffer.reset(); }, at::TensorOptions(type));
}

}  // namespace mneme::train
