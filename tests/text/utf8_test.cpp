#include "text/utf8.h"

#include <gtest/gtest.h>

#include "mneme/tokenizer.h"

namespace mneme::utf8_test {
namespace {

// Expected values: Python 3.11, bytes.decode("utf-8", "replace").
TEST(Utf8, RepairsInvalidSequencesAsPythonDoes) {
  const std::string r = "\uFFFD";
  EXPECT_EQ(repair_utf8("ok \xE2\x82\xAC"), "ok \u20AC");
  EXPECT_EQ(repair_utf8("\x80"), r);
  EXPECT_EQ(repair_utf8("\xC0\x80"), r + r);
  EXPECT_EQ(repair_utf8("\xE1\x80 x"), r + " x");
  EXPECT_EQ(repair_utf8("\xED\xA0\x80"), r + r + r);
  EXPECT_EQ(repair_utf8("\xF0\x9F\x98"), r);
  EXPECT_EQ(repair_utf8("\xF0\x8F\x98\x80"), r + r + r + r);
  EXPECT_EQ(repair_utf8("\xF5\x80\x80\x80"), r + r + r + r);
  EXPECT_EQ(repair_utf8("\xF0\x9F\xF0\x9F\x98\x80"), r + "\U0001F600");
  EXPECT_EQ(repair_utf8("abcdefgh\xFFijklmnop"), "abcdefgh" + r + "ijklmnop");
}

TEST(Utf8, DecodesEveryCodePointThatItEncodes) {
  for (char32_t code = 0; code <= 0x10FFFF; ++code) {
    if (code >= 0xD800 && code < 0xE000) continue;
    std::string text;
    append_utf8(text, code);
    const Utf8Char c = decode_utf8(text);
    ASSERT_TRUE(c.valid && c.code == code && c.length == text.size()) << std::hex << uint32_t{code};
  }
}

TEST(Utf8Stream, NeverCutsACharacterWhereverTheBytesAreCut) {
  const std::string text = "aé€😀ệ \xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x92\xBB.";
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    for (size_t second = cut; second <= text.size(); ++second) {
      Utf8Stream stream;
      const std::string a = stream.push(std::string_view(text).substr(0, cut));
      const std::string b = stream.push(std::string_view(text).substr(cut, second - cut));
      const std::string c = stream.push(std::string_view(text).substr(second));
      ASSERT_TRUE(is_valid_utf8(a) && is_valid_utf8(b) && is_valid_utf8(c));
      ASSERT_EQ(a + b + c + stream.finish(), text);
    }
  }
}

TEST(Utf8Stream, ReplacesWhatCannotBeCompleted) {
  Utf8Stream stream;
  EXPECT_EQ(stream.push("\xF0\x9F"), "");
  EXPECT_EQ(stream.push("A"),
            "\uFFFD"
            "A");
  EXPECT_EQ(stream.push("\xE2\x82"), "");
  EXPECT_EQ(stream.finish(), "\uFFFD");
  EXPECT_EQ(stream.finish(), "");
}

}  // namespace
}  // namespace mneme::utf8_test
