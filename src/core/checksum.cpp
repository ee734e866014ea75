#include "core/checksum.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace mneme {

uint64_t xxh3(std::span<const std::byte> data) noexcept {
  return XXH3_64bits(data.data(), data.size());
}

}  // namespace mneme
