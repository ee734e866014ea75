// A breath between two looks at a value that another thread will change soon.
#pragma once
#if defined(__x86_64__)
#include <immintrin.h>
#else
#include <thread>
#endif

namespace mneme {

/// 40 to 140 cycles on x86, in which the core's other thread may run; elsewhere the rest of the time slice.
inline void relax() noexcept {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

}  // namespace mneme
