#include "core/paths.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <map>
#include <optional>
#include <string>

#include "mneme/error.h"
#include "scratch.h"

namespace mneme::paths_test {
namespace {

namespace fs = std::filesystem;

// Sets the environment variables that matter (the rest of the list unset) and restores them afterwards.
class Environment {
 public:
  explicit Environment(const std::map<std::string, std::string>& values) {
    for (const char* name : {"MNEME_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "HOME"}) {
      const char* old = std::getenv(name);
      saved_[name] = old == nullptr ? std::nullopt : std::optional<std::string>(old);
      const auto found = values.find(name);
      if (found == values.end())
        ::unsetenv(name);
      else
        ::setenv(name, found->second.c_str(), 1);
    }
  }
  ~Environment() {
    for (const auto& [name, value] : saved_) {
      if (value)
        ::setenv(name.c_str(), value->c_str(), 1);
      else
        ::unsetenv(name.c_str());
    }
  }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

 private:
  std::map<std::string, std::optional<std::string>> saved_;
};

TEST(Paths, HomeIsTheFallback) {
  const Environment environment(std::map<std::string, std::string>{{"HOME", "/home/ada"}});
  EXPECT_EQ(data_folder(), "/home/ada/.local/share/mneme");
  EXPECT_EQ(cache_folder(), "/home/ada/.cache/mneme");
  EXPECT_EQ(state_folder(), "/home/ada/.local/state/mneme");
}

TEST(Paths, XdgVariablesMoveEachFolderAndRelativeOnesAreIgnored) {
  const Environment environment({{"HOME", "/home/ada"},
                                 {"XDG_DATA_HOME", "/data"},
                                 {"XDG_CACHE_HOME", "relative"},
                                 {"XDG_STATE_HOME", ""}});
  EXPECT_EQ(data_folder(), "/data/mneme");
  EXPECT_EQ(cache_folder(), "/home/ada/.cache/mneme");
  EXPECT_EQ(state_folder(), "/home/ada/.local/state/mneme");
}

TEST(Paths, MnemeHomeWinsOverEverything) {
  const Environment environment(
      {{"HOME", "/home/ada"}, {"XDG_DATA_HOME", "/data"}, {"MNEME_HOME", "/disk/m/"}});
  EXPECT_EQ(data_folder(), "/disk/m");
  EXPECT_EQ(cache_folder(), "/disk/m/cache");
  EXPECT_EQ(state_folder(), "/disk/m/state");
}

TEST(Paths, RelativeMnemeHomeCountsFromTheWorkingFolder) {
  const Environment environment(std::map<std::string, std::string>{{"MNEME_HOME", "./models/"}});
  EXPECT_EQ(data_folder(), fs::current_path() / "models");
  EXPECT_EQ(models_folder(), fs::current_path() / "models" / "models");
}

TEST(Paths, EnsureFolderCreatesParentsPrivatelyAndRefusesFiles) {
  const ScratchFolder base;
  const auto deep = base / "a" / "b";
  EXPECT_EQ(ensure_folder(deep), deep);
  EXPECT_EQ(ensure_folder(deep), deep);
  struct stat info {};
  ASSERT_EQ(::stat(deep.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777u, 0700u);
  const auto file = base.write("file", "x");
  EXPECT_THROW(ensure_folder(file), Error);
  EXPECT_THROW(ensure_folder(file / "below"), Error);
}

}  // namespace
}  // namespace mneme::paths_test
