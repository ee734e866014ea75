// One typed metadata value of a GGUF file, and the type ids that the format gives them.
#pragma once
#include "files/gguf.h"
#include "files/gguf_cursor.h"

namespace mneme {

enum class GgufType : uint32_t {
  u8 = 0,
  i8 = 1,
  u16 = 2,
  i16 = 3,
  u32 = 4,
  i32 = 5,
  f32 = 6,
  boolean = 7,
  string = 8,
  array = 9,
  u64 = 10,
  i64 = 11,
  f64 = 12,
};

/// Reads the type and the value that follow a key. Throws Error(corrupt | unsupported) naming the key.
GgufValue read_gguf_value(GgufCursor& in, std::string_view key);

}  // namespace mneme
