// The angles of rotary position embedding. Pair i of a head at position p turns by p * inverse_frequency[i],
// and the rotated values are multiplied by the attention factor.
#pragma once
#include <cstdint>
#include <vector>

#include "mneme/model_config.h"

namespace mneme {

/// [dims / 2] radians per position, the fastest pair first. `rope` must be valid for `head_dim` (see
/// ModelConfig::validate). Sources: RoFormer (arXiv 2104.09864) §3.2.2; position interpolation (2306.15595);
/// YaRN (2309.00071) §3; the llama3 blend as in Meta's Llama 3.1 release.
std::vector<float> rope_inverse_frequencies(const RopeConfig& rope, uint32_t head_dim);

/// What cos and sin are multiplied by: 1, except for YaRN (2309.00071 §3.4: 0.1 ln(factor) + 1 unless given).
double rope_attention_factor(const RopeConfig& rope);

}  // namespace mneme
