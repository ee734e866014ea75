// Perplexity through real sessions, against logits that the transformers package gave for the same checkpoint
// (see the golden.json beside it).
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "core/file.h"
#include "core/json.h"
#include "engine/session_sequence.h"
#include "eval/perplexity.h"
#include "scratch.h"

namespace mneme::perplexity_model_test {
namespace {

class PerplexityModelTest : public testing::TestWithParam<const char*> {
 protected:
  std::string folder = std::string(MNEME_TEST_DATA "/models/") + GetParam();
  std::shared_ptr<const Model> model = Model::load(folder);
};

TEST_P(PerplexityModelTest, EqualsTheReferenceLogits) {
  const Json golden = parse_json(read_text_file(folder + "/golden.json"), "golden.json");
  const auto ids = golden["ids"].get<std::vector<TokenId>>();
  const auto vocab = golden["shape"][1].get<size_t>();
  const std::string bytes = read_text_file(folder + "/golden.f32");
  std::vector<float> logits(bytes.size() / sizeof(float));
  std::memcpy(logits.data(), bytes.data(), bytes.size());
  ASSERT_EQ(logits.size(), ids.size() * vocab);
  double nll = 0;
  const size_t half = ids.size() / 2;
  for (size_t i = half; i < ids.size(); ++i) {
    const float* row = logits.data() + (i - 1) * vocab;
    double sum = 0;
    for (size_t j = 0; j < vocab; ++j) sum += std::exp(static_cast<double>(row[j]));
    nll += (std::log(sum) - row[static_cast<size_t>(ids[i])]) / static_cast<double>(ids.size() - half);
  }
  for (const uint32_t chunk : {3u, 512u}) {
    SessionOptions session;
    session.kv = KvType::f32;
    session.chunk = chunk;
    SessionRunner runner(model, session);
    PerplexityOptions options;
    options.ctx = static_cast<uint32_t>(ids.size());
    const auto result = perplexity(runner, stream_ids(ids, -1), options);
    EXPECT_EQ(result.tokens, ids.size() - half);
    EXPECT_NEAR(result.nll, nll, 2e-5) << "chunk " << chunk;
  }
}

TEST_P(PerplexityModelTest, FilesAreReadWindowByWindow) {
  if (!model->has_tokenizer()) GTEST_SKIP() << "this build reads no tokenizer from " << folder;
  std::string text;
  for (int i = 0; i < 200; ++i)
    text += "Line " + std::to_string(i) + " of a text that means nothing at all.\n";
  const ScratchFolder scratch;
  PerplexityOptions options;
  options.ctx = 32;
  options.max_tokens = 650;
  std::vector<uint64_t> seen;
  options.progress = [&](uint64_t tokens, uint64_t total, double) {
    if (tokens % 32 == 0 && (seen.empty() || seen.back() != tokens)) seen.push_back(tokens);
    EXPECT_EQ(total, 650u);
  };
  const auto result = perplexity(model, scratch.write("text", text), options);
  EXPECT_EQ(result.tokens, 320u);
  EXPECT_EQ(seen.size(), 20u);
  EXPECT_EQ(seen.back(), 640u);
  EXPECT_GT(result.standard_error, 0);
}

INSTANTIATE_TEST_SUITE_P(Models, PerplexityModelTest,
                         testing::Values("llama", "gemma3_pattern", "mistral", "qwen3"),
                         [](const auto& item) { return std::string(item.param); });

}  // namespace
}  // namespace mneme::perplexity_model_test
