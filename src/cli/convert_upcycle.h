// The recipes of `mneme convert` that need no training: upcycling to a mixture of experts.
#pragma once
#include <string>

#include "cli/options.h"

namespace mneme::cli {

/// Does what the recipe says if it is an upcycling and returns true; otherwise returns false. Throws
/// UsageError, and what the conversion throws.
bool convert_by_upcycling(const std::string& in, const std::string& out, const std::string& recipe,
                          const CommonOptions& common);

}  // namespace mneme::cli
