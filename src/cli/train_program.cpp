#include "cli/train_program.h"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "core/fail.h"
#include "core/file.h"

namespace mneme::cli {
namespace {

fs::path find_program() {
  const char* const named = std::getenv("MNEME_TRAIN_PROGRAM");
  if (named != nullptr && *named != '\0') {
    require(::access(named, X_OK) == 0, ErrorCode::not_found,
            "MNEME_TRAIN_PROGRAM names {}, which cannot be run: {}", named, std::strerror(errno));
    return named;
  }
  std::error_code error;
  const fs::path self = fs::read_symlink("/proc/self/exe", error);
  const fs::path beside = self.parent_path() / "mneme-train";
  require(
      !error && ::access(beside.c_str(), X_OK) == 0, ErrorCode::not_found,
      "{} is not there: the trainer needs libtorch; install libtorch-dev, libopenblas-dev and libgloo-dev "
      "(Debian) and build it by ./run.sh --build-train",
      beside.string());
  return beside;
}

}  // namespace

void become_train_program(const std::vector<std::string>& words) {
  const fs::path program = find_program();
  std::string name = "mneme-train";
  std::vector<char*> pointers{name.data()};
  for (const std::string& word : words) pointers.push_back(const_cast<char*>(word.c_str()));
  pointers.push_back(nullptr);
  ::execv(program.c_str(), pointers.data());
  fail(ErrorCode::io, "cannot run {}: {}", program.string(), std::strerror(errno));
}

}  // namespace mneme::cli
