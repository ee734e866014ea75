#include "eval/canvas.h"

#include <png.h>

#include <algorithm>
#include <vector>

#include "core/fail.h"
#include "core/markup.h"

namespace mneme {
namespace {

constexpr int kMostPixels = 16384;

class SvgCanvas final : public Canvas {
 public:
  SvgCanvas(int width, int height)
      : text_(fmt::format(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" "
            "font-family=\"sans-serif\">\n<rect width=\"{0}\" height=\"{1}\" fill=\"#ffffff\"/>\n",
            width, height)) {}
  void box(int x, int y, int width, int height, Colour c) override {
    text_ +=
        fmt::format("<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"#{:02x}{:02x}{:02x}\"/>\n", x,
                    y, width, height, c.r, c.g, c.b);
  }
  void text(int x, int y, std::string_view text, Anchor anchor, int size, Colour c) override {
    const char* where = anchor == Anchor::start ? "start" : anchor == Anchor::middle ? "middle" : "end";
    text_ += fmt::format(
        "<text x=\"{}\" y=\"{}\" font-size=\"{}\" text-anchor=\"{}\" dominant-baseline=\"central\" "
        "fill=\"#{:02x}{:02x}{:02x}\">{}</text>\n",
        x, y, size == 1 ? 11 : 17, where, c.r, c.g, c.b, escape_markup(text));
  }
  std::string finish() override { return text_ + "</svg>\n"; }

 private:
  std::string text_;
};

class PngCanvas final : public Canvas {
 public:
  PngCanvas(int width, int height)
      : width_(width),
        height_(height),
        pixels_(3 * static_cast<size_t>(width) * static_cast<size_t>(height), 255) {}

  void box(int x, int y, int width, int height, Colour colour) override {
    for (int row = std::max(y, 0); row < std::min(y + height, height_); ++row)
      for (int column = std::max(x, 0); column < std::min(x + width, width_); ++column) {
        uint8_t* pixel = &pixels_[3 * (static_cast<size_t>(row) * static_cast<size_t>(width_) +
                                       static_cast<size_t>(column))];
        pixel[0] = colour.r;
        pixel[1] = colour.g;
        pixel[2] = colour.b;
      }
  }

  void text(int x, int y, std::string_view text, Anchor anchor, int size, Colour colour) override {
    const int length = static_cast<int>(std::min<size_t>(text.size(), kMostPixels)) * 6 * size - size;
    x -= anchor == Anchor::start ? 0 : anchor == Anchor::middle ? length / 2 : length;
    y -= 7 * size / 2;
    for (const char c : text) {
      for (int row = 0; row < 7; ++row)
        for (int column = 0; column < 5; ++column)
          if ((font_row(c, row) >> (4 - column) & 1) != 0)
            box(x + column * size, y + row * size, size, size, colour);
      x += 6 * size;
    }
  }

  std::string finish() override {
    png_image image{};
    image.version = PNG_IMAGE_VERSION;
    image.width = static_cast<png_uint_32>(width_);
    image.height = static_cast<png_uint_32>(height_);
    image.format = PNG_FORMAT_RGB;
    png_alloc_size_t size = 0;
    const auto write = [&](void* to) {
      require(png_image_write_to_memory(&image, to, &size, 0, pixels_.data(), 0, nullptr) != 0,
              ErrorCode::internal, "cannot make a PNG of {} x {}: {}", width_, height_, image.message);
    };
    write(nullptr);  // the first call says how large
    std::string out(size, '\0');
    write(out.data());
    out.resize(size);
    return out;
  }

 private:
  int width_, height_;
  std::vector<uint8_t> pixels_;  // [height, width, 3]
};

void check(int width, int height) {
  require(width > 0 && height > 0 && width <= kMostPixels && height <= kMostPixels, ErrorCode::limit,
          "a picture of {} x {} pixels is too large; the most is {} a side", width, height, kMostPixels);
}

}  // namespace

std::unique_ptr<Canvas> svg_canvas(int width, int height) {
  check(width, height);
  return std::make_unique<SvgCanvas>(width, height);
}

std::unique_ptr<Canvas> png_canvas(int width, int height) {
  check(width, height);
  return std::make_unique<PngCanvas>(width, height);
}

}  // namespace mneme
