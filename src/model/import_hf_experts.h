// Mixtures of experts in the config.json of Hugging Face folders. Each family has names of its own for the
// same numbers; what it does with the router's scores is in its code, not in its config.
#pragma once
#include <string_view>

#include "core/json_fields.h"
#include "mneme/model_config.h"

namespace mneme {

/// Makes layers of `model` mixtures where the family `type` (a model_type, "mixtral", say) says so; `model`
/// has its layers already, with dense feed-forwards. Families without experts are left alone. Throws Error of
/// the fields' code for values out of range.
void read_hf_experts(JsonFields& fields, std::string_view type, ModelConfig& model);

/// Granite's four multipliers. That of the residual branches has no field of its own: with x = r z it is a
/// smaller embedding, and norms, which forget the size of x but for their eps.
void read_granite_multipliers(JsonFields& fields, ModelConfig& model);
/// What both importers of Granite do with a residual multiplier.
void fold_residual_multiplier(double multiplier, ModelConfig& model);

}  // namespace mneme
