// A ModelConfig as GGUF metadata: the keys of a standard architecture, so that other programs can run the
// file, and always the config itself under "mneme.config".
#pragma once
#include <string>
#include <vector>

#include "files/gguf.h"
#include "mneme/model_config.h"

namespace mneme {

struct GgufDescription {
  GgufMetadata metadata;
  ModelConfig config;  // as the file's tensors must be: RoPE style and norm offset of the architecture
  std::vector<float> rope_freqs;  // of the tensor rope_freqs.weight; empty: no such tensor
  bool standard = false;          // the keys alone describe the model; else general.architecture is "mneme"
};

/// The architecture is chosen by structure and kept only if reading its keys back gives the same model.
GgufDescription describe_gguf(const ModelConfig& config);

}  // namespace mneme
