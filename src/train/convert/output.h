// What a conversion leaves: a Hugging Face folder that the engine runs and `mneme quantize` turns into GGUF.
#pragma once
#include "core/json.h"
#include "model/checkpoint.h"
#include "train/convert/converted_model.h"

namespace mneme::train {

/// config.json, model.safetensors, the packs of memory tables, the original's tokenizer and conversion.json,
/// written beside `out` and renamed to it at the end. Throws Error(io).
void write_output(const ConvertedModel& model, const Checkpoint& original, const Json& summary,
                  const fs::path& out);

}  // namespace mneme::train
