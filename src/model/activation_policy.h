// The `activation` of a layer: its JSON and its ranges. Schema in words: docs/config.md.
#pragma once
#include <string>

#include "core/json_fields.h"
#include "mneme/model_config.h"
#include "simd/spike.h"

namespace mneme {

/// The neuron of an activation that spikes, in the kernels' precision.
inline NeuronSetting neuron_of(const ActivationConfig& activation) {
  return {static_cast<float>(activation.k), static_cast<float>(activation.dead_zone)};
}

/// A word or an object with "type". Throws what the fields throw.
ActivationConfig read_activation(JsonFields& fields, const char* name);
/// The shorter of the two.
nlohmann::ordered_json activation_json(const ActivationConfig& activation);
/// A word, an object with "type", or an object by projection. Throws what the fields throw.
ActivationPolicy read_activation_policy(JsonFields& fields, const char* name);
/// The shortest of the three that says the same.
nlohmann::ordered_json activation_json(const ActivationPolicy& policy);
/// Throws Error(invalid_argument) that names the first field which is out of range, below `where`.
void validate(const ActivationPolicy& policy, const std::string& where);
void validate(const ActivationConfig& activation, const std::string& where);

}  // namespace mneme
