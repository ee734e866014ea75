// A ModelConfig as config.json of a Hugging Face folder.
#pragma once
#include "core/json.h"
#include "mneme/model_config.h"

namespace mneme {

struct HfDescription {
  nlohmann::ordered_json json;
  ModelConfig config;     // as the folder's tensors must be: RoPE in halves, norm offset of the model type
  bool standard = false;  // the fields alone describe the model; else the config stands under "mneme_config"
};

/// The model type is chosen by structure and kept only if reading its fields back gives the same model.
/// `dtype` is what torch calls the weights' type ("float32").
HfDescription describe_hf(const ModelConfig& config, const std::string& dtype);

}  // namespace mneme
