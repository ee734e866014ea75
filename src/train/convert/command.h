// `mneme-train convert IN OUT --recipe FILE`: what `mneme convert` runs.
#pragma once
#include <functional>

namespace mneme::train {

/// argv[0] is "convert". Prints progress on stderr and the summary (--json: as an object) on stdout; returns
/// mneme's exit codes. Throws Error.
int run_convert_command(int argc, char** argv, const std::function<bool()>& interrupted);

}  // namespace mneme::train
