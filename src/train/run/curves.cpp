#include "train/run/curves.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/fail.h"
#include "core/json.h"
#include "core/markup.h"

namespace mneme::train {
namespace {

using Point = Curves::Point;

constexpr double kWidth = 880, kLeft = 64, kRight = 16;
constexpr size_t kMostPoints = 1200;  // of a line: more than the picture has columns
constexpr const char *kInk = "#33415c", *kFaint = "#b8c4d6", *kMain = "#1f6feb", *kDots = "#d1495b";

/// At most kMostPoints: the mean of equal runs of points.
std::vector<Point> thinned(const std::vector<Point>& points) {
  if (points.size() <= kMostPoints) return points;
  std::vector<Point> out;
  const size_t run = (points.size() + kMostPoints - 1) / kMostPoints;
  for (size_t i = 0; i < points.size(); i += run) {
    Point mean;
    const size_t n = std::min(run, points.size() - i);
    for (size_t k = i; k < i + n; ++k) {
      mean.step += points[k].step / static_cast<double>(n);
      mean.value += points[k].value / static_cast<double>(n);
    }
    out.push_back(mean);
  }
  return out;
}

/// Exponential mean over about a fiftieth of the run, corrected for its start.
std::vector<Point> smoothed(const std::vector<Point>& points) {
  const double keep = 1 - 1 / std::max(2.0, static_cast<double>(points.size()) / 50);
  double mean = 0, weight = 0;
  std::vector<Point> out;
  for (const Point& point : points) {
    mean = keep * mean + (1 - keep) * point.value;
    weight = keep * weight + (1 - keep);
    out.push_back({point.step, mean / weight});
  }
  return out;
}

/// 1, 2 or 5 times a power of ten, about a `parts`-th of the span.
double tick_size(double span, int parts) {
  const double raw = std::max(span, 1e-12) / parts, power = std::pow(10, std::floor(std::log10(raw)));
  const double digit = raw / power;
  return power * (digit < 1.5 ? 1 : digit < 3.5 ? 2 : digit < 7.5 ? 5 : 10);
}

/// One panel: where steps and values lie in the picture.
class Panel {
 public:
  Panel(double top, double height, double steps, std::string title)
      : top_(top), height_(height), steps_(std::max(steps, 1.0)), title_(std::move(title)) {}

  void include(const std::vector<Point>& points, double share = 1.0) {
    std::vector<double> values;
    for (const Point& p : points)
      if (std::isfinite(p.value)) values.push_back(p.value);
    if (values.empty()) return;
    std::sort(values.begin(), values.end());
    low_ = std::min(low_, values.front());
    // The first steps of a run lie far above all others and would flatten the rest.
    high_ = std::max(high_, values[static_cast<size_t>(share * static_cast<double>(values.size() - 1))]);
  }

  std::string frame() const {
    std::string out = fmt::format(
        "<text x=\"{}\" y=\"{:.1f}\" font-size=\"13\" font-weight=\"600\" fill=\"{}\">{}</text>\n", kLeft,
        top_ - 8, kInk, escape_markup(title_));
    const auto [low, high] = range();
    const double step = tick_size(high - low, 5);
    for (double tick = std::ceil(low / step) * step; tick <= high + step * 1e-9; tick += step)
      out += fmt::format(
          "<line x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#e6ebf2\"/><text x=\"{}\" "
          "y=\"{:.1f}\" font-size=\"11\" text-anchor=\"end\" fill=\"{}\">{:.6g}</text>\n",
          kLeft, kWidth - kRight, y(tick), y(tick), kLeft - 6, y(tick) + 4, kInk,
          std::abs(tick) < step * 1e-6 ? 0.0 : tick);
    const double across = std::max(1.0, tick_size(steps_, 8));
    for (double tick = 0; tick <= steps_; tick += across)
      out += fmt::format(
          "<text x=\"{:.1f}\" y=\"{:.1f}\" font-size=\"11\" text-anchor=\"middle\" "
          "fill=\"{}\">{:.6g}</text>\n",
          x(tick), top_ + height_ + 16, kInk, tick);
    return out;
  }

  std::string line(const std::vector<Point>& points, const char* colour, double width) const {
    std::string path;
    for (const Point& p : thinned(points))
      if (std::isfinite(p.value))
        path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", x(p.step), y(p.value));
    if (path.empty()) return {};
    return fmt::format(
        "<path d=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\" stroke-linejoin=\"round\"/>\n", path,
        colour, width);
  }

  std::string dots(const std::vector<Point>& points, const char* colour) const {
    std::string out;
    for (const Point& p : thinned(points))
      if (std::isfinite(p.value))
        out += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\" fill=\"{}\"/>\n", x(p.step),
                           y(p.value), colour);
    return out;
  }

 private:
  double top_, height_, steps_;
  std::string title_;
  double low_ = std::numeric_limits<double>::infinity(), high_ = -std::numeric_limits<double>::infinity();

  std::pair<double, double> range() const {
    if (!(low_ <= high_)) return {0, 1};
    const double margin = std::max((high_ - low_) * 0.05, std::abs(high_) * 1e-3 + 1e-12);
    return {low_ - margin, high_ + margin};
  }
  double x(double step) const { return kLeft + (kWidth - kLeft - kRight) * step / steps_; }
  double y(double value) const {
    const auto [low, high] = range();
    return top_ + height_ * (1 - (std::clamp(value, low, high) - low) / (high - low));
  }
};

std::string number_text(const std::vector<Point>& points, const char* format) {
  return points.empty() ? std::string("-") : fmt::format(fmt::runtime(format), points.back().value);
}

}  // namespace

Curves read_curves(std::string_view log) {
  Curves out;
  while (!log.empty()) {
    const size_t end = log.find('\n');
    if (end == std::string_view::npos) break;
    const Json line = Json::parse(log.substr(0, end), nullptr, false);
    log.remove_prefix(end + 1);
    if (!line.is_object() || !line.contains("step") || !line["step"].is_number()) continue;
    const double step = line["step"].get<double>();
    const auto add = [&](const char* name, std::vector<Point>& points) {
      if (const auto found = line.find(name); found != line.end() && found->is_number())
        points.push_back({step, found->get<double>()});
    };
    add("loss", out.loss);
    add("validation_loss", out.validation);
    add("lr", out.lr);
    add("tokens_per_second", out.tokens_per_second);
    add("gradient_norm", out.gradient_norm);
    if (line.contains("sample") && line["sample"].is_string())
      out.samples.push_back({step, line.value("prompt", std::string()), line["sample"].get<std::string>()});
  }
  return out;
}

std::string curves_svg(const Curves& curves, const std::string& title) {
  double steps = 1;
  for (const auto* points : {&curves.loss, &curves.validation})
    if (!points->empty()) steps = std::max(steps, points->back().step);
  Panel loss(56, 300, steps, "loss, nats per token (dots: validation)");
  loss.include(curves.loss, curves.loss.size() > 50 ? 0.98 : 1.0);
  loss.include(curves.validation);
  Panel norm(420, 110, steps, "norm of the gradients"), rate(594, 110, steps, "tokens per second");
  norm.include(curves.gradient_norm, 0.98);
  rate.include(curves.tokens_per_second);
  rate.include({{0, 0}});
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} 740\" font-family=\"system-ui, "
      "sans-serif\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{}\" y=\"26\" "
      "font-size=\"16\" font-weight=\"700\" fill=\"{}\">{}</text>\n",
      kWidth, kLeft, kInk, escape_markup(title));
  out += loss.frame() + loss.line(curves.loss, kFaint, 1) + loss.line(smoothed(curves.loss), kMain, 2) +
         loss.dots(curves.validation, kDots);
  out += norm.frame() + norm.line(curves.gradient_norm, kFaint, 1) +
         norm.line(smoothed(curves.gradient_norm), kInk, 1.5);
  out += rate.frame() + rate.line(curves.tokens_per_second, kMain, 1.2);
  return out + "</svg>\n";
}

std::string curves_html(const Curves& curves, const std::string& title) {
  std::string out = fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{}</title>\n<style>body{{font-"
      "family:system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:{}}}svg{{width:100%;"
      "height:auto}}td,th{{padding:.2rem 1rem .2rem 0;text-align:left;vertical-align:top}}pre{{white-space:"
      "pre-wrap;background:#f5f7fa;padding:.6rem;border-radius:.4rem}}</style></head><body>\n",
      escape_markup(title), kInk);
  out += curves_svg(curves, title);
  out += "<table>";
  const auto row = [&](const char* name, const std::string& value) {
    out += fmt::format("<tr><th>{}</th><td>{}</td></tr>", name, value);
  };
  row("steps", curves.loss.empty() ? "-" : fmt::format("{:.0f}", curves.loss.back().step));
  row("loss", number_text(curves.loss, "{:.4f}"));
  row("validation loss", number_text(curves.validation, "{:.4f}"));
  row("learning rate", number_text(curves.lr, "{:.3g}"));
  row("tokens per second", number_text(curves.tokens_per_second, "{:.0f}"));
  out += "</table>\n";
  const size_t first = curves.samples.size() > 12 ? curves.samples.size() - 12 : 0;
  for (size_t i = curves.samples.size(); i-- > first;) {
    const auto& sample = curves.samples[i];
    out += fmt::format("<h3>Step {:.0f}</h3><pre><b>{}</b>{}</pre>\n", sample.step,
                       escape_markup(sample.prompt), escape_markup(sample.text));
  }
  return out + "</body></html>\n";
}

void write_curves(const fs::path& out, const std::string& title) {
  const MappedFile log(out / "log.jsonl", LoadMode::read);
  const Curves curves = read_curves({reinterpret_cast<const char*>(log.bytes().data()), log.bytes().size()});
  for (const auto& [name, text] : {std::pair{"curves.svg", curves_svg(curves, title)},
                                   std::pair{"curves.html", curves_html(curves, title)}}) {
    AtomicFile file(out / name);
    file.write(text);
    file.commit();
  }
}

}  // namespace mneme::train
