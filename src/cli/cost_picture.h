// A sweep of `mneme cost` as a picture: stacked bars of multiply-adds, bytes and predicted time by part.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "cli/cost_report.h"

namespace mneme::cli {

/// Throws Error(invalid_argument) for more points than a picture has room for.
void check_bars(size_t points);

/// Writes FILE.svg or FILE.png. Throws Error: invalid_argument (another ending, too many points), io.
void draw_cost(const std::vector<CostPoint>& points, const std::string& title,
               const std::filesystem::path& file);

}  // namespace mneme::cli
