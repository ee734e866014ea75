// A table whose rows stay in the safetensors shards of a released checkpoint. A small JSON file, the
// description, says what a pack says about itself: docs/memory.md has an example.
//
//   {"rows":    {"from": "DeepSeek-V4.1-Flash", "weight": "model.layers.{layer}.engram.weight",
//                "scale": "model.layers.{layer}.engram.scale"},
//    "table":   {...},                      // docs/config.md; compressed_vocab must be there
//    "modules": [{...}],                    // none: the rows serve a table that the model's config names
//    "tensors": "modules.safetensors"}      // of the modules, as blk.N.engram_...
#pragma once
#include <memory>
#include <string>

#include "files/tensor_source.h"
#include "memory/pack.h"

namespace mneme {

struct RowsInPlace {
  fs::path path;  // of the description
  PackDescription description;
  RowLayout rows;  // its fingerprint covers the description and the directory of tensors, not their values
  std::shared_ptr<const TensorSource> tensors;  // of the modules; null without modules
  uint64_t row_count = 0;
};

/// True for a folder, in which the description is `engram.json`, and for a name that ends in ".json".
bool names_rows_in_place(const fs::path& path);

/// Paths in the description are relative to its folder. Throws Error: not_found (a file or tensor), corrupt
/// (no JSON, damaged shards), invalid_argument (fields), mismatch (shapes that do not fit), unsupported (rows
/// that would have to be converted: build a pack from those).
RowsInPlace open_rows_in_place(const fs::path& path);

}  // namespace mneme
