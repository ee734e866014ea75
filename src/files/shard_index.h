// A checkpoint in shards, as model hubs publish them: NAME.index.json says which file holds each tensor.
//   {"metadata": {...}, "weight_map": {"tensor name": "file name", ...}}
// Safetensors and torch checkpoints share this file's format and rules.
#pragma once
#include <map>
#include <string>

#include "files/tensor_store.h"

namespace mneme {

/// Tensor name -> name of a file in the same folder.
using ShardIndex = std::map<std::string, std::string>;

/// Throws Error(corrupt) unless every entry is a plain file name inside the folder; not_found, io.
ShardIndex read_shard_index(const fs::path& path);

/// A store with every shard of the index as a part, and no tensors yet. Throws Error(not_found) that names a
/// missing shard; io.
TensorStore open_shards(const fs::path& index_path, const ShardIndex& index, LoadMode mode);

/// Throws Error(mismatch) unless the shards hold exactly the tensors that the index lists.
void check_shards(const fs::path& index_path, const ShardIndex& index, const TensorStore& store);

}  // namespace mneme
