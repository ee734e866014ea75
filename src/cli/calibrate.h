// `mneme convert` with a recipe that calibrates spikes: what it does itself, without the trainer.
#pragma once
#include <string>

#include "cli/options.h"
#include "convert/calibration_recipe.h"

namespace mneme::cli {

/// Calibrates the model `in`, writes it to `out` and prints what came of it; returns the exit code. Nothing
/// is written before everything is measured, and `out` appears whole or not at all.
int run_calibration(const std::string& in, const std::string& out, const CalibrationRecipe& recipe,
                    const CommonOptions& common);

}  // namespace mneme::cli
