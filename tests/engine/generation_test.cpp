// generate() against a fake model whose every token is known or reproducible; see fake_sequence.h.
#include "engine/generation.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "engine/fake_sequence.h"
#include "text/utf8.h"

namespace mneme::generation_test {
namespace {

using namespace testing_fakes;

class GenerationTest : public testing::Test {
 protected:
  // Makes the model continue `prompt` with exactly these pieces.
  GenerateRequest scripted(const std::vector<std::string>& pieces) {
    GenerateRequest request;
    request.prompt = {7, 8, 9};
    std::vector<TokenId> script;
    for (const auto& piece : pieces) script.push_back(piece.empty() ? kEnd : model.tokenizer.find(piece));
    model.scripts = {{request.prompt, script}};
    request.sampling.temperature = 0;
    request.max_tokens = static_cast<uint32_t>(pieces.size());
    request.on_text = [this](std::string_view text) {
      streamed.emplace_back(text);
      return true;
    };
    return request;
  }
  GenerateResult run(const GenerateRequest& request) {
    sequence = std::make_unique<FakeSequence>(model);
    return generate(*sequence, &model.tokenizer, request);
  }
  std::string all_streamed() const {
    std::string out;
    for (const auto& piece : streamed) out += piece;
    return out;
  }
  ErrorCode code_of(const GenerateRequest& request, std::string* message = nullptr) {
    try {
      run(request);
    } catch (const Error& error) {
      if (message != nullptr) *message = error.what();
      return error.code();
    }
    ADD_FAILURE() << "no error";
    return ErrorCode::io;
  }

  FakeModel model;
  std::unique_ptr<FakeSequence> sequence;
  std::vector<std::string> streamed;
};

TEST_F(GenerationTest, LengthStopsAfterMaxTokens) {
  const auto result = run(scripted({"a", "b", "c"}));
  EXPECT_EQ(result.text, "abc");
  EXPECT_EQ(result.stop, StopReason::length);
  EXPECT_EQ(result.generated_tokens, 3u);
  EXPECT_EQ(result.prompt_tokens, 3u);
  // The last sampled token has not been processed.
  EXPECT_EQ(sequence->tokens(), (std::vector<TokenId>{7, 8, 9, 7, 8}));
  EXPECT_GT(result.ttft_ms, 0);
  EXPECT_GT(result.tokens_per_second, 0);
}

TEST_F(GenerationTest, NoTokensAskedForOnlyProcessesThePrompt) {
  auto request = scripted({"a"});
  request.max_tokens = 0;
  const auto result = run(request);
  EXPECT_EQ(result.stop, StopReason::length);
  EXPECT_TRUE(result.tokens.empty());
  EXPECT_EQ(result.ttft_ms, 0);
  EXPECT_EQ(sequence->tokens().size(), 3u);
}

TEST_F(GenerationTest, StopTokenEndsAndIsNotInTheText) {
  auto request = scripted({"a", "", "b"});
  auto result = run(request);
  EXPECT_EQ(result.text, "a");
  EXPECT_EQ(result.stop, StopReason::end);
  EXPECT_EQ(result.tokens, (std::vector<TokenId>{7, kEnd}));
  request.ignore_eos = true;
  result = run(request);
  EXPECT_EQ(result.text, "ab");
  EXPECT_EQ(result.stop, StopReason::length);
}

TEST_F(GenerationTest, StopStringsAcrossTokenBordersAreCutOff) {
  auto request = scripted({"x", "ST", "OP", "y"});
  request.stop = {"STOP"};
  const auto result = run(request);
  EXPECT_EQ(result.text, "x");
  EXPECT_EQ(result.stop, StopReason::stop);
  EXPECT_EQ(result.tokens.size(), 3u);
  EXPECT_EQ(streamed, std::vector<std::string>{"x"});
}

TEST_F(GenerationTest, StopStringInsideATokenCutsIt) {
  auto request = scripted({" the", "a"});
  request.stop = {"he"};
  EXPECT_EQ(run(request).text, " t");
  EXPECT_EQ(all_streamed(), " t");
}

TEST_F(GenerationTest, AlmostStopStringsAreStreamedLateButWhole) {
  auto request = scripted({"ST", "a", "User", "\n\n"});
  request.stop = {"STOP", "User:"};
  const auto result = run(request);
  EXPECT_EQ(result.text, "STaUser\n\n");
  EXPECT_EQ(streamed, (std::vector<std::string>{"STa", "User\n\n"}));
  EXPECT_EQ(result.stop, StopReason::length);
}

TEST_F(GenerationTest, HeldBackTextComesAtTheEnd) {
  auto request = scripted({"a", "User"});
  request.stop = {"User:"};
  EXPECT_EQ(run(request).text, "aUser");
  EXPECT_EQ(all_streamed(), "aUser");
}

TEST_F(GenerationTest, CharactersAreNeverCut) {
  const auto result = run(scripted({"\xC3", "\xA9", "\xE4\xB8", "\xAD", "a", "\xC3"}));
  EXPECT_EQ(result.text, "é中a\xEF\xBF\xBD");  // the unfinished last one is replaced
  EXPECT_EQ(streamed, (std::vector<std::string>{"é", "中", "a", "\xEF\xBF\xBD"}));
}

TEST_F(GenerationTest, StopStringOfASplitCharacterIsFound) {
  auto request = scripted({"a", "\xC3", "\xA9", "b"});
  request.stop = {"é"};
  const auto result = run(request);
  EXPECT_EQ(result.text, "a");
  EXPECT_EQ(result.stop, StopReason::stop);
}

TEST_F(GenerationTest, OnTextMayStop) {
  auto request = scripted({"a", "b", "c"});
  request.stop = {"cx"};
  int calls = 0;
  request.on_text = [&](std::string_view) { return ++calls < 2; };
  const auto result = run(request);
  EXPECT_EQ(result.stop, StopReason::cancelled);
  EXPECT_EQ(result.text, "ab");
  EXPECT_EQ(calls, 2);
}

TEST_F(GenerationTest, WhatACallbackThrowsPassesThrough) {
  auto request = scripted({"a", "b"});
  request.on_text = [](std::string_view) -> bool { throw std::runtime_error("mine"); };
  EXPECT_THROW(run(request), std::runtime_error);
}

TEST_F(GenerationTest, CancelDuringThePromptLeavesTheSequenceAlone) {
  auto request = scripted({"a"});
  CancelToken cancel;
  request.cancel = &cancel;
  model.on_append = [&](size_t position) {
    if (position == 1) cancel.cancel();
  };
  const auto result = run(request);
  EXPECT_EQ(result.stop, StopReason::cancelled);
  EXPECT_TRUE(result.tokens.empty());
  EXPECT_TRUE(sequence->tokens().empty());
}

TEST_F(GenerationTest, CancelWhileDecodingKeepsTheTextSoFar) {
  auto request = scripted({"a", "b", "c", "d"});
  CancelToken cancel;
  request.cancel = &cancel;
  model.on_append = [&](size_t position) {
    if (position == 4) cancel.cancel();  // while "b" is processed
  };
  const auto result = run(request);
  EXPECT_EQ(result.stop, StopReason::cancelled);
  EXPECT_EQ(result.text, "ab");
  EXPECT_EQ(all_streamed(), "ab");
}

TEST_F(GenerationTest, FullContextStops) {
  model.context = 5;
  const auto result = run(scripted({"a", "b", "c", "d", "a"}));
  EXPECT_EQ(result.stop, StopReason::context);
  EXPECT_EQ(result.text, "abc");  // two processed, the third sampled from the last free position
  EXPECT_EQ(sequence->tokens().size(), 5u);
}

TEST_F(GenerationTest, TooLongPromptsNameBothNumbers) {
  model.context = 50;
  auto request = scripted({"a"});
  request.prompt.assign(51, 7);
  std::string message;
  EXPECT_EQ(code_of(request, &message), ErrorCode::limit);
  EXPECT_NE(message.find("51"), std::string::npos) << message;
  EXPECT_NE(message.find("50"), std::string::npos) << message;
  request.prompt.assign(50, 7);
  EXPECT_EQ(run(request).generated_tokens, 1u);
  // A continued session counts what it already holds.
  request.prompt = {7, 7};
  try {
    generate(*sequence, &model.tokenizer, request);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::limit);
    EXPECT_NE(std::string(error.what()).find("already holds 50"), std::string::npos) << error.what();
  }
}

TEST_F(GenerationTest, BadRequestsAreRefusedBeforeTheModelRuns) {
  bool ran = false;
  model.on_append = [&](size_t) { ran = true; };
  const auto refused = [&](auto&& change) {
    auto request = scripted({"a"});
    change(request);
    EXPECT_EQ(code_of(request), ErrorCode::invalid_argument);
  };
  refused([](GenerateRequest& r) { r.prompt.clear(); });
  refused([](GenerateRequest& r) { r.stop = {""}; });
  refused([](GenerateRequest& r) { r.stop = {"\xFF"}; });
  refused([](GenerateRequest& r) { r.sampling.top_p = 2; });
  auto request = scripted({"a"});
  request.stop = {"x"};
  FakeSequence bare(model);
  EXPECT_THROW(generate(bare, nullptr, request), Error);
  EXPECT_FALSE(ran);
}

TEST_F(GenerationTest, WithoutTokenizerThereAreIdsButNoText) {
  auto request = scripted({"a", "", "b"});
  FakeSequence bare(model);
  const auto result = generate(bare, nullptr, request);
  EXPECT_EQ(result.tokens, (std::vector<TokenId>{7, kEnd, 8}));
  EXPECT_TRUE(result.text.empty());
}

TEST_F(GenerationTest, PrefillProgressReachesTheTotal) {
  auto request = scripted({"a"});
  request.prompt.assign(40, 7);
  std::vector<uint64_t> seen;
  request.on_prefill = [&](uint64_t done, uint64_t total) {
    EXPECT_EQ(total, 40u);
    seen.push_back(done);
  };
  run(request);
  EXPECT_EQ(seen, (std::vector<uint64_t>{16, 32, 40}));
}

// The stream, joined, is the text; the text is valid UTF-8 and what decoding the tokens gives up to the stop.
TEST_F(GenerationTest, RandomRequestsStreamWhatTheyReturn) {
  size_t stops = 0;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    GenerateRequest request;
    request.prompt = {static_cast<TokenId>(7 + seed % 20), 9};
    request.max_tokens = 60;
    request.sampling.seed = seed;
    request.sampling.temperature = 1.5;
    if (seed % 2 == 0) request.stop = {"e", "STOP", "t\n", "é"};
    streamed.clear();
    request.on_text = [this](std::string_view text) {
      EXPECT_FALSE(text.empty());
      EXPECT_TRUE(is_valid_utf8(text));
      streamed.emplace_back(text);
      return true;
    };
    const auto result = run(request);
    EXPECT_EQ(all_streamed(), result.text);
    auto tokens = result.tokens;
    if (result.stop == StopReason::end) tokens.pop_back();
    const std::string decoded = repair_utf8(model.tokenizer.decode(tokens, {}));
    if (result.stop == StopReason::stop) {
      ++stops;
      EXPECT_EQ(decoded.compare(0, result.text.size(), result.text), 0);
    } else {
      EXPECT_EQ(decoded, result.text);
    }
    for (const auto& stop : request.stop) EXPECT_EQ(result.text.find(stop), std::string::npos);
  }
  EXPECT_GT(stops, 30u);
}

}  // namespace
}  // namespace mneme::generation_test
