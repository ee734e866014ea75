// The chat without a model: turns, commands, conversation files, history, and what a session may keep.
#include "cli/chat_repl.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>

#include "cli/chat.h"
#include "cli/verb.h"
#include "core/fail.h"
#include "core/file.h"
#include "scratch.h"

namespace mneme::cli::chat_repl_test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Event = LineSource::Event;

class ScriptedLines : public LineSource {
 public:
  std::deque<std::pair<Event, std::string>> script;
  std::vector<std::string> remembered;

  Event read(const std::string&, std::string& line) override {
    if (script.empty()) return Event::end;
    const auto [event, text] = script.front();
    script.pop_front();
    line = text;
    return event;
  }
  void remember(const std::string& entry) override { remembered.push_back(entry); }
};

class ChatReplTest : public ::testing::Test {
 protected:
  int talk(std::initializer_list<const char*> lines) {
    for (const char* line : lines) lines_.script.emplace_back(Event::line, line);
    return run_chat_repl({.lines = lines_,
                          .conversation = conversation_,
                          .model = "tiny",
                          .answer =
                              [this](const std::string& text) {
                                asked_.push_back(text);
                                require(text != "too long", ErrorCode::limit, "the context is full");
                                conversation_.add("user", text);
                                conversation_.add("assistant", "<" + text + ">");
                              },
                          .stats = [] { return std::string("fast\n"); },
                          .say = [this](const std::string& text) { said_ += text; }});
  }

  ScratchFolder folder_;
  ScriptedLines lines_;
  Conversation conversation_;
  std::vector<std::string> asked_;
  std::string said_;
};

TEST_F(ChatReplTest, LinesAreTurnsAndTheEndLeaves) {
  EXPECT_EQ(talk({"hello", "", "  ", "again"}), kDone);
  EXPECT_THAT(asked_, ElementsAre("hello", "again"));
  EXPECT_THAT(lines_.remembered, ElementsAre("hello", "again"));
}

TEST_F(ChatReplTest, SeveralLinesMakeOneTurn) {
  talk({"one \\", "two\\", "three", "\"\"\"", "a", "", "b", "\"\"\"", "\"\"\"x", "y\"\"\"", "\"\"\"z\"\"\""});
  EXPECT_THAT(asked_, ElementsAre("one \ntwo\nthree", "a\n\nb", "x\ny", "z"));
}

TEST_F(ChatReplTest, QuitLeavesAtOnce) {
  EXPECT_EQ(talk({"/quit", "never"}), kDone);
  EXPECT_TRUE(asked_.empty());
}

TEST_F(ChatReplTest, InterruptTwiceLeavesButALineBetweenForgives) {
  lines_.script = {
      {Event::interrupted, ""}, {Event::line, "x"}, {Event::interrupted, ""}, {Event::interrupted, ""}};
  EXPECT_EQ(talk({"never"}), kInterrupted);
  EXPECT_THAT(asked_, ElementsAre("x"));
}

TEST_F(ChatReplTest, InterruptInTheMiddleOfATurnDropsIt) {
  lines_.script = {{Event::line, "half \\"}, {Event::interrupted, ""}, {Event::line, "whole"}};
  EXPECT_EQ(talk({}), kDone);
  EXPECT_THAT(asked_, ElementsAre("whole"));
}

TEST_F(ChatReplTest, AnErrorIsShownAndTheConversationGoesOn) {
  talk({"too long", "fine"});
  EXPECT_THAT(said_, HasSubstr("error: the context is full"));
  EXPECT_EQ(conversation_.messages().size(), 2U);
}

TEST_F(ChatReplTest, CommandsActOnTheConversation) {
  talk({"/system Be brief.", "a", "/stats", "/help", "/reset"});
  EXPECT_EQ(conversation_.messages().size(), 1U);
  EXPECT_EQ(conversation_.system(), "Be brief.");
  EXPECT_THAT(said_, HasSubstr("fast"));
  EXPECT_THAT(said_, HasSubstr("/save FILE"));
  talk({"/system", "/system off", "/system"});
  EXPECT_THAT(said_, HasSubstr("there is no system message"));
  EXPECT_TRUE(conversation_.empty());
}

TEST_F(ChatReplTest, UnknownCommandsAreNamedAndTwoSlashesAreText) {
  talk({"/sav x", "//comment"});
  EXPECT_THAT(said_, HasSubstr("no command /sav"));
  EXPECT_THAT(said_, HasSubstr("/save"));
  EXPECT_THAT(asked_, ElementsAre("/comment"));
}

TEST_F(ChatReplTest, SaveAndLoadKeepTheConversation) {
  const std::string file = (folder_ / "talk with spaces.json").string();
  talk({"/system S", "Xin chào 🌍 \"q\"", ("/save " + file).c_str()});
  const OrderedJson before = conversation_.messages();
  EXPECT_EQ(before.size(), 3U);
  talk({"/system off", "/reset", ("/load " + file).c_str()});
  EXPECT_EQ(conversation_.messages(), before);
  const Json saved = parse_json(read_text_file(file), "saved");
  EXPECT_EQ(saved["mneme_chat"], 1);
  EXPECT_EQ(saved["model"], "tiny");
}

TEST_F(ChatReplTest, BadFilesAreRefusedAndNothingIsLost) {
  talk({"x"});
  const OrderedJson before = conversation_.messages();
  const auto write = [&](const char* text) {
    AtomicFile file(folder_ / "bad.json");
    file.write(std::string_view(text));
    file.commit();
    return "/load " + (folder_ / "bad.json").string();
  };
  for (const auto& [text, message] : std::initializer_list<std::pair<const char*, const char*>>{
           {"", "not valid JSON"},
           {"{", "not valid JSON"},
           {"{}", "is no conversation"},
           {"{\"mneme_chat\": 2, \"messages\": []}", "is no conversation"},
           {"{\"mneme_chat\": 1, \"messages\": {}}", "are no list"},
           {"5", "are no list"},
           {"[5]", "message 1 is no object"},
           {"[{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"king\", \"content\": \"x\"}]",
            "message 2 has no \"role\""},
           {"[{\"role\": \"user\"}]", "message 1 has no \"content\""},
           {"[{\"role\": \"user\", \"content\": 5}]", "message 1 has no \"content\""},
           {"[{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"system\", \"content\": \"x\"}]",
            "only the first"}}) {
    said_.clear();
    talk({write(text).c_str()});
    EXPECT_THAT(said_, HasSubstr(message)) << text;
    EXPECT_EQ(conversation_.messages(), before) << text;
  }
  said_.clear();
  talk({"/load /nowhere/at/all.json", "/save /nowhere/at/all.json", "/load", "/save"});
  EXPECT_THAT(said_, HasSubstr("/nowhere/at/all.json"));
  EXPECT_THAT(said_, HasSubstr("/load needs"));
  EXPECT_EQ(conversation_.messages(), before);
}

TEST(History, EntriesOfSeveralLinesSurviveTheFile) {
  const std::vector<std::string> entries{"one", "two\nthree", "back\\slash", "\\n is no newline", "thế giới"};
  EXPECT_EQ(decode_history(encode_history(entries)), entries);
}

TEST(History, KeepsTheLastThousand) {
  std::vector<std::string> entries;
  entries.reserve(1500);
  for (int i = 0; i < 1500; ++i) entries.push_back(std::to_string(i));
  const auto kept = decode_history(encode_history(entries));
  ASSERT_EQ(kept.size(), kHistoryEntries);
  EXPECT_EQ(kept.front(), "500");
  EXPECT_EQ(kept.back(), "1499");
}

TEST(History, ADamagedFileIsReadAsFarAsItGoes) {
  EXPECT_EQ(decode_history("a\n\n\\"), (std::vector<std::string>{"a", "\\"}));
  EXPECT_EQ(decode_history(std::string("\0\\q", 3)), (std::vector<std::string>{std::string("\0q", 2)}));
}

TEST(ReusableTokens, CommonPrefixButNeverTheWholePrompt) {
  using Ids = std::vector<TokenId>;
  EXPECT_EQ(reusable_tokens(Ids{}, Ids{1, 2}), 0U);
  EXPECT_EQ(reusable_tokens(Ids{1, 2}, Ids{1, 2, 3}), 2U);
  EXPECT_EQ(reusable_tokens(Ids{1, 2, 3}, Ids{1, 2, 3}), 2U);
  EXPECT_EQ(reusable_tokens(Ids{1, 9, 3}, Ids{1, 2, 3, 4}), 1U);
  EXPECT_EQ(reusable_tokens(Ids{1, 2, 3, 4, 5}, Ids{1, 2, 3}), 2U);
  EXPECT_EQ(reusable_tokens(Ids{1}, Ids{}), 0U);
}

}  // namespace
}  // namespace mneme::cli::chat_repl_test
