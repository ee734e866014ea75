// The curves of a run as pictures: a self-contained SVG, and an HTML page that holds it beside a table of the
// run. Both are made from OUT/log.jsonl alone, so they can be made again at any time.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "core/file.h"

namespace mneme::train {

struct Curves {
  struct Point {
    double step = 0, value = 0;
  };
  std::vector<Point> loss, validation, lr, tokens_per_second, gradient_norm;
  struct Sample {
    double step = 0;
    std::string prompt, text;
  };
  std::vector<Sample> samples;
};

/// Lines that are not whole (a killed process) are left out.
Curves read_curves(std::string_view log_jsonl);

/// Three panels over the steps: loss (each step faint, smoothed, validation as dots), learning rate with the
/// norm of gradients, tokens a second. `title` is text, not markup.
std::string curves_svg(const Curves& curves, const std::string& title);
std::string curves_html(const Curves& curves, const std::string& title);

/// OUT/curves.svg and OUT/curves.html from OUT/log.jsonl.
void write_curves(const fs::path& out, const std::string& title);

}  // namespace mneme::train
