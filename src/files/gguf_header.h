// What the header of one GGUF file says, checked against itself and against the size of the file.
#pragma once
#include <vector>

#include "files/gguf.h"

namespace mneme {

struct GgufTensor {
  TensorInfo info;
  uint64_t offset = 0;  // of the first byte, from the start of the file
};

struct GgufHeader {
  uint32_t version = 0;
  uint64_t alignment = 32;
  uint64_t data_begin = 0;  // of the tensor data, from the start of the file
  GgufMetadata metadata;
  std::vector<GgufTensor> tensors;  // in file order
};

/// Parses a whole file's bytes. `file` names it in messages. Throws Error(corrupt | unsupported).
GgufHeader parse_gguf_header(Bytes bytes, const std::string& file);

}  // namespace mneme
