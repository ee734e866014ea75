// Small packs for tests: a table of a few hundred rows whose every byte follows from its row and column.
#pragma once
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "memory/engram_config.h"
#include "memory/engram_hash.h"
#include "memory/pack.h"
#include "mneme/error.h"
#include "scratch.h"
#include "simd/rows.h"

namespace mneme::testing_support {

inline EngramTableConfig small_table(RowFormat format = RowFormat::fp8_e4m3_e8m0, uint32_t head_dim = 64,
                                     uint64_t base_rows = 100) {
  EngramTableConfig table;
  table.raw_ids = true;
  table.compressed_vocab = 64;
  table.heads = 2;
  table.head_dim = head_dim;
  table.base_rows = {base_rows, base_rows};
  table.layer_ids = {1, 3};
  table.format = format;
  return table;
}

/// Byte `i` of a row.
inline std::byte row_byte(uint64_t row, uint64_t i) {
  return static_cast<std::byte>((row * 0x9E3779B97F4A7C15ull + i * 131) >> 23);
}

inline std::string expected_row(uint64_t row, uint32_t bytes) {
  std::string out(bytes, '\0');
  for (uint32_t i = 0; i < bytes; ++i) out[i] = static_cast<char>(row_byte(row, i));
  return out;
}

inline PackToWrite small_pack(const EngramTableConfig& table) {
  PackToWrite pack;
  pack.description.table = table;
  const uint32_t bytes = row_bytes(table.format, table.head_dim);
  pack.rows = [bytes](uint64_t first, uint64_t count, std::byte* out) {
    for (uint64_t row = first; row < first + count; ++row)
      for (uint32_t i = 0; i < bytes; ++i) *out++ = row_byte(row, i);
  };
  return pack;
}

/// A folder of its own for each test.
class FolderTest : public ::testing::Test {
 protected:
  ScratchFolder folder;
};

inline ErrorCode code_of(const std::function<void()>& action, std::string* message = nullptr) {
  try {
    action();
  } catch (const Error& error) {
    if (message != nullptr) *message = error.what();
    return error.code();
  }
  ADD_FAILURE() << "no error";
  return ErrorCode::internal;
}

inline std::string read_rows(const MemoryTable& table, std::span<const uint64_t> ids) {
  std::string out(ids.size() * table.row_bytes(), '?');
  table.read(ids, std::as_writable_bytes(std::span(out)));
  return out;
}

inline std::string expected_rows(std::span<const uint64_t> ids, uint32_t bytes) {
  std::string out;
  for (const uint64_t id : ids) out += expected_row(id, bytes);
  return out;
}

}  // namespace mneme::testing_support
