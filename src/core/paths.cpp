#include "core/paths.h"

#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>

#include "core/fail.h"

namespace mneme {
namespace fs = std::filesystem;
namespace {

fs::path environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? fs::path() : fs::path(value);
}

fs::path home() {
  if (fs::path folder = environment("HOME"); folder.is_absolute()) return folder;
  passwd entry{};
  passwd* found = nullptr;
  std::array<char, 4096> buffer{};
  if (::getpwuid_r(::getuid(), &entry, buffer.data(), buffer.size(), &found) == 0 && found != nullptr &&
      found->pw_dir != nullptr && *found->pw_dir == '/')
    return found->pw_dir;
  fail(ErrorCode::not_found, "no home folder: set MNEME_HOME to the folder that shall hold Mneme's files");
}

fs::path folder(const char* below_home, const char* xdg, const char* fallback) {
  if (const fs::path own = environment("MNEME_HOME"); !own.empty())
    return fs::absolute(own / below_home).lexically_normal();
  if (const fs::path base = environment(xdg); base.is_absolute()) return base / "mneme";
  return home() / fallback / "mneme";
}

}  // namespace

fs::path data_folder() {
  fs::path path = folder("", "XDG_DATA_HOME", ".local/share");
  return path.has_filename() ? path : path.parent_path();
}

fs::path models_folder() {
  return data_folder() / "models";
}

fs::path cache_folder() {
  return folder("cache", "XDG_CACHE_HOME", ".cache");
}

fs::path state_folder() {
  return folder("state", "XDG_STATE_HOME", ".local/state");
}

fs::path ensure_folder(fs::path path) {
  fs::path built;
  for (const auto& part : path) {
    built /= part;
    if (::mkdir(built.c_str(), 0700) == 0 || errno == EEXIST || errno == EROFS) continue;
    // Existing parents may refuse mkdir for other reasons (EACCES, EISDIR); what counts is that they are
    // folders.
    const int error = errno;
    std::error_code ignored;
    require(fs::is_directory(built, ignored), ErrorCode::io, "cannot create folder {}: {}", built.string(),
            std::strerror(error));
  }
  std::error_code ignored;
  require(fs::is_directory(path, ignored), ErrorCode::io, "cannot use {} as a folder: it is something else",
          path.string());
  return path;
}

}  // namespace mneme
