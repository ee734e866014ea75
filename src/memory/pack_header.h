// The fixed header of a pack: byte for byte what docs/files.md says.
#pragma once
#include <array>
#include <cstdint>
#include <string>

#include "core/file.h"

namespace mneme {

inline constexpr uint64_t kPackHeaderBytes = 192;
inline constexpr uint64_t kPackHashedBytes = 128;  // of the header, before its SHA-256
inline constexpr uint32_t kPackVersion = 1;
inline constexpr uint64_t kPackAlignment = 64;

struct PackSection {
  uint64_t offset = 0, bytes = 0;
  uint64_t end() const noexcept { return offset + bytes; }
};

struct PackHeader {
  PackSection description, token_map, checksums, tensors, rows;
  uint64_t row_count = 0;
  uint32_t row_bytes = 0, rows_per_page = 0;
  uint64_t block_bytes = 0;
  uint64_t file_bytes = 0;
  std::array<uint8_t, 32> sha256{};

  uint64_t blocks() const noexcept {
    return block_bytes == 0 ? 0 : (rows.bytes + block_bytes - 1) / block_bytes;
  }
  std::string fingerprint() const;
};

/// Parses the first bytes of a file of `file_bytes` and checks all of it against itself and the file. Throws
/// Error(corrupt | unsupported).
PackHeader parse_pack_header(Bytes head, uint64_t file_bytes, const std::string& name);
std::array<std::byte, kPackHeaderBytes> pack_header_bytes(const PackHeader& header);
/// SHA-256 of the hashed bytes of the header and the three sections.
std::string pack_fingerprint(const PackHeader& header, Bytes description, Bytes token_map, Bytes checksums);
/// Bytes that rows take in a pack.
uint64_t pack_rows_section(uint64_t rows, uint32_t row_bytes, uint32_t rows_per_page);

}  // namespace mneme
