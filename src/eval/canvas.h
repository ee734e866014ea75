// Two things to draw on, for pictures of boxes and words: an SVG text, and pixels that libpng writes.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "eval/heat_map.h"

namespace mneme {

/// Coordinates in pixels from the upper left corner.
class Canvas {
 public:
  enum class Anchor { start, middle, end };
  virtual ~Canvas() = default;
  virtual void box(int x, int y, int width, int height, Colour colour) = 0;
  /// `y` is the middle of the letters; `size` 1 or 2.
  virtual void text(int x, int y, std::string_view text, Anchor anchor, int size, Colour colour) = 0;
  /// The file's content.
  virtual std::string finish() = 0;
};

/// Throws Error(limit) for a side above 16,384.
std::unique_ptr<Canvas> svg_canvas(int width, int height);
std::unique_ptr<Canvas> png_canvas(int width, int height);

/// Bits of one of the seven rows of a character of the 5x7 font, the leftmost in bit 4; letters have one
/// case, and what the font lacks is a box.
uint8_t font_row(char character, int row) noexcept;

}  // namespace mneme
