// The engine beside an independent implementation: the tiny checkpoints of tests/data/models, one folder a
// family, with logits that transformers computed in float32 (tools/make_golden_models.py), and GGUF versions
// of some of them (tools/make_golden_gguf.py). Together they fix every convention of the importers: names,
// RoPE and its scalings, windows, QK-norm, biases, head sizes, tied heads, shards, storage types.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <ostream>
#include <string>
#include <vector>

#include "mneme/session.h"

namespace mneme::golden_models_test {
namespace {

struct Golden {
  std::vector<TokenId> ids;
  size_t vocab = 0;
  std::vector<float> logits;  // [ids, vocab]
};

Golden read_golden(const std::string& folder) {
  std::ifstream description(folder + "/golden.json");
  const auto json = nlohmann::json::parse(description);
  Golden golden;
  golden.ids = json.at("ids").get<std::vector<TokenId>>();
  golden.vocab = json.at("shape").at(1).get<size_t>();
  golden.logits.resize(golden.ids.size() * golden.vocab);
  std::ifstream binary(folder + "/" + json.at("logits").get<std::string>(), std::ios::binary);
  binary.read(reinterpret_cast<char*>(golden.logits.data()),
              static_cast<std::streamsize>(golden.logits.size() * sizeof(float)));
  if (!binary) throw std::runtime_error(folder + ": golden.f32 is shorter than golden.json says");
  return golden;
}

// Logits of every position when the ids are appended in pieces of `piece`.
std::vector<float> engine_logits(const std::shared_ptr<const Model>& model, const Golden& golden,
                                 size_t piece) {
  SessionOptions options;
  options.kv = KvType::f32;
  options.chunk = static_cast<uint32_t>(piece);
  Session session(model, options);
  AppendOptions all;
  all.all_logits = true;
  std::vector<float> logits;
  for (size_t first = 0; first < golden.ids.size(); first += piece) {
    const size_t count = std::min(piece, golden.ids.size() - first);
    const auto part = session.append(std::span(golden.ids).subspan(first, count), all);
    logits.insert(logits.end(), part.begin(), part.end());
  }
  return logits;
}

double max_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double most = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!std::isfinite(a[i])) return std::numeric_limits<double>::infinity();
    most = std::max(most, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  }
  return most;
}

struct Case {
  std::string model;   // folder or file under tests/data/models
  std::string golden;  // folder of the golden logits
};

std::ostream& operator<<(std::ostream& out, const Case& item) {
  return out << item.model;
}

class GoldenModels : public testing::TestWithParam<Case> {};

TEST_P(GoldenModels, LogitsEqualTransformersForEveryChunkSize) {
  const std::string root = std::string(MNEME_TEST_DATA) + "/models/";
  const Golden golden = read_golden(root + GetParam().golden);
  LoadOptions options;
  options.threads = 2;
  options.activation = Activation::float_;
  const auto model = Model::load(root + GetParam().model, options);
  ASSERT_EQ(model->config().vocab, golden.vocab);
  for (const size_t piece : {size_t{1}, size_t{7}, golden.ids.size()}) {
    const auto logits = engine_logits(model, golden, piece);
    ASSERT_EQ(logits.size(), golden.logits.size());
    EXPECT_LE(max_difference(logits, golden.logits), 1e-4) << "in pieces of " << piece;
  }
}

std::string test_name(const testing::TestParamInfo<Case>& info) {
  std::string name = info.param.model;
  std::replace(name.begin(), name.end(), '.', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Folders, GoldenModels,
                         testing::Values(Case{"llama", "llama"}, Case{"llama3", "llama3"},
                                         Case{"llama_linear", "llama_linear"},
                                         Case{"llama_yarn", "llama_yarn"}, Case{"qwen2", "qwen2"},
                                         Case{"qwen3", "qwen3"}, Case{"mistral", "mistral"},
                                         Case{"gemma3", "gemma3"}, Case{"gemma3_pattern", "gemma3_pattern"}),
                         test_name);

// Mixtures of experts: routers with softmax and sigmoid, shared experts, groups, dense layers between.
INSTANTIATE_TEST_SUITE_P(Experts, GoldenModels,
                         testing::Values(Case{"mixtral", "mixtral"}, Case{"qwen2_moe", "qwen2_moe"},
                                         Case{"qwen3_moe", "qwen3_moe"}, Case{"olmoe", "olmoe"},
                                         Case{"granitemoe", "granitemoe"},
                                         Case{"granitemoeshared", "granitemoeshared"},
                                         Case{"dots1", "dots1"}),
                         test_name);

// SpikingBrain's architecture at reduced width, beside tools/spikingbrain_reference.py in float64:
// safetensors, and the same weights in torch shards. W8ASpike: w8aspike_test.cpp.
INSTANTIATE_TEST_SUITE_P(GlaSwa, GoldenModels,
                         testing::Values(Case{"spikingbrain", "spikingbrain"},
                                         Case{"spikingbrain_bin", "spikingbrain"}),
                         test_name);

INSTANTIATE_TEST_SUITE_P(Gguf, GoldenModels,
                         testing::Values(Case{"llama.gguf", "llama"}, Case{"qwen3.gguf", "qwen3"},
                                         Case{"gemma3_pattern.gguf", "gemma3_pattern"},
                                         Case{"llama_q8_0.gguf", "llama_q8_0"}),
                         test_name);

// The golden logits would notice a missing part: a model of another family with the same shapes is far away.
TEST(GoldenModelsApart, AnotherModelIsFarAway) {
  const std::string root = std::string(MNEME_TEST_DATA) + "/models/";
  const Golden golden = read_golden(root + "llama_linear");
  const auto model = Model::load(root + "llama_yarn");
  EXPECT_GT(max_difference(engine_logits(model, golden, golden.ids.size()), golden.logits), 0.1);
}

// int8 activations are the default of quantized weights; rounding both sides keeps the logits near the float
// answer.
TEST(GoldenModelsApart, Int8ActivationsStayNear) {
  const std::string root = std::string(MNEME_TEST_DATA) + "/models/";
  const Golden golden = read_golden(root + "llama_q8_0");
  const auto model = Model::load(root + "llama_q8_0.gguf");
  const auto logits = engine_logits(model, golden, golden.ids.size());
  EXPECT_LE(max_difference(logits, golden.logits), 0.8);  // llama.cpp differs by 0.38 on this file
}

}  // namespace
}  // namespace mneme::golden_models_test
