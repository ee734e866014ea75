// Text in markup: special characters become entities, control characters spaces, everything else stays.
#include "core/markup.h"

#include <gtest/gtest.h>

namespace mneme::markup_test {
namespace {

TEST(Markup, SpecialCharactersBecomeEntities) {
  EXPECT_EQ(escape_markup("a<b> & \"c\" 'd'"), "a&lt;b&gt; &amp; &quot;c&quot; 'd'");
  EXPECT_EQ(escape_markup("&amp;"), "&amp;amp;");
  EXPECT_EQ(escape_markup(""), "");
}

TEST(Markup, ControlCharactersBecomeSpacesButLineEndsStay) {
  EXPECT_EQ(escape_markup(std::string_view("a\0b\x1b\tc\nd", 8)), "a b  c\nd");
}

TEST(Markup, OtherBytesAreKept) {
  EXPECT_EQ(escape_markup("μνήμη \xF0\x9F\x90\x98"), "μνήμη \xF0\x9F\x90\x98");
}

}  // namespace
}  // namespace mneme::markup_test
