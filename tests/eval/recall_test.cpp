// The recall evaluations with readers instead of models: one that finds every line it is asked for, one that
// sees only the end of the text, one that knows nothing. What they score is known beforehand.
#include "eval/recall.h"

#include <gtest/gtest.h>

#include <cctype>
#include <cmath>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/fail.h"
#include "engine/sequence.h"
#include "eval/haystack.h"

namespace mneme::recall_test {
namespace {

// A byte is a token, and 0 ends the answer.
class ByteTokenizer final : public Tokenizer {
 public:
  std::vector<TokenId> encode(std::string_view text, const EncodeOptions&) const override {
    return {reinterpret_cast<const uint8_t*>(text.data()),
            reinterpret_cast<const uint8_t*>(text.data()) + text.size()};
  }
  std::string decode(std::span<const TokenId> ids, const DecodeOptions&) const override {
    return {ids.begin(), ids.end()};
  }
  std::string piece(TokenId id) const override {
    return id == 0 ? "" : std::string(1, static_cast<char>(id));
  }
  std::string token(TokenId id) const override { return piece(id); }
  uint32_t vocab_size() const noexcept override { return 256; }
  TokenId bos() const noexcept override { return -1; }
  TokenId eos() const noexcept override { return 0; }
  std::span<const TokenId> stop_tokens() const noexcept override { return stops_; }
  bool is_control(TokenId id) const noexcept override { return id == 0; }
  TokenId find(std::string_view) const noexcept override { return -1; }
  const std::string& chat_template() const noexcept override { return chat; }
  std::string chat;

 private:
  std::vector<TokenId> stops_{0};
};

using Reader = std::function<std::string(const std::string& text)>;

struct ReaderModel {
  ByteTokenizer tokenizer;
  Reader reader;
  uint64_t read = 0;
  uint64_t context = 1 << 20;
};

class ReaderSequence final : public Sequence {
 public:
  explicit ReaderSequence(ReaderModel& model) : model_(model) {}
  std::span<const float> append(std::span<const TokenId> ids, const AppendOptions& options) override {
    require(options.cancel == nullptr || !options.cancel->cancelled(), ErrorCode::cancelled, "stopped");
    // A prompt's answer starts to come when its last token has been read by itself.
    if (ids.size() > 1) asked_ = 0;
    tokens_.insert(tokens_.end(), ids.begin(), ids.end());
    model_.read += ids.size();
    if (asked_ == 0) asked_ = ids.size() == 1 ? tokens_.size() : 0;
    logits_.assign(256, 0);
    if (asked_ > 0) {
      if (tokens_.size() == asked_) answer_ = model_.reader(std::string(tokens_.begin(), tokens_.end()));
      const size_t at = tokens_.size() - asked_;
      logits_[at < answer_.size() ? static_cast<uint8_t>(answer_[at]) : 0] = 9;
    }
    if (options.progress) options.progress(ids.size(), ids.size());
    return logits_;
  }
  std::span<const float> logits() const override { return logits_; }
  const std::vector<TokenId>& tokens() const override { return tokens_; }
  uint64_t context() const override { return model_.context; }
  uint32_t chunk() const override { return 512; }
  std::unique_ptr<Sequence> fork() const override { return std::make_unique<ReaderSequence>(*this); }

 private:
  ReaderModel& model_;
  std::vector<TokenId> tokens_;
  std::vector<float> logits_;
  std::string answer_;
  size_t asked_ = 0;
};

class ReaderRunner final : public SequenceRunner {
 public:
  explicit ReaderRunner(ReaderModel& model) : model_(model) {}
  std::unique_ptr<Sequence> start() override { return std::make_unique<ReaderSequence>(model_); }
  void append_batch(std::span<Sequence* const>, std::span<const TokenId>, const CancelToken*) override {
    fail(ErrorCode::internal, "not used here");
  }
  const Tokenizer* tokenizer() const override { return &model_.tokenizer; }

 private:
  ReaderModel& model_;
};

// The word of letters, digits and hyphens that begins at `at`.
std::string word_at(const std::string& text, size_t at) {
  size_t end = at;
  while (end < text.size() && (std::isalnum(static_cast<unsigned char>(text[end])) || text[end] == '-'))
    ++end;
  return text.substr(at, end - at);
}

// Every A and B of "before A between B." in a text.
std::vector<std::pair<std::string, std::string>> facts(const std::string& text, const std::string& before,
                                                       const std::string& between) {
  std::vector<std::pair<std::string, std::string>> found;
  for (size_t at = text.find(before); at != std::string::npos; at = text.find(before, at + 1)) {
    const std::string a = word_at(text, at + before.size());
    const size_t next = at + before.size() + a.size();
    if (a.empty() || text.compare(next, between.size(), between) != 0) continue;
    const std::string b = word_at(text, next + between.size());
    if (!b.empty() && text.compare(next + between.size() + b.size(), 1, ".") == 0) found.emplace_back(a, b);
  }
  return found;
}

// Reads `text` as a person would: the question at its end, then every line that answers it.
std::string find_all(const std::string& text) {
  const std::string question =
      text.substr(text.rfind('?') == std::string::npos ? 0 : text.rfind('\n', text.rfind('?')));
  std::string answer;
  const std::string held = "hold the value ";
  if (const size_t at = question.find(held); at != std::string::npos) {
    std::set<std::string> known{word_at(question, at + held.size())};
    for (const auto& [name, value] : facts(text, "Assignment: ", " = "))
      if (known.contains(value)) {
        known.insert(name);
        answer += " " + name;
      }
    return answer;
  }
  for (const auto& [key, number] : facts(text, "The secret number of ", " is "))
    if (question.find(key) != std::string::npos) answer += " " + number;
  return answer;
}

RecallResult evaluate(const Reader& reader, RecallOptions options, ReaderModel* kept = nullptr) {
  ReaderModel own;
  ReaderModel& model = kept != nullptr ? *kept : own;
  model.reader = reader;
  ReaderRunner runner(model);
  return recall(runner, options);
}

constexpr RecallTask kTasks[] = {RecallTask::needle, RecallTask::multikey, RecallTask::multivalue,
                                 RecallTask::multiquery, RecallTask::variables};

RecallOptions options_of(RecallTask task) {
  RecallOptions options;
  options.task = task;
  options.lengths = {2000, 3000, 6000};
  options.distractors = 2;
  options.raw = true;
  return options;
}

TEST(Recall, WhoFindsEverythingScoresOneAndWhoKnowsNothingZero) {
  for (const RecallTask task : kTasks) {
    for (const bool knows : {true, false}) {
      RecallOptions options = options_of(task);
      uint64_t most = 0;
      options.on_answer = [&](const RecallOptions::Answer& answer) { most = std::max(most, answer.length); };
      const auto result =
          evaluate(knows ? Reader(find_all) : Reader([](const std::string&) { return " 12 no"; }), options);
      EXPECT_EQ(result.score, knows ? 1 : 0) << to_string(task);
      EXPECT_EQ(result.standard_error, 0) << to_string(task);
      EXPECT_EQ(result.n, task == RecallTask::needle ? 45u : task == RecallTask::multikey ? 36u : 9u);
      EXPECT_EQ(result.cells.size(), 15u);
      for (const RecallCell& cell : result.cells)
        EXPECT_TRUE(cell.items > 0 ? cell.score == (knows ? 1 : 0) : std::isnan(cell.score));
      EXPECT_LE(most, 6000u);
      EXPECT_GT(most, 5700u);  // filled but for the answer and a line
    }
  }
}

// A window: who sees only the second half of the text finds what lies there.
TEST(Recall, TheMapShowsWhereAReaderIsBlind) {
  for (const RecallTask task : {RecallTask::needle, RecallTask::multikey, RecallTask::multivalue}) {
    RecallOptions options = options_of(task);
    options.samples = 5;
    options.items = 5;
    const auto half = [](const std::string& text) { return find_all(text.substr(text.size() / 2)); };
    const auto result = evaluate(half, options);
    for (const RecallCell& cell : result.cells) {
      EXPECT_EQ(cell.items, 5u);
      if (cell.depth == 0.5) continue;
      EXPECT_EQ(cell.score, cell.depth > 0.5 ? 1 : 0) << cell.depth;
    }
    EXPECT_GT(result.score, 0.3);
    EXPECT_LT(result.score, 0.7);
  }
}

TEST(Recall, DepthsGetEqualSharesOfTheItems) {
  RecallOptions options = options_of(RecallTask::multiquery);
  options.lengths = {2000};
  options.depths = {0, 0.25, 0.5, 0.75, 1};
  options.items = 3;
  options.samples = 7;  // 21 items on 5 depths
  std::multiset<uint64_t> counts;
  for (const RecallCell& cell : evaluate(find_all, options).cells) counts.insert(cell.items);
  EXPECT_EQ(counts, (std::multiset<uint64_t>{4, 4, 4, 4, 5}));
}

TEST(Recall, TextsAreReadOnceForAllQuestions) {
  RecallOptions options = options_of(RecallTask::multikey);
  options.lengths = {6000};
  options.samples = 1;
  options.items = 10;
  ReaderModel model;
  const auto result = evaluate(find_all, options, &model);
  EXPECT_GT(result.prompt_tokens, 55000u);
  EXPECT_LT(result.tokens_read, 10000u);
  // Every token that was read or generated went through the model, but for the last one of each answer.
  EXPECT_EQ(model.read + result.n, result.tokens_read + result.generated_tokens);
}

TEST(Recall, SameSeedSameAnswersOtherSeedOthers) {
  const auto answers = [](uint64_t seed) {
    RecallOptions options = options_of(RecallTask::variables);
    options.seed = seed;
    std::map<std::string, std::string> out;
    options.on_answer = [&](const RecallOptions::Answer& answer) { out[answer.question] = answer.answer; };
    evaluate(find_all, options);
    return out;
  };
  EXPECT_EQ(answers(3), answers(3));
  EXPECT_NE(answers(3), answers(4));
}

TEST(Recall, ChatTemplatesFrameTheText) {
  RecallOptions options = options_of(RecallTask::needle);
  options.raw = false;
  ReaderModel model;
  model.tokenizer.chat = "<u>{{ messages[0]['content'] }}</u>{% if add_generation_prompt %}<a>{% endif %}";
  std::string seen;
  const auto result =
      evaluate([&](const std::string& text) { return find_all(seen = text); }, options, &model);
  EXPECT_EQ(result.score, 1);
  EXPECT_TRUE(seen.starts_with("<u>Read the following text"));
  EXPECT_NE(seen.find("</u><a>The secret number of"), std::string::npos);
  model.tokenizer.chat = "<u>{{ messages[0]['content'] | upper }}</u>";
  EXPECT_THROW(evaluate(find_all, options, &model), Error);
}

TEST(Recall, CancelKeepsWhatIsDone) {
  RecallOptions options = options_of(RecallTask::needle);
  CancelToken cancel;
  options.cancel = &cancel;
  int answers = 0;
  options.on_answer = [&](const RecallOptions::Answer&) {
    if (++answers == 7) cancel.cancel();
  };
  const auto result = evaluate(find_all, options);
  EXPECT_FALSE(result.complete);
  EXPECT_EQ(result.n, 7u);
  EXPECT_EQ(result.score, 1);
}

TEST(Recall, ProgressEndsAtItsTotal) {
  RecallOptions options = options_of(RecallTask::multivalue);
  uint64_t last = 0, of = 1;
  options.progress = [&](uint64_t done, uint64_t total) {
    EXPECT_GE(done, last);
    EXPECT_LE(done, total);
    last = done;
    of = total;
  };
  evaluate(find_all, options);
  EXPECT_EQ(last, of);
}

TEST(Recall, WhatCannotBeIsRefused) {
  const auto refused = [](const std::function<void(RecallOptions&)>& change) {
    RecallOptions options = options_of(RecallTask::multikey);
    change(options);
    try {
      evaluate(find_all, options);
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode::internal;
  };
  EXPECT_EQ(refused([](auto& o) { o.lengths = {100}; }), ErrorCode::invalid_argument);
  EXPECT_EQ(refused([](auto& o) { o.lengths = {}; }), ErrorCode::invalid_argument);
  EXPECT_EQ(refused([](auto& o) { o.depths = {1.5}; }), ErrorCode::invalid_argument);
  EXPECT_EQ(refused([](auto& o) { o.items = 0; }), ErrorCode::invalid_argument);
  EXPECT_EQ(refused([](auto& o) { o.text = "/nowhere/at all"; }), ErrorCode::not_found);
}

TEST(RecallTask, DocumentsHideEachThingOnce) {
  for (const RecallTask task : kTasks) {
    const auto document = make_recall_document(task, 5, 3, 11);
    EXPECT_EQ(document.items.size(), task == RecallTask::needle ? 1u : 5u);
    EXPECT_EQ(document.distractors.size(), task == RecallTask::variables ? 15u : 3u);
    std::set<std::string> lines;
    for (const auto& item : document.items) EXPECT_TRUE(lines.insert(item.line).second);
    for (const auto& item : document.distractors) EXPECT_TRUE(lines.insert(item.line).second);
    EXPECT_EQ(document.questions.size(), task == RecallTask::multikey ? 5u : 1u);
    for (const auto& question : document.questions)
      for (const size_t item : question.items)  // a question does not give its answer away
        EXPECT_FALSE(answer_holds(document.intro + question.text + question.answer_start,
                                  document.items[item].expected));
    EXPECT_EQ(recall_task_from(to_string(task)), task);
  }
  EXPECT_TRUE(answer_holds("it is abcDE.", "ABCde"));
  EXPECT_FALSE(answer_holds("abcd", "abcde"));
}

TEST(Haystack, LinesVaryAndHoldNothingThatCouldBeTakenForAnItem) {
  Haystack one(5), same(5), other(6);
  std::set<std::string> lines;
  int equal = 0;
  for (int i = 0; i < 2000; ++i) {
    const std::string line = one.next();
    EXPECT_EQ(line, same.next());
    equal += line == other.next() ? 1 : 0;
    lines.insert(line);
    EXPECT_EQ(line.find_first_of("0123456789-$\n"), std::string::npos) << line;
    EXPECT_TRUE(line.ends_with('.')) << line;
  }
  EXPECT_GT(lines.size(), 1900u);
  EXPECT_LT(equal, 10);
}

}  // namespace
}  // namespace mneme::recall_test
