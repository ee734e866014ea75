// XXH3 (64 bits, seed 0, by libxxhash): finds damage of files at memory speed. Not for adversaries; what must
// not be forged has a SHA-256.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

namespace mneme {

uint64_t xxh3(std::span<const std::byte> data) noexcept;

}  // namespace mneme
