// Snapshot files from anywhere: parse, and if the parser accepts them, read everything they claim to hold.
// The checksum is made right first, so that the fuzzer reaches what lies behind it.
#include <cstddef>
#include <cstdint>
#include <string>

#include "core/checksum.h"
#include "core/sha256.h"
#include "engine/session_impl.h"
#include "mneme/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string file(reinterpret_cast<const char*>(data), size);
  const bool old = size > 8 && data[8] < 4;  // versions up to 3 end with a SHA-256
  file += old ? mneme::sha256_hex(file) : mneme::Xxh3().update(std::as_bytes(std::span(file))).hex();
  try {
    const auto snapshot = mneme::parse_snapshot(std::as_bytes(std::span(file)), "fuzz");
    int64_t sum = 0;
    for (const auto id : snapshot->tokens) sum += id;
    for (const auto& group : snapshot->blocks)
      for (const auto& block : group)
        if (block && block->size() > 0) sum += std::to_integer<int>(block->data()[block->size() - 1]);
    volatile int64_t sink = sum;
    (void)sink;
  } catch (const mneme::Error&) {
  }
  return 0;
}
