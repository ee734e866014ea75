// Torch checkpoints (`pytorch_model.bin`, or shards named by pytorch_model.bin.index.json) as a TensorSource.
// The format is a zip archive around a pickle (torch_archive.h, torch_pickle.h); the reader builds tensors
// only and executes nothing, so an untrusted file can do no more than be refused. Tensors are used in place,
// as in a safetensors file, but for views whose values do not lie in order: of those a copy is made.
#pragma once
#include <memory>

#include "files/tensor_source.h"

namespace mneme {

/// Whether `folder` holds a torch checkpoint under the names that model hubs use.
bool has_torch_checkpoint(const fs::path& folder);

/// Opens `folder`/pytorch_model.bin, or the shards that pytorch_model.bin.index.json names. Throws Error:
/// corrupt, unsupported (anything but tensors; formats other than torch >= 1.6's), limit,
/// not_found (a missing shard), mismatch (the index and the shards disagree), io.
std::unique_ptr<TensorSource> open_torch_folder(const fs::path& folder, LoadMode mode = LoadMode::mmap);
/// One file.
std::unique_ptr<TensorSource> open_torch_checkpoint(const fs::path& file, LoadMode mode = LoadMode::mmap);
/// A buffer that the caller keeps alive (tests, fuzzing).
std::unique_ptr<TensorSource> parse_torch_checkpoint(Bytes bytes);

}  // namespace mneme
