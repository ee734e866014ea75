// Whether two descriptions mean the same model.
#pragma once
#include "mneme/model_config.h"

namespace mneme {

/// True if both describe the same function of the same weights: names of the model apart, numbers equal to
/// six digits (GGUF holds f32), RoPE scalings compared by the frequencies that come out.
bool same_model(const ModelConfig& a, const ModelConfig& b);

/// Whether the mixers are of types that published architectures have: full and windowed attention.
bool has_standard_mixers(const ModelConfig& config);

}  // namespace mneme
