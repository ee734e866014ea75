// The golden tokens come from tools/make_sampling_golden.py, a full-sort float64 NumPy reference.
#include "mneme/sampling.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string>

#include "core/file.h"
#include "core/json.h"
#include "core/random.h"
#include "mneme/error.h"

namespace mneme::sampling_test {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<float> make_logits(size_t vocab, uint64_t seed, double scale) {
  Pcg64 random(seed);
  std::vector<float> logits(vocab);
  for (float& logit : logits) {
    const double a = random.uniform(), b = random.uniform(), c = random.uniform();
    logit = static_cast<float>(scale * (a + b + c - 1.5));
  }
  return logits;
}

SamplingOptions read_options(const Json& json) {
  SamplingOptions o;
  o.temperature = json.value("temperature", o.temperature);
  o.top_k = json.value("top_k", o.top_k);
  o.top_p = json.value("top_p", o.top_p);
  o.min_p = json.value("min_p", o.min_p);
  o.typical_p = json.value("typical_p", o.typical_p);
  o.repetition_penalty = json.value("repetition_penalty", o.repetition_penalty);
  o.frequency_penalty = json.value("frequency_penalty", o.frequency_penalty);
  o.presence_penalty = json.value("presence_penalty", o.presence_penalty);
  o.penalty_window = json.value("penalty_window", o.penalty_window);
  o.seed = json.value("seed", o.seed);
  if (json.contains("logit_bias"))
    for (const auto& pair : json["logit_bias"])
      o.logit_bias.emplace_back(pair[0].get<TokenId>(), pair[1].get<float>());
  return o;
}

// The survivors of one set of options, as the set of tokens seen in many draws.
std::vector<TokenId> drawn_set(const SamplingOptions& options, const std::vector<float>& logits) {
  Sampler sampler(options);
  std::vector<bool> seen(logits.size());
  for (int i = 0; i < 4000; ++i) seen[static_cast<size_t>(sampler.sample(logits, {}))] = true;
  std::vector<TokenId> out;
  for (size_t i = 0; i < seen.size(); ++i)
    if (seen[i]) out.push_back(static_cast<TokenId>(i));
  return out;
}

SamplingOptions open_options() {
  SamplingOptions o;
  o.temperature = 1;
  o.top_k = 0;
  o.top_p = 1;
  o.min_p = 0;
  return o;
}

TEST(Sampling, EqualsTheNumpyReference) {
  const Json cases = parse_json(read_text_file(MNEME_TEST_DATA "/sampling_golden.json"), "golden");
  ASSERT_GE(cases.size(), 70u);
  for (const auto& item : cases) {
    const auto logits = make_logits(item["vocab"], item["logit_seed"], item["scale"]);
    auto history = item["history"].get<std::vector<TokenId>>();
    Sampler sampler(read_options(item["options"]));
    std::vector<TokenId> tokens;
    for (size_t i = 0; i < item["tokens"].size(); ++i) {
      tokens.push_back(sampler.sample(logits, history));
      history.push_back(tokens.back());
    }
    EXPECT_EQ(tokens, item["tokens"].get<std::vector<TokenId>>()) << item["options"].dump();
  }
}

TEST(Sampling, DrawsFollowTheSoftmaxDistribution) {
  const auto logits = make_logits(40, 9, 3.0);
  for (const double temperature : {0.5, 1.0, 1.7}) {
    SamplingOptions options = open_options();
    options.temperature = temperature;
    options.seed = 1234;
    Sampler sampler(options);
    constexpr int kDraws = 200000;
    std::vector<double> counts(logits.size());
    for (int i = 0; i < kDraws; ++i) counts[static_cast<size_t>(sampler.sample(logits, {}))] += 1;
    double total = 0, chi2 = 0, pooled = 0, pooled_count = 0;
    for (const float logit : logits) total += std::exp(logit / temperature);
    int cells = 0;
    for (size_t i = 0; i < logits.size(); ++i) {
      const double expected = kDraws * std::exp(logits[i] / temperature) / total;
      if (expected < 10) {
        pooled += expected;
        pooled_count += counts[i];
        continue;
      }
      chi2 += (counts[i] - expected) * (counts[i] - expected) / expected;
      ++cells;
    }
    if (pooled > 0) chi2 += (pooled_count - pooled) * (pooled_count - pooled) / pooled;
    // Wilson-Hilferty: a chi-square with n degrees of freedom lies below n (1 - 2/9n + 3.09 sqrt(2/9n))^3
    // with p=.999
    const double n = cells;
    EXPECT_LT(chi2, n * std::pow(1 - 2 / (9 * n) + 3.09 * std::sqrt(2 / (9 * n)), 3)) << temperature;
    EXPECT_GT(chi2, n * std::pow(1 - 2 / (9 * n) - 3.09 * std::sqrt(2 / (9 * n)), 3)) << temperature;
  }
}

TEST(Sampling, GreedyTakesTheLowestIdAmongEqualsAndNeverNan) {
  SamplingOptions options;
  options.temperature = 0;
  Sampler sampler(options);
  EXPECT_EQ(sampler.sample(std::vector<float>{1, 7, 3, 7}, {}), 1);
  EXPECT_EQ(sampler.sample(std::vector<float>{kNan, -kInf, -5, kNan, -4}, {}), 4);
  EXPECT_EQ(sampler.sample(std::vector<float>{0, kInf, kInf}, {}), 1);
}

TEST(Sampling, TopKBreaksTiesByIdAndIgnoresNan) {
  SamplingOptions options = open_options();
  options.top_k = 3;
  EXPECT_EQ(drawn_set(options, {2, kNan, 2, 2, 2, -kInf, 2}), (std::vector<TokenId>{0, 2, 3}));
  EXPECT_EQ(drawn_set(options, {1, 2, kInf, 3}), (std::vector<TokenId>{2}));  // infinitely likely
  options.top_k = 100;
  EXPECT_EQ(drawn_set(options, {1, kNan, 1, -kInf}), (std::vector<TokenId>{0, 2}));
}

TEST(Sampling, TruncationsKeepWhatTheirDefinitionSays) {
  const std::vector<double> p{0.1, 0.4, 0.05, 0.3, 0.15};
  std::vector<float> logits;
  for (const double value : p) logits.push_back(static_cast<float>(std::log(value)));
  SamplingOptions options = open_options();
  options.top_p = 0.6;
  EXPECT_EQ(drawn_set(options, logits), (std::vector<TokenId>{1, 3}));
  options.top_p = 0.75;
  EXPECT_EQ(drawn_set(options, logits), (std::vector<TokenId>{1, 3, 4}));
  options = open_options();
  options.min_p = 0.3;
  EXPECT_EQ(drawn_set(options, logits), (std::vector<TokenId>{1, 3, 4}));
  // Entropy 1.39 nats; surprises 2.30 0.92 3.00 1.20 1.90: nearest is token 3, then 1, then 4.
  options = open_options();
  options.typical_p = 0.25;
  EXPECT_EQ(drawn_set(options, logits), (std::vector<TokenId>{3}));
  options.typical_p = 0.6;
  EXPECT_EQ(drawn_set(options, logits), (std::vector<TokenId>{1, 3}));
}

TEST(Sampling, SameSeedSameTokensOtherSeedOthers) {
  const auto logits = make_logits(1000, 5, 4.0);
  const auto run = [&](uint64_t seed) {
    SamplingOptions options;
    options.seed = seed;
    Sampler sampler(options);
    std::vector<TokenId> out;
    for (int i = 0; i < 50; ++i) out.push_back(sampler.sample(logits, {}));
    return out;
  };
  EXPECT_EQ(run(1), run(1));
  EXPECT_NE(run(1), run(2));
}

TEST(Sampling, BiasBansAndForcesTokens) {
  SamplingOptions options = open_options();
  options.logit_bias = {{1, -kInf}, {2, -kInf}};
  EXPECT_EQ(drawn_set(options, {0, 5, 5, 0}), (std::vector<TokenId>{0, 3}));
  options.logit_bias = {{0, kInf}};
  EXPECT_EQ(drawn_set(options, {0, 5, 5, 0}), (std::vector<TokenId>{0}));
}

ErrorCode code_of(const std::function<void()>& action, std::string* message = nullptr) {
  try {
    action();
  } catch (const Error& error) {
    if (message != nullptr) *message = error.what();
    return error.code();
  }
  ADD_FAILURE() << "no error was thrown";
  return ErrorCode::internal;
}

TEST(Sampling, NothingToChooseIsCorrupt) {
  for (const double temperature : {0.0, 1.0})
    for (const int top_k : {0, 1, 2}) {
      SamplingOptions options;
      options.temperature = temperature;
      options.top_k = top_k;
      Sampler sampler(options);
      EXPECT_EQ(code_of([&] {
                  sampler.sample(std::vector<float>{kNan, -kInf, kNan}, {});
                }),
                ErrorCode::corrupt);
      EXPECT_EQ(code_of([&] { sampler.sample({}, {}); }), ErrorCode::invalid_argument);
      // and the sampler still works afterwards
      EXPECT_EQ(sampler.sample(std::vector<float>{kNan, -kInf, 1}, {}), 2);
    }
}

TEST(Sampling, OptionsOutOfRangeAreNamed) {
  const auto field = [](auto member, auto value, const char* name) {
    SamplingOptions options;
    options.*member = value;
    std::string message;
    EXPECT_EQ(code_of([&] { Sampler{options}; }, &message), ErrorCode::invalid_argument) << name;
    EXPECT_EQ(message.find(name), 0u) << message;
  };
  using O = SamplingOptions;
  const double nan = std::nan("");
  for (const double bad : {-0.1, nan, static_cast<double>(kInf)}) field(&O::temperature, bad, "temperature");
  for (const double bad : {-0.1, 1.1, nan}) {
    field(&O::top_p, bad, "top_p");
    field(&O::min_p, bad, "min_p");
    field(&O::typical_p, bad, "typical_p");
  }
  field(&O::top_k, -1, "top_k");
  field(&O::repetition_penalty, 0.0, "repetition_penalty");
  field(&O::frequency_penalty, nan, "frequency_penalty");
  field(&O::presence_penalty, nan, "presence_penalty");
  field(&O::penalty_window, -2, "penalty_window");
  field(&O::logit_bias, std::vector<std::pair<TokenId, float>>{{-1, 0.0F}}, "logit_bias");
  field(&O::logit_bias, std::vector<std::pair<TokenId, float>>{{1, kNan}}, "logit_bias");
}

TEST(Sampling, IdsOutsideTheVocabularyAreRefused) {
  SamplingOptions options;
  options.logit_bias = {{4, 1.0F}};
  EXPECT_EQ(code_of([&] { Sampler(options).sample(std::vector<float>(4), {}); }),
            ErrorCode::invalid_argument);
  options.logit_bias.clear();
  options.presence_penalty = 1;
  for (const TokenId bad : {4, -1}) {
    Sampler sampler(options);
    const std::vector<TokenId> history{1, bad};
    EXPECT_EQ(code_of([&] { sampler.sample(std::vector<float>(4), history); }), ErrorCode::invalid_argument);
    EXPECT_LT(sampler.sample(std::vector<float>(4), std::vector<TokenId>{1}), 4);
  }
}

// The heap of top-k sees its worst order when logits rise, and large k and long tails must agree with a full
// sort.
TEST(Sampling, PartialSelectionEqualsAFullSort) {
  for (const size_t vocab : {100u, 4096u, 20011u}) {
    auto logits = make_logits(vocab, vocab, 10.0);
    for (size_t i = 0; i < vocab; i += 3) logits[i] = std::round(logits[i]);  // many ties
    for (const int order : {0, 1, 2}) {
      if (order == 1) std::sort(logits.begin(), logits.end());
      if (order == 2) std::sort(logits.rbegin(), logits.rend());
      for (const int k : {1, 7, 64, 3000}) {
        SamplingOptions options = open_options();
        options.top_k = k;
        options.temperature = 100;  // nearly uniform over the survivors
        std::vector<size_t> ids(vocab);
        for (size_t i = 0; i < vocab; ++i) ids[i] = i;
        std::stable_sort(ids.begin(), ids.end(), [&](size_t a, size_t b) { return logits[a] > logits[b]; });
        std::vector<bool> allowed(vocab);
        for (size_t i = 0; i < std::min(vocab, static_cast<size_t>(k)); ++i) allowed[ids[i]] = true;
        Sampler sampler(options);
        for (int draw = 0; draw < 300; ++draw)
          ASSERT_TRUE(allowed[static_cast<size_t>(sampler.sample(logits, {}))]);
      }
    }
  }
}

}  // namespace
}  // namespace mneme::sampling_test
