#include "cli/cost_picture.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "core/fail.h"
#include "core/file.h"
#include "eval/canvas.h"

namespace mneme::cli {
namespace {

using Anchor = Canvas::Anchor;
constexpr Colour kInk{34, 34, 34}, kGrid{205, 205, 205};
constexpr std::array<Colour, kCostParts> kPartColours{Colour{31, 92, 153}, Colour{204, 82, 32},
                                                      Colour{84, 130, 53}, Colour{140, 140, 140}};
constexpr size_t kMostBars = 64;
constexpr int kMargin = 24, kHead = 78, kPanel = 150, kGap = 76, kBarWidth = 56;

struct Panel {
  const char* title;
  double (*of)(const CostPoint&, CostPart);
  double (*mark)(const CostPoint&);  // a line across the bar: what was measured; 0 = none
};
constexpr Panel kPanels[] = {
    {"million multiply-adds a token",
     [](const CostPoint& p, CostPart part) { return p.decode[part].macs / 1e6; }, nullptr},
    {"megabytes from memory a token",
     [](const CostPoint& p, CostPart part) { return p.decode[part].bytes / 1e6; }, nullptr},
    {"milliseconds a token, predicted (line: measured)",
     [](const CostPoint& p, CostPart part) {
       return p.predicted ? p.predicted->parts[static_cast<size_t>(part)] * 1e3 : 0.0;
     },
     [](const CostPoint& p) { return p.measured ? p.measured->reached() * 1e3 : 0.0; }},
};

double height_of(const Panel& panel, const CostPoint& point) {
  double sum = 0;
  for (const CostPart part : kAllCostParts) sum += panel.of(point, part);
  return sum;
}

std::string label_of(const CostPoint& point) {
  std::string text;
  for (const auto& [key, value] : point.swept) text += fmt::format("{}{}", text.empty() ? "" : ", ", value);
  return text.empty() ? std::to_string(point.context) : text;
}

void draw_panel(const Panel& panel, const std::vector<CostPoint>& points, int top, Canvas& canvas) {
  double tallest = 0;
  for (const CostPoint& point : points)
    tallest = std::max({tallest, height_of(panel, point), panel.mark != nullptr ? panel.mark(point) : 0.0});
  canvas.text(kMargin, top, panel.title, Anchor::start, 1, kInk);
  const int bottom = top + 26 + kPanel, width = static_cast<int>(points.size()) * kBarWidth;
  canvas.box(kMargin, bottom, width, 1, kGrid);
  for (size_t i = 0; i < points.size(); ++i) {
    const int x = kMargin + static_cast<int>(i) * kBarWidth;
    double below = 0;
    const auto y_of = [&](double value) {
      return bottom - (tallest > 0 ? static_cast<int>(std::lround(value / tallest * kPanel)) : 0);
    };
    for (const CostPart part : kAllCostParts) {
      const double value = panel.of(points[i], part);
      const int y = y_of(below + value), height = y_of(below) - y;
      if (height > 0) canvas.box(x + 4, y, kBarWidth - 8, height, kPartColours[static_cast<size_t>(part)]);
      below += value;
    }
    canvas.text(x + kBarWidth / 2, y_of(below) - 8, fmt::format("{:.3g}", below), Anchor::middle, 1, kInk);
    if (panel.mark != nullptr && panel.mark(points[i]) > 0)
      canvas.box(x + 1, y_of(panel.mark(points[i])), kBarWidth - 2, 2, kInk);
    canvas.text(x + kBarWidth / 2, bottom + 12, label_of(points[i]), Anchor::middle, 1, kInk);
  }
}

}  // namespace

void check_bars(size_t points) {
  require(points <= kMostBars, ErrorCode::invalid_argument,
          "a picture has room for {} points, the sweep has {}", kMostBars, points);
}

void draw_cost(const std::vector<CostPoint>& points, const std::string& title,
               const std::filesystem::path& file) {
  const PictureFormat format = picture_format(file);
  check_bars(points.size());
  const int width = std::max(2 * kMargin + static_cast<int>(points.size()) * kBarWidth, 640);
  const int height = kHead + static_cast<int>(std::size(kPanels)) * (26 + kPanel + kGap);
  const auto canvas = format == PictureFormat::svg ? svg_canvas(width, height) : png_canvas(width, height);
  canvas->text(kMargin, 22, title, Anchor::start, 2, kInk);
  int x = kMargin;
  for (const CostPart part : kAllCostParts) {
    canvas->box(x, 42, 10, 10, kPartColours[static_cast<size_t>(part)]);
    canvas->text(x + 16, 47, to_string(part), Anchor::start, 1, kInk);
    x += 130;
  }
  std::string keys;
  for (const auto& [key, value] : points.front().swept) keys += (keys.empty() ? "" : ", ") + key;
  canvas->text(x, 47, "bars: " + (keys.empty() ? std::string("context") : keys), Anchor::start, 1, kInk);
  for (size_t i = 0; i < std::size(kPanels); ++i)
    draw_panel(kPanels[i], points, kHead + static_cast<int>(i) * (26 + kPanel + kGap), *canvas);
  AtomicFile out(file);
  out.write(canvas->finish());
  out.commit();
}

}  // namespace mneme::cli
