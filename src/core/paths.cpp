#include "core/paths.h"

#include <cstdlib>
#include <string>

#include "core/fail.h"

namespace mneme {
namespace {

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::filesystem::path user_folder(const char* xdg_variable, const char* below_home) {
  // The XDG specification: a relative path is to be ignored.
  if (std::filesystem::path xdg = environment(xdg_variable); xdg.is_absolute()) return xdg / "mneme";
  const std::string home = environment("HOME");
  require(!home.empty(), ErrorCode::not_found,
          "no folder for Mneme's files: set MNEME_HOME to one (HOME and {} are not set)", xdg_variable);
  return std::filesystem::path(home) / below_home / "mneme";
}

}  // namespace

std::filesystem::path data_folder() {
  if (const std::string home = environment("MNEME_HOME"); !home.empty()) return home;
  return user_folder("XDG_DATA_HOME", ".local/share");
}

std::filesystem::path models_folder() {
  return data_folder() / "models";
}

std::filesystem::path cache_folder() {
  if (const std::string home = environment("MNEME_HOME"); !home.empty())
    return std::filesystem::path(home) / "cache";
  return user_folder("XDG_CACHE_HOME", ".cache");
}

}  // namespace mneme
