// Random numbers whose stream is fixed by this file alone, on every machine: PCG64 (O'Neill 2014, variant
// XSL-RR 128/64) seeded through the SeedSequence hash, in exactly the form of NumPy's
// `Generator(PCG64(seed))`. Two users need that: the sampler (same seed, same text) and Engram, whose hash
// multipliers are defined by this stream. Not for cryptography.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>

namespace mneme {

/// The eight 32-bit words (as four 64-bit words, low half first) that NumPy's SeedSequence(seed) yields:
/// every bit of the seed reaches every bit of the output, so neighbouring seeds give unrelated streams.
std::array<uint64_t, 4> seed_sequence(uint64_t seed) noexcept;

/// 128-bit linear congruential state, 64-bit output by xor-shift-low and random rotation. Period 2^128.
/// Copyable: a copy continues the same stream. Not thread-safe.
class Pcg64 {
 public:
  explicit Pcg64(uint64_t seed) noexcept;

  /// The next 64 random bits: NumPy's `bit_generator.random_raw()`.
  uint64_t next() noexcept;
  /// Uniform in [0, 1) with 53 bits: NumPy's `random()`.
  double uniform() noexcept;
  /// Uniform in [0, bound) without bias (Lemire 2019); 0 for bounds 0 and 1, which draw nothing. Equal to
  /// NumPy's `integers(0, bound)` for bounds above 2^32; below, NumPy draws 32-bit halves, this does not.
  uint64_t below(uint64_t bound) noexcept;

 private:
  uint64_t high_ = 0, low_ = 0;          // state
  uint64_t inc_high_ = 0, inc_low_ = 0;  // stream constant, odd
  void step() noexcept;
};

}  // namespace mneme
