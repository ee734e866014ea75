// A heat map of scores from 0 to 1 by column and row, as SVG or PNG: the picture of a recall evaluation
// (length x depth).
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace mneme {

struct HeatMap {
  std::string title, subtitle;
  std::string column_name, row_name;        // of the axes
  std::vector<std::string> columns, rows;   // labels, left to right and top to bottom
  std::vector<std::vector<double>> scores;  // [row][column], 0 to 1; NaN: nothing was measured
};

struct Colour {
  uint8_t r = 0, g = 0, b = 0;
  bool operator==(const Colour&) const = default;
};
/// Of a score: from dark violet (0) over green-blue to yellow (1), even in brightness and so readable in grey
/// and with colour-blind eyes. NaN: light grey.
Colour score_colour(double score) noexcept;

/// The file's content.
std::string heat_map_svg(const HeatMap& map);
/// The same picture. Text has the letters of a small built-in font: A-Z in capitals, digits and ASCII marks.
/// Throws Error(limit) for more than 16,384 pixels a side, Error(internal) if libpng fails.
std::string heat_map_png(const HeatMap& map);

/// Which of both a file name asks for. Throws Error(invalid_argument) unless it ends in .svg or .png.
enum class PictureFormat { svg, png };
PictureFormat picture_format(const std::filesystem::path& file);
/// Writes the picture atomically. Throws also Error(io).
void save_heat_map(const HeatMap& map, const std::filesystem::path& file);

}  // namespace mneme
