// Torch checkpoints from any bytes: read or refused with mneme::Error; then every tensor's last byte is read.
// The pickle alone is tried too, since a mutated archive rarely keeps the pickle's checksum.
#include "files/torch_checkpoint.h"
#include "files/torch_pickle.h"
#include "mneme/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  try {
    const auto source = mneme::parse_torch_checkpoint(bytes);
    volatile unsigned sum = 0;
    for (const auto& tensor : source->tensors())
      sum = sum + static_cast<unsigned>(source->data(tensor).back());
  } catch (const mneme::Error&) {
  }
  try {
    for (const auto& tensor : mneme::read_torch_pickle(bytes, "pickle"))
      if (tensor.offset + tensor.extent > tensor.storage_bytes || tensor.info.bytes > tensor.extent)
        __builtin_trap();
  } catch (const mneme::Error&) {
  }
  return 0;
}
