// A place for the files that a test makes. ctest runs every test in a process of its own and many of them at
// once, and two builds may run side by side: a fixed name below /tmp is then shared by strangers, and one
// made of the test's name still by the two builds. mkdtemp chooses a name that nobody has and makes the
// folder in the same step, so that nothing has to be cleared away first, and nothing stays when the test is
// over.
#pragma once
#include <gtest/gtest.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

namespace mneme {

/// An empty folder that goes with the object, whatever is in it by then. In a fixture it stands before the
/// members that hold its files open: members go in the reverse order.
class ScratchFolder {
 public:
  ScratchFolder() {
    std::string name = ::testing::TempDir() + "mneme-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) throw std::system_error(errno, std::generic_category(), name);
    path_ = name;
  }
  ~ScratchFolder() {
    std::error_code ignored;  // a folder that stays is no reason to end the other tests of the process
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::filesystem::path& name) const { return path_ / name; }

  /// Writes a file, with the folders on its way; its path.
  std::filesystem::path write(const std::filesystem::path& name, std::string_view bytes) const {
    const std::filesystem::path file = path_ / name;
    std::filesystem::create_directories(file.parent_path());
    EXPECT_TRUE((std::ofstream(file, std::ios::binary) << bytes).flush().good()) << file;
    return file;
  }

 private:
  std::filesystem::path path_;
};

/// A folder that is MNEME_HOME meanwhile, so that a test finds no caches of others and leaves none.
class ScratchHome : public ScratchFolder {
 public:
  ScratchHome() {
    if (const char* old = std::getenv("MNEME_HOME")) old_ = old;
    ::setenv("MNEME_HOME", path().c_str(), 1);
  }
  ~ScratchHome() { old_ ? ::setenv("MNEME_HOME", old_->c_str(), 1) : ::unsetenv("MNEME_HOME"); }

 private:
  std::optional<std::string> old_;
};

}  // namespace mneme
