#include "simd/highway_isa.h"

#include <hwy/targets.h>

#include <atomic>

#include "simd/isa.h"

namespace mneme {
namespace {

int64_t disabled_targets(Isa isa) {
#if defined(__x86_64__)
  constexpr int64_t kAvx512 = HWY_AVX3 | HWY_AVX3_DL;
  switch (isa) {
    case Isa::portable:
      return kAvx512 | HWY_AVX2 | HWY_SSE4 | HWY_SSSE3;
    case Isa::avx2:
      return kAvx512;
    default:
      return 0;
  }
#else
  (void)isa;
  return 0;
#endif
}

std::atomic<int> g_synced{-1};

}  // namespace

void sync_highway_isa() {
  const Isa isa = active_isa();
  if (g_synced.load(std::memory_order_acquire) == static_cast<int>(isa)) return;
  hwy::DisableTargets(disabled_targets(isa));
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  g_synced.store(static_cast<int>(isa), std::memory_order_release);
}

}  // namespace mneme
