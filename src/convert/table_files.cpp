#include "convert/table_files.h"

namespace mneme {

ModelConfig config_seen_from(const Checkpoint& in, const fs::path& folder) {
  ModelConfig config = in.config();
  std::error_code error;
  const fs::path here = fs::is_directory(in.path(), error) ? in.path() : in.path().parent_path();
  const fs::path there = fs::absolute(folder).lexically_normal();
  for (auto& [name, table] : config.tables)
    if (!table.file.empty() && fs::path(table.file).is_relative())
      table.file = fs::proximate(fs::absolute(here / table.file).lexically_normal(), there).generic_string();
  return config;
}

}  // namespace mneme
