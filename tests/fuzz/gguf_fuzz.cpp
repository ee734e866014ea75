// GGUF headers from any bytes: parsed or refused with mneme::Error; then every tensor's bytes are touched and
// its first blocks dequantized.
#include <algorithm>
#include <vector>

#include "files/gguf.h"
#include "mneme/error.h"
#include "simd/blocks.h"

namespace {

void read_tensors(const mneme::GgufFile& file) {
  for (const auto& tensor : file.tensors()) {
    const auto data = file.data(tensor);
    const auto& info = mneme::dtype_info(tensor.type);
    const size_t blocks = std::min<size_t>(data.size() / info.block_bytes, 4);
    std::vector<float> values(blocks * info.block_size);
    mneme::dequantize_row(tensor.type, data.data() + data.size() - blocks * info.block_bytes, values.data(),
                          values.size());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const auto file = mneme::GgufFile::parse(std::as_bytes(std::span(data, size)));
    read_tensors(*file);
    for (const auto& [key, value] : file->metadata().values()) {
      if (std::holds_alternative<std::string>(value)) file->metadata().get_string(key);
      if (std::holds_alternative<std::vector<uint64_t>>(value)) file->metadata().get_ints(key);
    }
  } catch (const mneme::Error&) {
  }
  return 0;
}
