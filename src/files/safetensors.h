// Safetensors: u64 header length | JSON header {"name": {"dtype", "shape", "data_offsets": [begin, end]}} |
// data. A Hugging Face checkpoint is one such file, or shards named by model.safetensors.index.json.
#pragma once
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "files/tensor_source.h"

namespace mneme {

/// Opens `folder`/model.safetensors, or the shards that model.safetensors.index.json names. Throws Error:
/// corrupt (header larger than the file or 100 MB, unknown dtype, shape x dtype != span, gaps, overlaps,
/// spans past the end, duplicate names), not_found (a missing shard), mismatch (the index and the shards
/// disagree).
std::unique_ptr<TensorSource> open_safetensors_folder(const fs::path& folder, LoadMode mode = LoadMode::mmap);
/// One file.
std::unique_ptr<TensorSource> open_safetensors(const fs::path& file, LoadMode mode = LoadMode::mmap);
/// A buffer that the caller keeps alive (tests, fuzzing).
std::unique_ptr<TensorSource> parse_safetensors(Bytes bytes);

struct SafetensorToWrite {
  TensorInfo info;
  std::function<void(AtomicFile&)> write;  // must write exactly info.bytes
};

/// Writes one safetensors file atomically, tensors of wide types first (in the order given within a type).
/// Other programs expect {"format": "pt"} in the metadata. Throws Error(io | unsupported | invalid_argument):
/// quantized types have no safetensors dtype.
void write_safetensors(const fs::path& path, const std::vector<SafetensorToWrite>& tensors,
                       const std::map<std::string, std::string>& metadata = {},
                       const std::function<void(uint64_t done, uint64_t total)>& progress = {});

}  // namespace mneme
