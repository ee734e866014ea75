// From the metadata of a GGUF file to a ModelConfig. Architectures: llama (Llama 1-3, SmolLM, Mistral),
// qwen2, qwen3, gemma2, gemma3 (text). A file whose metadata has "mneme.config" is described by that JSON
// alone.
#pragma once
#include <string>
#include <vector>

#include "files/gguf.h"
#include "mneme/model_config.h"

namespace mneme {

/// Metadata key under which Mneme stores a ModelConfig as JSON.
inline constexpr const char* kConfigKey = "mneme.config";

/// Architectures that config_from_gguf() maps.
const std::vector<std::string>& gguf_architectures();

/// Throws Error: unsupported (architecture, experts, a scaling or shape that this version cannot run),
/// corrupt (a key is missing, has a wrong type or an impossible value). The result is valid, but its tensors
/// are not checked: see match_tensors().
ModelConfig config_from_gguf(const GgufMetadata& metadata, const TensorSource& tensors);

}  // namespace mneme
