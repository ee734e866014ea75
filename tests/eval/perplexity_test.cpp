// Perplexity of the weightless model of tests/engine/fake_sequence.h, against the definition written out:
// every scored token by a fresh sequence of its own.
#include "eval/perplexity.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "engine/fake_sequence.h"
#include "eval/log_softmax.h"
#include "scratch.h"

namespace mneme::perplexity_test {
namespace {

using namespace testing_fakes;

std::vector<TokenId> random_tokens(size_t count) {
  Pcg64 random(77);
  std::vector<TokenId> tokens(count);
  for (auto& token : tokens) token = static_cast<TokenId>(2 + random.below(30));
  return tokens;
}

// Hands out tokens in uneven pieces, empty ones among them.
TokenStream stream_of(std::vector<TokenId> tokens, TokenId bos = -1) {
  TokenStream stream;
  stream.bos = bos;
  stream.next = [tokens = std::move(tokens), at = size_t{0},
                 step = size_t{0}](std::vector<TokenId>& out) mutable {
    const size_t count = std::min(tokens.size() - at, (step++ * 7) % 23);
    out.insert(out.end(), tokens.begin() + static_cast<std::ptrdiff_t>(at),
               tokens.begin() + static_cast<std::ptrdiff_t>(at + count));
    at += count;
    return at < tokens.size();
  };
  return stream;
}

struct Expected {
  size_t tokens = 0;
  double nll = 0, standard_error = 0;
};

Expected by_definition(const std::vector<TokenId>& tokens, size_t ctx, TokenId bos = -1) {
  FakeModel model;
  model.context = 4096;
  std::vector<double> values;
  for (size_t start = 0; start + ctx <= tokens.size(); start += ctx) {
    std::vector<TokenId> window(tokens.begin() + static_cast<std::ptrdiff_t>(start),
                                tokens.begin() + static_cast<std::ptrdiff_t>(start + ctx));
    if (bos >= 0) window[0] = bos;
    for (size_t i = ctx / 2; i < ctx; ++i) {
      FakeSequence sequence(model);
      const auto logits = sequence.append(std::span(window).first(i), {});
      double sum = 0;
      for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
      values.push_back(std::log(sum) - logits[static_cast<size_t>(window[i])]);
    }
  }
  Expected out{values.size(), 0, 0};
  for (const double value : values) out.nll += value / static_cast<double>(values.size());
  double squares = 0;
  for (const double value : values) squares += (value - out.nll) * (value - out.nll);
  const auto n = static_cast<double>(values.size());
  out.standard_error = std::exp(out.nll) * std::sqrt(squares / (n - 1) / n);
  return out;
}

ErrorCode code_of(const std::function<void()>& action, std::string* message = nullptr) {
  try {
    action();
  } catch (const Error& error) {
    if (message != nullptr) *message = error.what();
    return error.code();
  }
  ADD_FAILURE() << "no error";
  return ErrorCode::internal;
}

TEST(Perplexity, EqualsItsDefinition) {
  const auto tokens = random_tokens(150);
  for (const uint32_t ctx : {2u, 3u, 16u, 33u, 70u, 150u}) {
    for (const TokenId bos : {-1, 1}) {
      FakeModel model;
      FakeRunner runner(model);
      PerplexityOptions options;
      options.ctx = ctx;
      const auto result = perplexity(runner, stream_of(tokens, bos), options);
      const auto expected = by_definition(tokens, ctx, bos);
      EXPECT_EQ(result.tokens, expected.tokens) << ctx;
      EXPECT_NEAR(result.nll, expected.nll, 1e-12) << ctx;
      EXPECT_NEAR(result.ppl, std::exp(expected.nll), 1e-9) << ctx;
      EXPECT_NEAR(result.standard_error, expected.standard_error, 1e-9) << ctx;
    }
  }
}

TEST(Perplexity, LimitCountsTokensOfTheText) {
  const auto tokens = random_tokens(150);
  FakeModel model;
  FakeRunner runner(model);
  PerplexityOptions options;
  options.ctx = 16;
  options.max_tokens = 50;
  const auto result = perplexity(runner, stream_of(tokens), options);
  EXPECT_EQ(result.tokens, 24u);  // three windows
  EXPECT_NEAR(result.nll, by_definition({tokens.begin(), tokens.begin() + 48}, 16).nll, 1e-12);
}

TEST(Perplexity, ProgressCountsAndCancelStops) {
  FakeModel model;
  FakeRunner runner(model);
  PerplexityOptions options;
  options.ctx = 16;
  CancelToken cancel;
  options.cancel = &cancel;
  std::vector<uint64_t> seen;
  options.progress = [&](uint64_t tokens, uint64_t total, double ppl) {
    EXPECT_GE(total, tokens);
    if (tokens > 8) {  // the first token is scored when half of a window has been read
      EXPECT_GT(ppl, 1);
    }
    if (tokens % 16 != 0 || (!seen.empty() && seen.back() == tokens)) return;
    seen.push_back(tokens);
    if (seen.size() == 2) cancel.cancel();
  };
  EXPECT_EQ(code_of([&] { perplexity(runner, stream_of(random_tokens(150)), options); }),
            ErrorCode::cancelled);
  EXPECT_EQ(seen, (std::vector<uint64_t>{16, 32}));
}

TEST(Perplexity, ShortTextsSmallWindowsAndSmallContextsAreErrors) {
  FakeModel model;
  FakeRunner runner(model);
  PerplexityOptions options;
  options.ctx = 64;
  std::string message;
  EXPECT_EQ(code_of([&] { perplexity(runner, stream_of(random_tokens(63)), options); }, &message),
            ErrorCode::invalid_argument);
  EXPECT_NE(message.find("63"), std::string::npos) << message;
  EXPECT_NE(message.find("64"), std::string::npos) << message;
  model.context = 32;
  EXPECT_EQ(code_of([&] { perplexity(runner, stream_of(random_tokens(150)), options); }), ErrorCode::limit);
  options.ctx = 1;
  EXPECT_EQ(code_of([&] { perplexity(runner, stream_of(random_tokens(150)), options); }),
            ErrorCode::invalid_argument);
}

TEST(StreamedFile, MissingFilesAndFoldersAreErrors) {
  const ScratchFolder folder;
  const FakeTokenizer tokenizer;
  EXPECT_EQ(code_of([&] { stream_file(tokenizer, folder / "missing"); }), ErrorCode::not_found);
  EXPECT_EQ(code_of([&] { stream_file(tokenizer, folder.path()); }), ErrorCode::io);
}

// A BOS model: encode() puts kSecondEnd before every text, as its post-processor would.
class BosTokenizer final : public FakeTokenizer {
 public:
  std::vector<TokenId> encode(std::string_view text, const EncodeOptions& options) const override {
    auto ids = FakeTokenizer::encode(text, options);
    if (options.add_special) ids.insert(ids.begin(), bos());
    return ids;
  }
  TokenId bos() const noexcept override { return kSecondEnd; }
};

TEST(StreamedFile, OpensWithTheModelsBos) {
  const ScratchFolder folder;
  const auto path = folder.write("text", "abc");
  for (const bool with_bos : {false, true}) {
    const FakeTokenizer plain;
    const BosTokenizer bos;
    auto stream = stream_file(with_bos ? static_cast<const Tokenizer&>(bos) : plain, path);
    std::vector<TokenId> tokens;
    while (stream.next(tokens)) {
    }
    EXPECT_EQ(tokens,
              with_bos ? (std::vector<TokenId>{kSecondEnd, 7, 8, 9}) : (std::vector<TokenId>{7, 8, 9}));
    EXPECT_EQ(stream.bos, with_bos ? kSecondEnd : -1);
    EXPECT_EQ(stream.estimated_total(), 3u);
  }
}

}  // namespace
}  // namespace mneme::perplexity_test
