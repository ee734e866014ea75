// A checkpoint as a Hugging Face folder: config.json, model.safetensors, generation_config.json and, if the
// checkpoint has a tokenizer, tokenizer.json and tokenizer_config.json.
#pragma once
#include "convert/quantize.h"
#include "model/checkpoint.h"

namespace mneme {

/// Writes beside `out` and renames at the end. `out` may be an empty folder or not exist; a folder with
/// content is refused with Error(invalid_argument). Returns the bytes written.
uint64_t export_hf(const Checkpoint& in, const fs::path& out, DType type, const QuantizeOptions& options);

/// Throws Error(invalid_argument) unless `out` is an empty folder or does not exist: what export_hf()
/// refuses, for those who work for hours before they call it.
void check_new_folder(const fs::path& out);

/// The config's activations become those of the options, if there are any.
void put_activation(const QuantizeOptions& options, ModelConfig& config);

/// Throws Error(io) if the file system of `out` has less than `bytes` free, before anything is written.
void check_space(const fs::path& out, uint64_t bytes);

}  // namespace mneme
