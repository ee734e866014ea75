// The trainer, mneme-train: a program of its own, because libtorch alone takes half a second to load.
#pragma once
#include <string>
#include <vector>

namespace mneme::cli {

/// This process becomes the trainer (exec), so that terminal, signals and exit code are its own; `words` are
/// its arguments. MNEME_TRAIN_PROGRAM names the program, or it stands beside this one. Throws
/// Error(not_found) if it is not there, Error(io) if the system cannot run it; otherwise it does not return.
[[noreturn]] void become_train_program(const std::vector<std::string>& words);

}  // namespace mneme::cli
