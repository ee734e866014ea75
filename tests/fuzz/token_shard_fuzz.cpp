// Token shards from any bytes: parsed or refused with mneme::Error. To get past the checksums, inputs are
// also tried with those corrected; then every token and border that a shard offers is read.
#include <cstring>
#include <string>
#include <vector>

#include "core/checksum.h"
#include "files/token_shard.h"
#include "mneme/error.h"

namespace {

void read_all(mneme::Bytes file) {
  try {
    const mneme::TokenShardInfo info = mneme::read_token_shard_header(file, "fuzz");
    volatile unsigned sum = 0;
    for (const std::byte byte : mneme::token_shard_tokens(file, info))
      sum = sum + static_cast<unsigned>(byte);
    for (const uint64_t begin : mneme::token_shard_documents(file, info))
      sum = sum + static_cast<unsigned>(begin);
    mneme::verify_token_shard(file, info, "fuzz");
  } catch (const mneme::Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // Eight-byte alignment, as a mapped file has it.
  std::vector<uint64_t> aligned((size + 7) / 8 + 1);
  if (size > 0) std::memcpy(aligned.data(), data, size);
  const auto bytes = std::as_writable_bytes(std::span(aligned)).first(size);
  read_all(bytes);
  if (size < 128) return 0;
  const uint64_t payload = mneme::xxh3(bytes.subspan(128));
  std::memcpy(bytes.data() + 88, &payload, 8);
  const uint64_t header = mneme::xxh3(bytes.first(120));
  std::memcpy(bytes.data() + 120, &header, 8);
  read_all(bytes);
  return 0;
}
