#include "simd/isa.h"

#include <array>
#include <atomic>
#include <cstdlib>
#include <string>

#include "core/fail.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace mneme {
namespace {

#if defined(__x86_64__)
// By CPUID, because clang's __builtin_cpu_supports does not know "f16c" before version 17.
bool has_f16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
#endif

std::vector<Isa> detect() {
  std::vector<Isa> isas{Isa::portable};
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c())) return isas;
  isas.push_back(Isa::avx2);
  if (!(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")))
    return isas;
  isas.push_back(Isa::avx512);
  if (__builtin_cpu_supports("avx512vnni")) isas.push_back(Isa::avx512_vnni);
#endif
  return isas;
}

constexpr std::array kAll = {Isa::portable, Isa::avx2, Isa::avx512, Isa::avx512_vnni};

Isa choose() {
  const auto supported = supported_isas();
  const char* wanted = std::getenv("MNEME_ISA");
  if (wanted == nullptr || *wanted == '\0') return supported.back();
  std::string names;
  for (const Isa isa : kAll) {
    if (to_string(isa) == wanted) {
      for (const Isa have : supported)
        if (have == isa) return isa;
    }
  }
  for (const Isa have : supported) names += (names.empty() ? "" : ", ") + std::string(to_string(have));
  fail(ErrorCode::invalid_argument, "MNEME_ISA={} is not an instruction set of this CPU; it has {}", wanted,
       names);
}

std::atomic<int> g_active{-1};

bool is_amd() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return __builtin_cpu_is("amd") != 0;
#else
  return false;
#endif
}

bool choose_gaps() {
  const char* wanted = std::getenv("MNEME_GAPS");
  if (wanted == nullptr || *wanted == '\0') return is_amd();
  const std::string_view word = wanted;
  require(word == "dear" || word == "cheap", ErrorCode::invalid_argument,
          "MNEME_GAPS={} is neither dear nor cheap", word);
  return word == "dear";
}

std::atomic<int> g_gaps{-1};

}  // namespace

std::string_view to_string(Isa isa) noexcept {
  switch (isa) {
    case Isa::portable:
      return "portable";
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
    case Isa::avx512_vnni:
      return "avx512-vnni";
  }
  return "unknown";
}

bool gaps_are_dear() {
  int dear = g_gaps.load(std::memory_order_relaxed);
  if (dear < 0) {
    dear = choose_gaps() ? 1 : 0;
    g_gaps = dear;
  }
  return dear != 0;
}

void set_gaps_are_dear(bool dear) {
  g_gaps = dear ? 1 : 0;
}

std::span<const Isa> supported_isas() {
  static const std::vector<Isa> isas = detect();
  return isas;
}

Isa active_isa() {
  int isa = g_active.load(std::memory_order_relaxed);
  if (isa < 0) {
    isa = static_cast<int>(choose());
    g_active.store(isa, std::memory_order_relaxed);
  }
  return static_cast<Isa>(isa);
}

void set_active_isa(Isa isa) {
  g_active.store(static_cast<int>(isa), std::memory_order_relaxed);
}

}  // namespace mneme
