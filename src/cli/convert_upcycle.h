// The recipes of `mneme convert` that need no training: upcycling to a mixture of experts.
#pragma once
#include <string>

#include "cli/options.h"
#include "convert/upcycle.h"

namespace mneme::cli {

/// Makes the folder `out` of the model `in` (a path, or the name of a stored model) and prints what came of
/// it. Throws UsageError, and what the conversion throws.
int run_upcycling(const std::string& in, const std::string& out, const UpcycleRecipe& recipe,
                  const CommonOptions& common);

}  // namespace mneme::cli
