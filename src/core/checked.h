// Arithmetic on sizes that come from outside. Each function throws Error(corrupt) instead of wrapping, so
// that no allocation or bounds check is ever done on an overflowed number.
#pragma once
#include <cstdint>

#include "core/fail.h"

namespace mneme {

inline uint64_t checked_add(uint64_t a, uint64_t b, const char* what) {
  uint64_t out = 0;
  if (__builtin_add_overflow(a, b, &out))
    fail(ErrorCode::corrupt, "{}: {} + {} overflows 64 bits", what, a, b);
  return out;
}

inline uint64_t checked_mul(uint64_t a, uint64_t b, const char* what) {
  uint64_t out = 0;
  if (__builtin_mul_overflow(a, b, &out))
    fail(ErrorCode::corrupt, "{}: {} * {} overflows 64 bits", what, a, b);
  return out;
}

/// Rounds up to a multiple of `alignment` (a power of two).
inline uint64_t checked_align(uint64_t value, uint64_t alignment, const char* what) {
  return checked_add(value, alignment - 1, what) & ~(alignment - 1);
}

}  // namespace mneme
