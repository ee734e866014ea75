// Engine and generate() on real sessions: tiny random checkpoints with full, windowed and quantized layers.
#include "mneme/engine.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/random.h"
#include "mneme/error.h"

namespace mneme::engine_test {
namespace {

std::shared_ptr<const Model> load(const std::string& name) {
  LoadOptions options;
  options.threads = 2;
  return Model::load(MNEME_TEST_DATA "/models/" + name, options);
}

GenerateRequest random_request(Pcg64& random, uint64_t vocab) {
  GenerateRequest request;
  request.prompt.resize(1 + random.below(50));
  for (auto& id : request.prompt) id = static_cast<TokenId>(random.below(vocab));
  request.max_tokens = static_cast<uint32_t>(1 + random.below(20));
  request.sampling.seed = random.next();
  request.sampling.temperature = 1.0;
  return request;
}

class EngineTest : public testing::TestWithParam<const char*> {};

TEST_P(EngineTest, BatchedRequestsEqualGenerateOneByOne) {
  const auto model = load(GetParam());
  EngineOptions options;
  options.max_batch = 4;
  options.session.chunk = 16;
  Engine engine(model, options);
  Pcg64 random(8);
  std::vector<GenerateRequest> requests(20);
  std::vector<std::future<GenerateResult>> futures;
  for (auto& request : requests) {
    request = random_request(random, model->config().vocab);
    futures.push_back(engine.submit(request));
  }
  for (size_t i = 0; i < requests.size(); ++i) {
    Session session(model, options.session);
    const auto expected = generate(session, requests[i]);
    const auto got = futures[i].get();
    EXPECT_EQ(got.tokens, expected.tokens) << i;
    EXPECT_EQ(got.text, expected.text) << i;
    EXPECT_EQ(got.stop, expected.stop) << i;
    EXPECT_EQ(session.tokens().size() + 1, requests[i].prompt.size() + expected.tokens.size());
  }
}

TEST_P(EngineTest, ErrorsOfOneRequestLeaveTheOthers) {
  const auto model = load(GetParam());
  Engine engine(model);
  Pcg64 random(9);
  const auto good = random_request(random, model->config().vocab);
  auto bad_id = good, too_long = good, bad_options = good;
  bad_id.prompt.push_back(static_cast<TokenId>(model->config().vocab));
  too_long.prompt.assign(model->config().context + 1, 1);
  bad_options.sampling.min_p = -1;
  auto first = engine.submit(good);
  auto b = engine.submit(bad_id), c = engine.submit(too_long), d = engine.submit(bad_options);
  auto last = engine.submit(good);
  const auto code = [](std::future<GenerateResult>& future) {
    try {
      future.get();
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode::internal;
  };
  EXPECT_EQ(code(b), ErrorCode::invalid_argument);
  EXPECT_EQ(code(c), ErrorCode::limit);
  EXPECT_EQ(code(d), ErrorCode::invalid_argument);
  EXPECT_EQ(first.get().tokens, last.get().tokens);
}

INSTANTIATE_TEST_SUITE_P(Models, EngineTest, testing::Values("llama", "gemma3_pattern", "llama_q8_0.gguf"),
                         [](const auto& item) {
                           std::string name = item.param;
                           std::replace(name.begin(), name.end(), '.', '_');
                           return name;
                         });

TEST(Engine, NeedsAModelAndABatch) {
  EXPECT_THROW(Engine(nullptr), Error);
  EngineOptions options;
  options.max_batch = 0;
  EXPECT_THROW(Engine(load("llama"), options), Error);
}

}  // namespace
}  // namespace mneme::engine_test
