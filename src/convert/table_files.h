// Where a model's memory tables lie, as seen from another folder: a config names their files relative to its
// own. A model that is to be handed on takes its tables along instead (copy_tables).
#pragma once
#include "model/checkpoint.h"

namespace mneme {

/// `in`'s config with the file of each table named relative to `folder`, where the config will be written.
ModelConfig config_seen_from(const Checkpoint& in, const fs::path& folder);

/// Copies the file of each of `in`'s tables into `folder` (which exists) under its own name, replacing what
/// is there, and returns `in`'s config with the copies named. Each copy appears whole or not at all. Throws
/// Error: invalid_argument (a table in several files; two tables whose files have one name), not_found, io.
ModelConfig copy_tables(const Checkpoint& in, const fs::path& folder);

}  // namespace mneme
