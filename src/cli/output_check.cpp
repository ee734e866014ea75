#include "cli/output_check.h"

#include <fmt/format.h>

#include "cli/verb.h"
#include "core/fail.h"
#include "core/file.h"
#include "eval/heat_map.h"

namespace mneme::cli {

void check_output_file(const std::string& path) {
  if (path.empty()) return;
  std::error_code error;
  const fs::path folder = fs::path(path).parent_path();
  require(folder.empty() || fs::is_directory(folder, error), ErrorCode::not_found, "there is no folder {}",
          folder.string());
  require(!fs::is_directory(path, error), ErrorCode::io, "cannot write {}: it is a folder", path);
}

void check_picture_file(std::string_view option, const std::string& path) {
  if (path.empty()) return;
  try {
    picture_format(path);
  } catch (const Error& error) {
    throw UsageError(fmt::format("{} {}", option, error.what()));
  }
  check_output_file(path);
}

}  // namespace mneme::cli
