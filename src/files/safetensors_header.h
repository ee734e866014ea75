// What the header of one safetensors file says, checked against itself and against the size of the file.
#pragma once
#include <vector>

#include "files/tensor_source.h"

namespace mneme {

struct SafetensorsEntry {
  TensorInfo info;
  uint64_t offset = 0;  // of the first byte, from the start of the file
};

/// Parses a whole file's bytes; entries come in order of their data. `file` names it in messages. Throws
/// Error(corrupt | unsupported).
std::vector<SafetensorsEntry> parse_safetensors_header(Bytes bytes, const std::string& file);

/// The dtype string of a type ("BF16"). Throws Error(unsupported) for quantized types.
std::string_view safetensors_dtype(DType type);

}  // namespace mneme
