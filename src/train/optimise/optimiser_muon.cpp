// Muon: momentum, made orthogonal.
#include <cmath>

#include "core/fail.h"
#include "train/ops/products.h"
#include "train/optimise/optimiser.h"

namespace mneme::train {

Tensor newton_schulz(const Tensor& matrix, uint32_t iterations) {
  require(matrix.dim() == 2, ErrorCode::invalid_argument, "newton_schulz: a matrix is wanted");
  // The quintic that rises fastest at 0 and stays near 1 for singular values in (0, 1] (Jordan et al. 2024).
  constexpr double a = 3.4445, b = -4.7750, c = 2.0315;
  const at::NoGradGuard no_graph;
  const bool tall = matrix.size(0) > matrix.size(1);
  Tensor x = tall ? matrix.t() : matrix;
  x = x / (x.norm() + 1e-7);  // the largest singular value is at most the Frobenius norm
  for (uint32_t i = 0; i < iterations; ++i) {
    const Tensor square = product(x, x, {}, false);  // x x^T, symmetric
    x = a * x + product(b * square + c * product(square, square, {}, false), x.t(), {}, false);
  }
  return tall ? x.t() : x;
}

void Optimiser::muon(Slot& slot, const Tensor& gradient, double lr, double scale) const {
  const Tensor value = slot.value.detach();
  slot.first.mul_(config_.momentum).add_(gradient, (1 - config_.momentum) * scale);
  // Nesterov: the momentum as it will be when this gradient has come once more.
  const Tensor ahead = gradient * ((1 - config_.momentum) * scale) + slot.first * config_.momentum;
  const double size = 0.2 * std::sqrt(static_cast<double>(std::max(value.size(0), value.size(1))));
  value.mul_(1 - lr * (slot.rule.decay ? config_.weight_decay : 0.0));
  value.add_(newton_schulz(ahead, config_.iterations), -lr * size);
}

}  // namespace mneme::train
