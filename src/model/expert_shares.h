// Whether a model's experts can be divided among the processes of a group, and which are whose.
#pragma once
#include <string>

#include "mneme/model_config.h"
#include "model/expert_group.h"

namespace mneme {

/// The share of one process, or all experts without a group.
ExpertRange own_experts(const ExpertGroup* group, const FfnConfig& ffn);

/// Throws Error(mismatch) for a model without experts, or with a layer of fewer experts than processes. Tells
/// the group which share of a layer's experts a token may choose (k/M).
void check_shares(const ModelConfig& config, const std::string& path, ExpertGroup& group);

}  // namespace mneme
