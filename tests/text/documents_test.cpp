// Texts as documents: what is one, in which order, and what is refused by name.
#include "text/documents.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "mneme/error.h"
#include "scratch.h"
#include "text/utf8.h"

namespace mneme::documents_test {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class Documents : public ::testing::Test {
 protected:
  std::string write(const std::string& name, std::string_view text) const {
    return folder_.write(name, text).string();
  }
  static std::vector<std::string> all(const std::string& path, const DocumentOptions& options = {}) {
    std::vector<std::string> out;
    std::string document;
    for (const TextFile& file : list_text_files({path})) {
      DocumentReader reader(file, options);
      while (reader.next(document)) out.push_back(document);
      EXPECT_TRUE(reader.skipped() || reader.position() == file.bytes);
    }
    return out;
  }
  static std::string error_of(const std::string& path, ErrorCode code, const DocumentOptions& options = {}) {
    try {
      all(path, options);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      return error.what();
    }
    ADD_FAILURE() << "nothing was thrown";
    return {};
  }
  ScratchFolder folder_;
};

TEST_F(Documents, OfFilesFoldersAndJsonLines) {
  EXPECT_THAT(all(write("a.txt", "\xef\xbb\xbfone\ntwo\n")), ElementsAre("one\ntwo\n"));
  EXPECT_THAT(all(write("b.jsonl",
                        "{\"text\": \"a\\nb\", \"id\": 1}\n\n{\"text\": \"  \"}\r\n{\"text\": \"\\u00e9\"}")),
              ElementsAre("a\nb", "é"));
  EXPECT_THAT(all(write("c.ndjson", "{\"body\": \"x\"}\n"), {.field = "body"}), ElementsAre("x"));
  write("tree/z.txt", "z");
  write("tree/b/y.txt", "y");
  write("tree/b/empty.txt", "");
  write("tree/.hidden/x.txt", "x");
  write("tree/.w", "w");
  write("tree/a.jsonl", "{\"text\": \"first\"}");
  EXPECT_THAT(all((folder_ / "tree").string()), ElementsAre("first", "y", "z"));
}

TEST_F(Documents, LongTextIsCutAtBlankLinesAndLosesNothing) {
  std::string text;
  for (int i = 0; i < 3000; ++i) text += "paragraph " + std::to_string(i * i) + (i % 5 == 4 ? "\n\n" : "\n");
  const auto pieces = all(write("long.txt", text), {.piece_bytes = 1000});
  std::string joined;
  for (size_t i = 0; i < pieces.size(); ++i) {
    EXPECT_LE(pieces[i].size(), 1000u);
    if (i + 1 < pieces.size()) {
      EXPECT_GE(pieces[i].size(), 500u);
      EXPECT_TRUE(pieces[i].ends_with("\n\n"));
    }
    joined += pieces[i];
  }
  EXPECT_EQ(joined, text);
}

TEST_F(Documents, CutsLieBetweenCharacters) {
  std::string text;
  for (int i = 0; i < 500; ++i) text += "日本語é";
  std::string joined;
  for (const std::string& piece : all(write("no_spaces.txt", text), {.piece_bytes = 64})) {
    EXPECT_TRUE(is_valid_utf8(piece));
    EXPECT_EQ(piece.find("\xef\xbf\xbd"), std::string::npos);
    joined += piece;
  }
  EXPECT_EQ(joined, text);
}

TEST_F(Documents, ReadingGoesOnFromAnyPosition) {
  std::string lines;
  for (int i = 0; i < 100; ++i) lines += "{\"text\": \"number " + std::to_string(i) + "\"}\n";
  for (const std::string& path : {write("a.jsonl", lines), write("a.txt", lines)}) {
    const DocumentOptions options{.piece_bytes = 200};
    const TextFile file = list_text_files({path}).front();
    const auto whole = all(path, options);
    DocumentReader reader(file, options);
    std::string document;
    for (size_t i = 0; reader.next(document); ++i) {
      DocumentReader later(file, options, reader.position());
      if (i + 1 < whole.size()) {
        ASSERT_TRUE(later.next(document));
        EXPECT_EQ(document, whole[i + 1]);
      } else {
        EXPECT_FALSE(later.next(document));
      }
    }
  }
}

TEST_F(Documents, BinaryIsRefusedByNameOrLeftOut) {
  const std::string path = write("tree/picture.png", std::string_view("\x89PNG\r\n\0\0\0x", 10));
  write("tree/text.txt", "text");
  EXPECT_THAT(error_of(path, ErrorCode::unsupported), HasSubstr("picture.png is not text: byte 6 is zero"));
  EXPECT_THAT(error_of((folder_ / "tree").string(), ErrorCode::unsupported), HasSubstr("picture.png"));
  EXPECT_THAT(all((folder_ / "tree").string(), {.skip_binary = true}), ElementsAre("text"));
}

TEST_F(Documents, FewBrokenBytesAreReplacedAndCountedManyRefused) {
  const std::string text(5000, 'a');
  const TextFile file = list_text_files({write("a.txt", text + "\xff\xc3 end")}).front();
  DocumentReader reader(file, {});
  std::string document;
  ASSERT_TRUE(reader.next(document));
  EXPECT_EQ(document, text + "\xef\xbf\xbd\xef\xbf\xbd end");
  EXPECT_EQ(reader.invalid_bytes(), 2u);
  std::string latin1;
  for (int i = 0; i < 200; ++i) latin1 += "caf\xe9 ";
  EXPECT_THAT(error_of(write("latin1.txt", latin1), ErrorCode::unsupported),
              HasSubstr("latin1.txt is not UTF-8"));
  EXPECT_THAT(error_of(write("latin1.jsonl", "{\"text\": \"" + latin1 + "\"}"), ErrorCode::unsupported),
              HasSubstr("latin1.jsonl is not UTF-8"));
}

TEST_F(Documents, BadLinesAreNamed) {
  const std::string good = "{\"text\": \"a\"}\n";
  EXPECT_THAT(error_of(write("a.jsonl", good + "{\"text\": "), ErrorCode::corrupt),
              HasSubstr("a.jsonl, line 2"));
  EXPECT_THAT(error_of(write("b.jsonl", good + good + "{\"body\": \"x\", \"id\": 3}"), ErrorCode::corrupt),
              HasSubstr("line 3: there is no member \"text\"; there is \"body\", \"id\""));
  EXPECT_THAT(error_of(write("c.jsonl", "{\"text\": 5}"), ErrorCode::corrupt), HasSubstr("is no string"));
  EXPECT_THAT(error_of(write("d.jsonl", "[1]"), ErrorCode::corrupt), HasSubstr("a JSON object"));
}

TEST_F(Documents, MissingAndEmptyInputsAreNamed) {
  EXPECT_THAT(error_of((folder_ / "nowhere.txt").string(), ErrorCode::not_found), HasSubstr("nowhere.txt"));
  EXPECT_THAT(error_of(write("empty.txt", ""), ErrorCode::invalid_argument), HasSubstr("empty.txt is empty"));
  fs::create_directories(folder_ / "bare");
  EXPECT_THAT(error_of((folder_ / "bare").string(), ErrorCode::invalid_argument), HasSubstr("bare"));
  EXPECT_THROW(list_text_files({}), Error);
  const TextFile file = list_text_files({write("cut.txt", std::string(3000, 'a'))}).front();
  fs::resize_file(file.path, 1000);
  DocumentReader reader(file, {});
  std::string document;
  EXPECT_THROW(reader.next(document), Error);
}

}  // namespace
}  // namespace mneme::documents_test
