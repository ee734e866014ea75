// Which instruction set the kernels use. Chosen once at first use: the best that the CPU has, or the one that
// the environment variable MNEME_ISA names ("portable", "avx2", "avx512", "avx512-vnni").
#pragma once
#include <span>
#include <string_view>
#include <vector>

namespace mneme {

enum class Isa {
  portable,     // plain C++, any CPU
  avx2,         // AVX2 + FMA + F16C
  avx512,       // AVX-512 F, BW, DQ, VL
  avx512_vnni,  // and VNNI
};

std::string_view to_string(Isa isa) noexcept;
/// The instruction sets that this CPU can run, worst first; always holds `portable`.
std::span<const Isa> supported_isas();
/// The one in use. Throws Error(invalid_argument) if MNEME_ISA names an unknown one or one this CPU lacks.
Isa active_isa();
/// Overrides the choice (tests). Not thread-safe: call before loading models.
void set_active_isa(Isa isa);

/// Whether a core of this processor reads lines with gaps between them at about half the rate of a stream
/// without. Its own requests, prefetches by the program among them, are then held in few buffers (AMD: 24),
/// while the processor's stream prefetcher has more; where it fetches silent neighbours, they use bandwidth
/// in vain. Measured on Zen 3 (docs/spike-products.md, "Where gaps are dear"); the other processors of AMD
/// are taken to be alike.
/// The environment variable MNEME_GAPS ("dear" or "cheap") says it for this processor; results are the same
/// bits. Throws Error(invalid_argument) if it says anything else.
bool gaps_are_dear();
/// Overrides the answer (tests). Not thread-safe: call before loading models.
void set_gaps_are_dear(bool dear);

}  // namespace mneme
