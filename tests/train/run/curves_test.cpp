// Curves are made from the log alone: half a last line is left out, text is escaped, a long run is thinned.
#include "train/run/curves.h"

#include <gmock/gmock.h>

namespace mneme::train::curves_test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(Curves, ReadWholeLinesOnly) {
  const Curves curves = read_curves(
      "{\"step\": 1, \"loss\": 5.5, \"lr\": 0.1}\nnonsense\n{\"step\": 1, \"validation_loss\": 5.25}\n"
      "{\"step\": 1, \"prompt\": \"a\", \"sample\": \"<b>\"}\n{\"step\": 2, \"loss\": 4.5}");
  ASSERT_EQ(curves.loss.size(), 1u);
  EXPECT_EQ(curves.loss[0].value, 5.5);
  EXPECT_EQ(curves.validation.at(0).value, 5.25);
  EXPECT_EQ(curves.samples.at(0).text, "<b>");
}

TEST(Curves, PicturesAreEscapedAndOfBoundedSize) {
  std::string log;
  for (int step = 1; step <= 50000; ++step)
    log += "{\"step\": " + std::to_string(step) + ", \"loss\": " + std::to_string(5.0 - step * 1e-5) + "}\n";
  log += "{\"step\": 50000, \"prompt\": \"a & b\", \"sample\": \"<b>\"}\n";
  const std::string svg = curves_svg(read_curves(log), "a <title>");
  EXPECT_THAT(svg, HasSubstr("a &lt;title&gt;"));
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  EXPECT_LT(svg.size(), 100'000u);
  const std::string html = curves_html(read_curves(log), "t");
  EXPECT_THAT(html, HasSubstr("a &amp; b"));
  EXPECT_THAT(html, Not(HasSubstr("<b><b>")));
}

TEST(Curves, AnEmptyLogIsAnEmptyPicture) {
  EXPECT_THAT(curves_svg(read_curves(""), "t"), HasSubstr("</svg>"));
}

}  // namespace
}  // namespace mneme::train::curves_test
