#include "eval/heat_map.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/fail.h"
#include "core/file.h"
#include "eval/canvas.h"

namespace mneme {
namespace {

constexpr int kCellWidth = 72, kCellHeight = 30, kTop = 76, kBottom = 92, kRight = 24, kLegendSteps = 64;
constexpr Colour kInk{34, 34, 34}, kPaper{255, 255, 255}, kNothing{224, 224, 224};

Colour ink_on(Colour c) noexcept {
  return 0.299 * c.r + 0.587 * c.g + 0.114 * c.b > 140 ? kInk : kPaper;
}

struct Layout {
  explicit Layout(const HeatMap& map)
      : columns(static_cast<int>(std::min<size_t>(map.columns.size(), 1000))),
        rows(static_cast<int>(std::min<size_t>(map.rows.size(), 1000))) {
    size_t longest = map.row_name.size();
    for (const std::string& row : map.rows) longest = std::max(longest, row.size());
    left = 24 + 7 * static_cast<int>(std::min<size_t>(longest, 100));
    const size_t words = std::min<size_t>(std::max(map.title.size() * 2, map.subtitle.size()), 400);
    width = std::max({left + columns * kCellWidth + kRight, 360, 48 + 6 * static_cast<int>(words)});
    height = kTop + rows * kCellHeight + kBottom;
  }
  int columns, rows, left = 0, width = 0, height = 0;
};

void draw_legend(Canvas& canvas, const Layout& at) {
  const int y = at.height - 40, width = 3 * kLegendSteps;
  for (int i = 0; i < kLegendSteps; ++i)
    canvas.box(at.left + 3 * i, y, 3, 12, score_colour(static_cast<double>(i) / (kLegendSteps - 1)));
  canvas.text(at.left, y + 22, "0 %", Canvas::Anchor::start, 1, kInk);
  canvas.text(at.left + width, y + 22, "100 %", Canvas::Anchor::end, 1, kInk);
}

void draw(const HeatMap& map, const Layout& at, Canvas& canvas) {
  using Anchor = Canvas::Anchor;
  canvas.text(24, 24, map.title, Anchor::start, 2, kInk);
  canvas.text(24, 46, map.subtitle, Anchor::start, 1, kInk);
  canvas.text(at.left - 8, kTop - 12, map.row_name, Anchor::end, 1, kInk);
  for (int row = 0; row < at.rows; ++row) {
    const int y = kTop + row * kCellHeight;
    canvas.text(at.left - 8, y + kCellHeight / 2, map.rows[static_cast<size_t>(row)], Anchor::end, 1, kInk);
    for (int column = 0; column < at.columns; ++column) {
      const double score = map.scores.at(static_cast<size_t>(row)).at(static_cast<size_t>(column));
      const Colour colour = score_colour(score);
      const int x = at.left + column * kCellWidth;
      canvas.box(x, y, kCellWidth - 1, kCellHeight - 1, colour);
      canvas.text(x + kCellWidth / 2, y + kCellHeight / 2,
                  std::isnan(score) ? "-" : fmt::format("{:.0f}", 100 * score), Anchor::middle, 1,
                  ink_on(colour));
    }
  }
  const int below = kTop + at.rows * kCellHeight;
  for (int column = 0; column < at.columns; ++column)
    canvas.text(at.left + column * kCellWidth + kCellWidth / 2, below + 12,
                map.columns[static_cast<size_t>(column)], Anchor::middle, 1, kInk);
  canvas.text(at.left + at.columns * kCellWidth / 2, below + 30, map.column_name, Anchor::middle, 1, kInk);
  draw_legend(canvas, at);
}

std::string drawn(const HeatMap& map, PictureFormat format) {
  require(!map.columns.empty() && !map.rows.empty(), ErrorCode::invalid_argument, "a heat map needs a cell");
  const Layout at(map);
  const auto canvas =
      format == PictureFormat::svg ? svg_canvas(at.width, at.height) : png_canvas(at.width, at.height);
  draw(map, at, *canvas);
  return canvas->finish();
}

}  // namespace

Colour score_colour(double score) noexcept {
  if (std::isnan(score)) return kNothing;
  // Five points of a scale whose brightness rises evenly.
  constexpr std::array<std::array<double, 3>, 5> kScale = {
      {{68, 10, 84}, {62, 78, 138}, {38, 140, 141}, {92, 198, 100}, {250, 228, 40}}};
  const double at = std::clamp(score, 0.0, 1.0) * (kScale.size() - 1);
  const size_t low = std::min<size_t>(static_cast<size_t>(at), kScale.size() - 2);
  const double part = at - static_cast<double>(low);
  const auto channel = [&](size_t c) {
    return static_cast<uint8_t>(std::lround(kScale[low][c] + part * (kScale[low + 1][c] - kScale[low][c])));
  };
  return {channel(0), channel(1), channel(2)};
}

std::string heat_map_svg(const HeatMap& map) {
  return drawn(map, PictureFormat::svg);
}

std::string heat_map_png(const HeatMap& map) {
  return drawn(map, PictureFormat::png);
}

PictureFormat picture_format(const std::filesystem::path& file) {
  const std::string end = file.extension().string();
  require(end == ".svg" || end == ".png", ErrorCode::invalid_argument,
          "{}: the name of a picture ends in .svg or .png", file.string());
  return end == ".svg" ? PictureFormat::svg : PictureFormat::png;
}

void save_heat_map(const HeatMap& map, const std::filesystem::path& file) {
  const std::string content = drawn(map, picture_format(file));
  AtomicFile out(file);
  out.write(content);
  out.commit();
}

}  // namespace mneme
