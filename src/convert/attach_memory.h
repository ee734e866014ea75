// `mneme memory attach`: a model and a memory pack become one GGUF file that carries the modules and names
// the pack, which stays where it is. The weights of a GGUF file are copied as they are; those of a Hugging
// Face folder keep their number format.
#pragma once
#include <cstdint>
#include <functional>

#include "core/file.h"

namespace mneme {

struct AttachOptions {
  std::function<void(uint64_t done, uint64_t total)> progress;  // bytes of the output; may throw to stop
};

struct AttachResult {
  uint64_t bytes = 0;            // of the output
  std::vector<uint32_t> layers;  // that got a module
};

/// `out` appears whole or not at all. It names the pack relative to its own folder. Throws Error: mismatch
/// (the pack belongs to another model or tokenizer, or has no modules), invalid_argument (`out` is an input),
/// io, and what opening the two throws.
AttachResult attach_memory(const fs::path& model, const fs::path& pack, const fs::path& out,
                           const AttachOptions& options = {});

}  // namespace mneme
