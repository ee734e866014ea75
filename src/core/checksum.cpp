#include "core/checksum.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <fmt/format.h>

namespace mneme {

uint64_t xxh3(std::span<const std::byte> data) noexcept {
  return XXH3_64bits(data.data(), data.size());
}

struct Xxh3::State {
  XXH3_state_t state;  // wants 64 bytes of alignment, which new gives
};

Xxh3::Xxh3() : state_(std::make_unique<State>()) {
  XXH3_64bits_reset(&state_->state);
}
Xxh3::~Xxh3() = default;

Xxh3& Xxh3::update(std::span<const std::byte> data) noexcept {
  XXH3_64bits_update(&state_->state, data.data(), data.size());
  return *this;
}

uint64_t Xxh3::value() const noexcept {
  return XXH3_64bits_digest(&state_->state);
}

std::string Xxh3::hex() const {
  return fmt::format("{:016x}", value());
}

}  // namespace mneme
