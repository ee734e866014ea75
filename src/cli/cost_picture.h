// A sweep of `mneme cost` as a picture: stacked bars of multiply-adds, bytes and predicted time by part.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "cli/cost_report.h"

namespace mneme::cli {

/// Most bars that a picture has room for.
inline constexpr size_t kMostBars = 64;

/// Writes FILE.svg or FILE.png. Throws Error: invalid_argument (another ending, more than kMostBars points),
/// io.
void draw_cost(const std::vector<CostPoint>& points, const std::string& title,
               const std::filesystem::path& file);

}  // namespace mneme::cli
