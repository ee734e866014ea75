// Heat maps: the colours of the cells, read back from the SVG text and from the PNG's pixels by libpng.
#include "eval/heat_map.h"

#include <gtest/gtest.h>
#include <png.h>

#include <cmath>
#include <set>

#include "core/fail.h"
#include "core/file.h"
#include "eval/canvas.h"
#include "scratch.h"

namespace mneme::heat_map_test {
namespace {

HeatMap example() {
  return {"needle <1> & more",
          "a model",
          "length",
          "depth",
          {"1k", "2k", "4k"},
          {"0%", "100%"},
          {{0, 0.25, 1}, {0.5, std::nan(""), 0.75}}};
}

size_t count(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

std::string hex(Colour c) {
  char text[8];
  std::snprintf(text, sizeof text, "#%02x%02x%02x", c.r, c.g, c.b);
  return text;
}

TEST(HeatMap, SvgHasABoxForEachCell) {
  const std::string svg = heat_map_svg(example());
  EXPECT_TRUE(svg.starts_with("<svg ")) << svg.substr(0, 80);
  EXPECT_TRUE(svg.ends_with("</svg>\n"));
  EXPECT_EQ(count(svg, "width=\"71\" height=\"29\""), 6u);
  for (const double score : {0.0, 0.25, 0.5, 0.75, 1.0})
    EXPECT_EQ(count(svg, "width=\"71\" height=\"29\" fill=\"" + hex(score_colour(score)) + "\""), 1u)
        << score;
  EXPECT_NE(svg.find("needle &lt;1&gt; &amp; more"), std::string::npos);
  EXPECT_NE(svg.find(">25</text>"), std::string::npos);
  EXPECT_NE(svg.find(">-</text>"), std::string::npos);
}

TEST(HeatMap, PngHasTheSameCells) {
  const std::string png = heat_map_png(example());
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  ASSERT_NE(png_image_begin_read_from_memory(&image, png.data(), png.size()), 0) << image.message;
  image.format = PNG_FORMAT_RGB;
  std::vector<uint8_t> pixels(PNG_IMAGE_SIZE(image));
  ASSERT_NE(png_image_finish_read(&image, nullptr, pixels.data(), 0, nullptr), 0) << image.message;
  // Where the SVG has a cell, its corner has its colour.
  const std::string svg = heat_map_svg(example());
  size_t cells = 0;
  for (size_t at = svg.find("<rect x="); at != std::string::npos; at = svg.find("<rect x=", at + 1)) {
    int x = 0, y = 0, width = 0, height = 0;
    unsigned r = 0, g = 0, b = 0;
    if (std::sscanf(svg.c_str() + at,
                    "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"#%2x%2x%2x\"", &x, &y, &width,
                    &height, &r, &g, &b) != 7)
      continue;
    const size_t pixel = 3 * (static_cast<size_t>(y + 1) * image.width + static_cast<size_t>(x + 1));
    EXPECT_EQ((Colour{pixels[pixel], pixels[pixel + 1], pixels[pixel + 2]}),
              (Colour{static_cast<uint8_t>(r), static_cast<uint8_t>(g), static_cast<uint8_t>(b)}));
    cells += width == 71 ? 1 : 0;
  }
  EXPECT_EQ(cells, 6u);
  EXPECT_NE(svg.find("width=\"" + std::to_string(image.width) + "\" height=\"" +
                     std::to_string(image.height) + "\""),
            std::string::npos);
}

TEST(HeatMap, BrightnessRisesWithTheScore) {
  double before = -1;
  for (int i = 0; i <= 100; ++i) {
    const Colour c = score_colour(i / 100.0);
    const double brightness = 0.299 * c.r + 0.587 * c.g + 0.114 * c.b;
    EXPECT_GT(brightness, before) << i;
    before = brightness;
  }
}

TEST(HeatMap, LettersDiffer) {
  std::set<std::string> shapes;
  const std::string all = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:-%()";
  for (const char c : all) {
    std::string shape;
    for (int row = 0; row < 7; ++row) {
      EXPECT_LT(font_row(c, row), 32);
      shape += static_cast<char>(font_row(c, row));
    }
    shapes.insert(shape);
  }
  EXPECT_EQ(shapes.size(), all.size());
  EXPECT_EQ(font_row('a', 0), font_row('A', 0));
}

TEST(HeatMap, NamesChooseTheFormat) {
  EXPECT_EQ(picture_format("a/b.svg"), PictureFormat::svg);
  EXPECT_EQ(picture_format("b.png"), PictureFormat::png);
  EXPECT_THROW(picture_format("b.jpg"), Error);
  const ScratchFolder folder;
  save_heat_map(example(), folder / "map.png");
  EXPECT_EQ(read_text_file(folder / "map.png"), heat_map_png(example()));
  EXPECT_THROW(save_heat_map(example(), "/nowhere/at all/x.svg"), Error);
}

}  // namespace
}  // namespace mneme::heat_map_test
