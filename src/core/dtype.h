// The number formats of tensors on disk, with GGML's block layouts. A block holds `block_size` consecutive
// values of a row in `block_bytes` bytes; float formats have blocks of one. Values of the enum are GGUF's
// type ids.
//
//   type   values bytes  layout of a block (little-endian)
//   Q4_0     32    18    f16 d; 16 x (low nibble: value i, high nibble: value i+16);    w = d*(q-8)
//   Q4_1     32    20    f16 d, m; nibbles as Q4_0;                                     w = d*q + m
//   Q5_0     32    22    f16 d; u32 fifth bits; nibbles;                                w = d*(q-16)
//   Q5_1     32    24    f16 d, m; u32 fifth bits; nibbles;                             w = d*q + m
//   Q8_0     32    34    f16 d; 32 x i8;                                                w = d*q
//   Q2_K    256    84    16 x (scale | min<<4); 64 x 2 bits; f16 d, dmin                blocks of 16
//   Q3_K    256   110    32 x high bit; 64 x 2 bits; 12 bytes of 6-bit scales; f16 d    blocks of 16
//   Q4_K    256   144    f16 d, dmin; 12 bytes of 6-bit scales and mins; nibbles        blocks of 32
//   Q5_K    256   176    as Q4_K with 32 bytes of fifth bits before the nibbles         blocks of 32
//   Q6_K    256   210    128 low nibbles; 64 x 2 high bits; 16 x i8 scale; f16 d        blocks of 16
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace mneme {

enum class DType : uint32_t {
  f32 = 0,
  f16 = 1,
  q4_0 = 2,
  q4_1 = 3,
  q5_0 = 6,
  q5_1 = 7,
  q8_0 = 8,
  q2_k = 10,
  q3_k = 11,
  q4_k = 12,
  q5_k = 13,
  q6_k = 14,
  i8 = 24,
  i16 = 25,
  i32 = 26,
  i64 = 27,
  f64 = 28,
  bf16 = 30,
  // Of safetensors only; GGUF has no such types, and these are not its ids.
  f8_e4m3 = 1001,
  f8_e8m0 = 1002,  // powers of two, the scales of blocks of E4M3
  u8 = 1003,
};

struct DTypeInfo {
  DType type;
  std::string_view name;  // "Q4_0", as GGUF files and users write it
  uint32_t block_size;    // values per block
  uint32_t block_bytes;   // bytes per block
  bool quantized;
};

/// The description of a type that this build can read, or nothing for any other GGUF type id.
std::optional<DTypeInfo> find_dtype(uint32_t gguf_id) noexcept;
/// The description of a known type. Throws Error(unsupported) for a value outside the enum.
const DTypeInfo& dtype_info(DType type);
/// Parses a name without regard to case ("q8_0", "Q8_0").
std::optional<DType> dtype_from_name(std::string_view name) noexcept;
/// Name of any GGUF type id, also of those Mneme cannot read (for messages).
std::string_view gguf_type_name(uint32_t gguf_id) noexcept;

}  // namespace mneme
