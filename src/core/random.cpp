#include "core/random.h"

#include <bit>

namespace mneme {
namespace {

__extension__ using Wide = unsigned __int128;

constexpr uint64_t kMultiplierHigh = 2549297995355413924u, kMultiplierLow = 4865540595714422341u;

// The multiplicative hash of SeedSequence: its constant changes with every word that it has hashed.
struct SeedHash {
  uint32_t constant;
  uint32_t factor;

  uint32_t operator()(uint32_t value) noexcept {
    value ^= constant;
    constant *= factor;
    value *= constant;
    return value ^ (value >> 16);
  }
};

uint32_t mix(uint32_t x, uint32_t y) noexcept {
  const uint32_t z = 0xca01f9ddu * x - 0x4973f715u * y;
  return z ^ (z >> 16);
}

Wide wide(uint64_t high, uint64_t low) noexcept {
  return (Wide{high} << 64) | low;
}

}  // namespace

std::array<uint64_t, 4> seed_sequence(uint64_t seed) noexcept {
  // A 64-bit seed has at most two words; a missing word hashes like a zero, so no length is kept.
  const std::array<uint32_t, 4> words{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32), 0, 0};
  SeedHash hash{0x43b0d7e5u, 0x931e8875u};
  std::array<uint32_t, 4> pool{};
  for (size_t i = 0; i < 4; ++i) pool[i] = hash(words[i]);
  for (size_t source = 0; source < 4; ++source)
    for (size_t target = 0; target < 4; ++target)
      if (source != target) pool[target] = mix(pool[target], hash(pool[source]));

  SeedHash output{0x8b51f9ddu, 0x58f38dedu};
  std::array<uint64_t, 4> state{};
  for (size_t i = 0; i < 8; ++i) state[i / 2] |= uint64_t{output(pool[i % 4])} << (32 * (i % 2));
  return state;
}

Pcg64::Pcg64(uint64_t seed) noexcept {
  const auto words = seed_sequence(seed);
  const Wide increment = (wide(words[2], words[3]) << 1) | 1;
  inc_high_ = static_cast<uint64_t>(increment >> 64);
  inc_low_ = static_cast<uint64_t>(increment);
  step();
  const Wide state = wide(high_, low_) + wide(words[0], words[1]);
  high_ = static_cast<uint64_t>(state >> 64);
  low_ = static_cast<uint64_t>(state);
  step();
}

void Pcg64::step() noexcept {
  const Wide state = wide(high_, low_) * wide(kMultiplierHigh, kMultiplierLow) + wide(inc_high_, inc_low_);
  high_ = static_cast<uint64_t>(state >> 64);
  low_ = static_cast<uint64_t>(state);
}

uint64_t Pcg64::next() noexcept {
  step();
  return std::rotr(high_ ^ low_, static_cast<int>(high_ >> 58));
}

double Pcg64::uniform() noexcept {
  return static_cast<double>(next() >> 11) * 0x1p-53;
}

uint64_t Pcg64::below(uint64_t bound) noexcept {
  if (bound <= 1) return 0;
  Wide product = Wide{next()} * bound;
  if (static_cast<uint64_t>(product) < bound) {
    const uint64_t threshold = (0 - bound) % bound;
    while (static_cast<uint64_t>(product) < threshold) product = Wide{next()} * bound;
  }
  return static_cast<uint64_t>(product >> 64);
}

}  // namespace mneme
