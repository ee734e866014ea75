// Where a model's memory tables lie, as seen from another folder: a config names their files relative to its
// own.
#pragma once
#include "model/checkpoint.h"

namespace mneme {

/// `in`'s config with the file of each table named relative to `folder`, where the config will be written.
ModelConfig config_seen_from(const Checkpoint& in, const fs::path& folder);

}  // namespace mneme
