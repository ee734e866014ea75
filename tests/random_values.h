// Seeded samples for statistical tests: the same on every machine.
#pragma once
#include <cmath>
#include <numbers>
#include <vector>

#include "core/random.h"

namespace mneme {

/// N(0, 1) by Box and Muller.
inline std::vector<float> gaussian(size_t n, uint64_t seed) {
  Pcg64 random(seed);
  std::vector<float> x(n);
  for (float& value : x) {
    const double radius = std::sqrt(-2 * std::log1p(-random.uniform()));
    value = static_cast<float>(radius * std::cos(2 * std::numbers::pi * random.uniform()));
  }
  return x;
}

/// The two-sided exponential distribution of mean |x| 1.
inline std::vector<float> laplace(size_t n, uint64_t seed) {
  Pcg64 random(seed);
  std::vector<float> x(n);
  for (float& value : x) {
    const double size = -std::log1p(-random.uniform());
    value = static_cast<float>(random.uniform() < 0.5 ? -size : size);
  }
  return x;
}

}  // namespace mneme
