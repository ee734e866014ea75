// From the config.json of a Hugging Face folder to a ModelConfig. Model types: llama (also SmolLM2 and others
// that call themselves so), mistral, qwen2, qwen3, gemma2, gemma3_text, and the text part of gemma3. A config
// with the object "mneme_config" is described by that alone (schema of docs/config.md).
//
// Defaults of missing fields are those of the `transformers` library, whose semantics this follows: a
// sliding_window of w shows a query w keys, itself included; both the older rope_theta + rope_scaling and the
// newer rope_parameters (one, or one for each layer type) are understood.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "files/tensor_source.h"
#include "mneme/model_config.h"

namespace mneme {

/// Field of config.json under which Mneme stores a ModelConfig.
inline constexpr const char* kHfConfigField = "mneme_config";

/// Values of model_type that config_from_hf() maps.
const std::vector<std::string>& hf_model_types();

/// `tensors` (may be null) only settles whether the head is tied where config.json does not say. Throws
/// Error: unsupported (model type, quantization method, a scaling this version cannot run), corrupt (not
/// JSON, a field is missing or has an impossible value). The result is valid, but its tensors are not
/// checked: see match_tensors().
ModelConfig config_from_hf(std::string_view config_json, const TensorSource* tensors = nullptr);

}  // namespace mneme
