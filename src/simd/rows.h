// Rows of a memory table, from the record in the file to floats and back. A record is contiguous:
//
//   f32, bf16       n values
//   int8            n codes, then one f32 scale:              w = scale * code
//   fp8_e4m3_e8m0   n E4M3 codes, then ceil(n / 32) E8M0 bytes: w = 2^(e - 127) * code, one e per 32 values
//
// so that one page-in brings all of a row. Records need no alignment; numbers are little-endian. Reading
// never fails: a NaN code becomes a NaN.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "mneme/engram_config.h"

namespace mneme {

/// Bytes of one record of `n` values. Throws Error(corrupt) if that overflows 32 bits.
uint32_t row_bytes(RowFormat format, uint32_t n);

/// out[n] = the row in `record` [row_bytes(format, n)].
void decode_row(RowFormat format, const std::byte* record, int64_t n, float* out);
/// The same, one value after the other: the specification. Equal bit for bit (NaNs apart).
void decode_row_plain(RowFormat format, const std::byte* record, int64_t n, float* out);

/// Asks for the cache lines of all records at once: their latencies then pass side by side.
void prefetch_rows(RowFormat format, std::span<const std::byte* const> records, int64_t n);

/// out[rows, n] = the rows at those addresses, one after the other; asks for the next records' cache lines
/// while it decodes, because the rows of a token lie anywhere.
void gather_rows(RowFormat format, std::span<const std::byte* const> records, int64_t n, float* out);

/// Writes the record [row_bytes(format, n)] of row[n]; rounds to nearest, ties to even. int8: scale =
/// max|row| / 127. fp8: the smallest power of two with max|block| <= 448 * scale. Throws
/// Error(invalid_argument) for a value that is not finite in a scaled format.
void encode_row(RowFormat format, const float* row, int64_t n, std::byte* record);

}  // namespace mneme
