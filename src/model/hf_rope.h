// The RoPE fields of a Hugging Face config.json, in their older and newer forms.
//
//   older: "rope_theta": 5e5, "rope_scaling": null | {"rope_type" or "type": "llama3", "factor": 8, ...},
//          "rope_local_base_freq": 1e4 for window layers (Gemma 3)
//   newer: "rope_parameters": {"rope_theta": 5e5, "rope_type": "llama3", "factor": 8, ...}, or one such
//   object
//          for each of "full_attention" and "sliding_attention"
#pragma once
#include "core/json_fields.h"
#include "mneme/model_config.h"

namespace mneme {

struct HfRope {
  RopeConfig full, sliding;  // of layers without and with a window
};

/// `base` and `local_base` hold where the config does not say; local_base 0: window layers are as the others.
/// Throws Error(corrupt | unsupported).
HfRope read_hf_rope(JsonFields& fields, uint32_t context, double base, double local_base);

}  // namespace mneme
