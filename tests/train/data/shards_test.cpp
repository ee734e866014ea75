// Token shards: what goes in comes out, interrupted work goes on, and what changed since is refused.
#include "train/data/shards.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "mneme/error.h"
#include "scratch.h"
#include "text/tokenizer_fingerprint.h"
#include "train/data/byte_tokenizer.h"
#include "train/data/shard_build.h"

namespace mneme::train::shards_test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string message_of(const std::function<void()>& call, ErrorCode code) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

class Shards : public ::testing::Test {
 protected:
  std::string write(const std::string& name, const std::string& text) const {
    return folder_.write(name, text).string();
  }
  std::string json_lines(const std::string& name, int documents) {
    std::string text;
    for (int i = 0; i < documents; ++i)
      text +=
          R"({"text": "the thing in )" + std::to_string(i * 7919) + " " + std::string(i % 40, 'z') + "\"}\n";
    return write(name, text);
  }
  // The whole stream, by reads of odd sizes.
  static std::vector<int64_t> stream(const ShardSet& set) {
    std::vector<int64_t> out(set.tokens());
    for (uint64_t at = 0; at < out.size(); at += 37)
      set.read(at, std::span(out).subspan(at, std::min<uint64_t>(37, out.size() - at)));
    return out;
  }
  void flip(const std::string& name, int64_t at) {
    std::fstream file(folder_ / name, std::ios::in | std::ios::out | std::ios::binary);
    if (at < 0) at += static_cast<int64_t>(fs::file_size(folder_ / name));
    file.seekg(at);
    const char byte = static_cast<char>(file.get() ^ 1);
    file.seekp(at);
    file.put(byte);
  }

  ScratchFolder folder_;
  std::unique_ptr<Tokenizer> tokenizer_ = byte_tokenizer();
};

TEST_F(Shards, HoldTheDocumentsEachWithItsEnd) {
  const std::string a = write("a.txt", "the inn"),
                    b = write("b.jsonl", "{\"text\": \"h\\u00e9\"}\n\n{\"text\": \"\"}\n{\"text\": \" x\"}");
  const ShardReport report = build_shards({a, b}, *tokenizer_, folder_ / "out");
  const ShardSet set = ShardSet::open(folder_ / "out");
  std::vector<int64_t> expected;
  for (const std::string text : {"the inn", "hé", " x"}) {
    for (const TokenId id : tokenizer_->encode(text)) expected.push_back(id);
    expected.push_back(kByteTokenizerEnd);
  }
  EXPECT_EQ(stream(set), expected);
  EXPECT_EQ(report.documents, 3u);
  EXPECT_EQ(set.documents(), 3u);
  EXPECT_EQ(set.text_bytes(), 7u + 3u + 2u);
  EXPECT_EQ(report.train_tokens, expected.size());
  EXPECT_EQ(set.vocab(), tokenizer_->vocab_size());
  for (uint64_t i = 1; i < 3; ++i) EXPECT_EQ(expected[set.document_start(i) - 1], kByteTokenizerEnd);
  EXPECT_TRUE(ShardSet::open(folder_ / "out", Split::validation).tokens() == 0);
  EXPECT_THROW(set.read(set.tokens() - 1, std::span(expected).first(2)), Error);
}

TEST_F(Shards, OfManyPiecesEqualOne) {
  const std::string text = json_lines("a.jsonl", 3000);
  build_shards({text}, *tokenizer_, folder_ / "one");
  build_shards({text}, *tokenizer_, folder_ / "many", {.shard_tokens = 5000, .threads = 2});
  EXPECT_TRUE(fs::exists(folder_ / "many/train-00004.tokens"));
  EXPECT_EQ(stream(ShardSet::open(folder_ / "one")), stream(ShardSet::open(folder_ / "many")));
}

TEST_F(Shards, OfLargeVocabulariesHaveFourBytes) {
  const auto large = byte_tokenizer(70000);
  const std::string text = write("a.txt", "the inn");
  build_shards({text}, *large, folder_ / "wide");
  build_shards({text}, *tokenizer_, folder_ / "narrow");
  EXPECT_EQ(stream(ShardSet::open(folder_ / "wide")), stream(ShardSet::open(folder_ / "narrow")));
  EXPECT_GT(fs::file_size(folder_ / "wide/train-00000.tokens"),
            fs::file_size(folder_ / "narrow/train-00000.tokens"));
}

TEST_F(Shards, InterruptedGoOnAndEndEqual) {
  // About 2 MB in batches of 64 KiB.
  std::string text;
  for (int i = 0; i < 20000; ++i)
    text += R"({"text": "the thing in the inn, number )" + std::to_string(i * 7919) +
            " of this long, long list" + std::string(i % 40, 'z') + "\"}\n";
  const std::string a = write("a.jsonl", text), b = write("b.txt", "the end in the end\n");
  ShardOptions options{.validation = 0.1, .shard_tokens = 1 << 16, .threads = 2};
  build_shards({a, b}, *tokenizer_, folder_ / "whole", options);
  int stops = 0;
  uint64_t resumed = 0;
  for (bool done = false; !done && stops < 100; ++stops) {
    int calls = 0;
    options.progress = [&](uint64_t, uint64_t) { return ++calls < 9; };
    try {
      resumed = build_shards({a, b}, *tokenizer_, folder_ / "parts", options).resumed_bytes;
      done = true;
    } catch (const Error& error) {
      ASSERT_EQ(error.code(), ErrorCode::cancelled);
      EXPECT_THROW(ShardSet::open(folder_ / "parts"), Error);
    }
  }
  EXPECT_GT(stops, 2);
  EXPECT_LT(stops, 50);
  EXPECT_GT(resumed, 1u << 19);
  for (const Split split : {Split::train, Split::validation}) {
    const ShardSet whole = ShardSet::open(folder_ / "whole", split),
                   parts = ShardSet::open(folder_ / "parts", split);
    EXPECT_EQ(whole.hash(), parts.hash());
    EXPECT_EQ(stream(whole), stream(parts));
  }
}

TEST_F(Shards, ValidationIsChosenByTextAlone) {
  const std::string a = json_lines("a.jsonl", 2000);
  build_shards({a, a}, *tokenizer_, folder_ / "out", {.validation = 0.2});
  const ShardSet train = ShardSet::open(folder_ / "out"),
                 held = ShardSet::open(folder_ / "out", Split::validation);
  EXPECT_EQ(train.documents() + held.documents(), 4000u);
  EXPECT_NEAR(static_cast<double>(held.documents()) / 4000, 0.2, 0.04);
  // Each document is there twice; both copies must lie on one side.
  const auto texts = [](const ShardSet& set) {
    std::vector<std::vector<int64_t>> out;
    for (uint64_t i = 0; i < set.documents(); ++i) {
      const uint64_t begin = set.document_start(i),
                     end = i + 1 < set.documents() ? set.document_start(i + 1) : set.tokens();
      out.emplace_back(end - begin);
      set.read(begin, out.back());
    }
    return out;
  };
  const auto held_texts = texts(held);
  for (const auto& text : texts(train)) ASSERT_EQ(std::count(held_texts.begin(), held_texts.end(), text), 0);
}

TEST_F(Shards, FinishedOnesAreReusedAndOthersRefused) {
  const std::string a = write("a.txt", "the inn in the inn");
  const auto build = [&](bool rebuild = false, const Tokenizer* other = nullptr) {
    return build_shards({a}, other ? *other : *tokenizer_, folder_ / "out", {.rebuild = rebuild});
  };
  EXPECT_FALSE(build().reused);
  EXPECT_TRUE(build().reused);
  fs::last_write_time(a, fs::file_time_type::clock::now() + std::chrono::hours(1));
  EXPECT_TRUE(build().reused) << "only the time differs";
  write("a.txt", "the inn in the ink");
  EXPECT_THAT(message_of([&] { build(); }, ErrorCode::mismatch), HasSubstr("other content"));
  EXPECT_FALSE(build(true).reused);
  const auto other = byte_tokenizer(1);
  EXPECT_THAT(message_of([&] { build(false, other.get()); }, ErrorCode::mismatch),
              HasSubstr("another tokenizer"));
}

TEST_F(Shards, ThatChangedAreRefusedByName) {
  const std::string a = json_lines("a.jsonl", 50);
  const std::string shard = "out/train-00000.tokens";
  for (const int64_t at : {0, 12, 20, 50, 100, 125, 200, 2001, -3}) {
    build_shards({a}, *tokenizer_, folder_ / "out", {.rebuild = true});
    EXPECT_NO_THROW(ShardSet::open(folder_ / "out"));
    flip(shard, at);
    EXPECT_THAT(message_of([&] { ShardSet::open(folder_ / "out"); }, ErrorCode::corrupt),
                HasSubstr("train-00000.tokens"))
        << at;
    fs::remove_all(folder_ / "out");
  }
  build_shards({a}, *tokenizer_, folder_ / "out");
  const uint64_t bytes = fs::file_size(folder_ / shard);
  for (const uint64_t cut : {uint64_t{0}, uint64_t{100}, bytes / 2, bytes - 1}) {
    fs::resize_file(folder_ / shard, cut);
    EXPECT_THAT(message_of([&] { ShardSet::open(folder_ / "out"); }, ErrorCode::corrupt),
                HasSubstr("train-00000.tokens"))
        << cut;
  }
  fs::remove(folder_ / shard);
  EXPECT_THAT(message_of([&] { ShardSet::open(folder_ / "out"); }, ErrorCode::not_found),
              HasSubstr("train-00000.tokens"));
}

// Reading a mapping beyond the file's end would end the process.
TEST_F(Shards, ThatAreCutWhileTheyAreReadAreAnError) {
  const std::string a = json_lines("a.jsonl", 500);
  build_shards({a}, *tokenizer_, folder_ / "out");
  const ShardSet set = ShardSet::open(folder_ / "out");
  const fs::path shard = folder_ / "out/train-00000.tokens";
  const uint64_t bytes = fs::file_size(shard);
  ASSERT_GT(bytes, 8192u) << "more pages than one";
  std::vector<int64_t> last(4);
  EXPECT_NO_THROW(set.read(set.tokens() - 4, last));
  for (const uint64_t cut : {bytes - 1, uint64_t{128}, uint64_t{0}}) {
    fs::resize_file(shard, cut);
    EXPECT_THAT(message_of([&] { set.read(set.tokens() - 4, last); }, ErrorCode::io),
                AllOf(HasSubstr("train-00000.tokens"), HasSubstr("shrank from " + std::to_string(bytes))));
    EXPECT_THAT(message_of([&] { set.document_start(set.documents() - 1); }, ErrorCode::io),
                HasSubstr("train-00000.tokens"));
  }
}

TEST_F(Shards, OfAnotherSetAreRefused) {
  const std::string a = write("a.txt", "the inn in the inn"), b = write("b.txt", "the inn in the ink");
  build_shards({a}, *tokenizer_, folder_ / "a");
  build_shards({b}, *tokenizer_, folder_ / "b");
  fs::copy_file(folder_ / "b/train-00000.tokens", folder_ / "a/train-00000.tokens",
                fs::copy_options::overwrite_existing);
  EXPECT_THAT(message_of([&] { ShardSet::open(folder_ / "a"); }, ErrorCode::mismatch),
              HasSubstr("changed since it was indexed"));
  const ShardSet set = ShardSet::open(folder_ / "b");
  EXPECT_NO_THROW(set.require_tokenizer(tokenizer_fingerprint(*tokenizer_), "the model"));
  EXPECT_THAT(
      message_of([&] { set.require_tokenizer(tokenizer_fingerprint(*byte_tokenizer(3)), "the model"); },
                 ErrorCode::mismatch),
      HasSubstr("another tokenizer"));
}

TEST_F(Shards, TextThatChangedIsRefusedAndTextThatIsGoneIsNot) {
  const std::string a = write("a.txt", "the inn in the inn");
  build_shards({a}, *tokenizer_, folder_ / "out");
  write("a.txt", "the inn in the ink");
  EXPECT_THAT(message_of([&] { ShardSet::open(folder_ / "out"); }, ErrorCode::mismatch), HasSubstr("a.txt"));
  EXPECT_NO_THROW(ShardSet::open(folder_ / "out", Split::train, {.check_sources = false}));
  write("a.txt", "");
  EXPECT_THAT(message_of([&] { ShardSet::open(folder_ / "out"); }, ErrorCode::mismatch),
              HasSubstr("empty now"));
  fs::remove(a);
  EXPECT_NO_THROW(ShardSet::open(folder_ / "out"));
}

TEST_F(Shards, AreNotMadeOfNothing) {
  const std::string blank = write("blank.txt", " \n\t\n"), empty = write("empty.txt", "");
  EXPECT_THAT(
      message_of([&] { build_shards({blank}, *tokenizer_, folder_ / "out"); }, ErrorCode::invalid_argument),
      HasSubstr("no text"));
  EXPECT_THAT(
      message_of([&] { build_shards({empty}, *tokenizer_, folder_ / "out"); }, ErrorCode::invalid_argument),
      HasSubstr("empty.txt"));
  EXPECT_THROW(build_shards({blank}, *tokenizer_, folder_ / "out", {.validation = 1.0}), Error);
  EXPECT_THROW(ShardSet::open(folder_ / "out"), Error);
  EXPECT_THROW(ShardSet::open(folder_ / "nowhere"), Error);
}

}  // namespace
}  // namespace mneme::train::shards_test
