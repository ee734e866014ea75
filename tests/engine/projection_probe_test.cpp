// Probes: what they show is what the projections of a small model read, and looking changes nothing.
#include "model/projection_probe.h"

#include <gtest/gtest.h>

#include <cmath>
#include <mutex>

#include "engine/session_impl.h"
#include "mneme/error.h"

namespace mneme::projection_probe_test {
namespace {

/// Keeps every input: [site][position].
class Recorder final : public ProjectionObserver {
 public:
  void see(size_t site, int, int64_t position, std::span<const float> x) override {
    const std::lock_guard lock(mutex_);
    auto& seen = inputs[site][position];
    EXPECT_TRUE(seen.empty()) << "site " << site << " was shown twice at " << position;
    seen.assign(x.begin(), x.end());
  }
  std::map<size_t, std::map<int64_t, std::vector<float>>> inputs;

 private:
  std::mutex mutex_;
};

const std::vector<TokenId> kIds{5, 17, 20, 3, 41, 42, 43, 7, 59, 12, 1, 63};

std::shared_ptr<const Model> load(const std::string& name, Activation activation) {
  LoadOptions options;
  options.threads = 2;
  options.activation = activation;
  return Model::load(MNEME_TEST_DATA "/" + name, options);
}

std::vector<float> read(const std::shared_ptr<const Model>& model, ProjectionObserver* observer,
                        bool at_once) {
  Session session(model);
  session.impl().observer = observer;
  std::vector<float> logits;
  const auto keep = [&](std::span<const float> row) { logits.insert(logits.end(), row.begin(), row.end()); };
  if (at_once) {
    AppendOptions all;
    all.all_logits = true;
    keep(session.append(kIds, all));
  } else
    for (const TokenId id : kIds) keep(session.append({&id, 1}));
  return logits;
}

std::vector<float> product(const Linear& linear, const std::vector<float>& x) {
  std::vector<float> y, row(x.size());
  for (int64_t r = 0; r < linear.w.rows; ++r) {
    unpack_row(linear.w, r, 0, linear.w.cols, row.data());
    double sum = linear.bias.empty() ? 0 : linear.bias[static_cast<size_t>(r)];
    for (size_t c = 0; c < x.size(); ++c) sum += static_cast<double>(row[c]) * x[c];
    y.push_back(static_cast<float>(sum));
  }
  return y;
}

std::vector<float> normed(const std::vector<float>& x, const std::vector<float>& weight, double eps) {
  double squares = 0;
  for (const float value : x) squares += static_cast<double>(value) * value;
  std::vector<float> y;
  for (size_t i = 0; i < x.size(); ++i)
    y.push_back(
        static_cast<float>(x[i] / std::sqrt(squares / static_cast<double>(x.size()) + eps) * weight[i]));
  return y;
}

void expect_near(const std::vector<float>& a, const std::vector<float>& b, const std::string& what) {
  ASSERT_EQ(a.size(), b.size()) << what;
  double size = 0;
  for (const float value : b) size = std::max(size, std::fabs(static_cast<double>(value)));
  for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 2e-5 * (size + 1e-3)) << what << " at " << i;
}

class ProjectionProbeTest : public testing::TestWithParam<const char*> {
 protected:
  std::shared_ptr<const Model> model = load(GetParam(), Activation::float_);
};

TEST_P(ProjectionProbeTest, LookingChangesNothing) {
  Recorder recorder;
  for (const bool at_once : {true, false}) {
    recorder.inputs.clear();
    EXPECT_EQ(read(model, &recorder, at_once), read(model, nullptr, at_once));
  }
}

TEST_P(ProjectionProbeTest, EverySiteIsSeenOnceForEveryToken) {
  const std::vector<ProbeSite> sites = probe_sites(model->impl());
  Recorder chunk, tokens;
  read(model, &chunk, true);
  read(model, &tokens, false);
  ASSERT_EQ(chunk.inputs.size(), sites.size());
  ASSERT_EQ(tokens.inputs.size(), sites.size());
  const int64_t first = model->config().sink_tokens;
  for (size_t s = 0; s < sites.size(); ++s) {
    ASSERT_EQ(chunk.inputs[s].size(), kIds.size());
    for (int64_t t = first; t < first + std::ssize(kIds); ++t) {
      const auto& x = chunk.inputs[s].at(t);
      ASSERT_EQ(std::ssize(x), sites[s].width);
      expect_near(tokens.inputs[s].at(t), x,
                  fmt::format("layer {} {} token {}", sites[s].layer, sites[s].readers[0].name, t));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, ProjectionProbeTest,
                         testing::Values("models/llama", "models/gemma3", "models/qwen3",
                                         "models/spikingbrain", "mixers/parallel", "mixers/gla_low_rank",
                                         "mixers/delta", "mixers/sinks_hybrid", "mixers/sparse"),
                         [](const auto& item) {
                           std::string name = item.param;
                           std::replace(name.begin(), name.end(), '/', '_');
                           return name;
                         });

// The first layer of a Llama, computed again from the weights.
TEST(ProjectionProbe, InputsOfTheFirstLayer) {
  const auto model = load("models/llama", Activation::float_);
  const ModelImpl& impl = model->impl();
  const std::vector<ProbeSite> sites = probe_sites(impl);
  ASSERT_EQ(sites[0].readers.size(), 3u);
  EXPECT_EQ(sites[0].readers[2].name, "v");
  EXPECT_EQ(sites[1].readers[0].name, "o");
  EXPECT_EQ(sites[2].readers[1].name, "up");
  EXPECT_EQ(sites[3].readers[0].name, "down");
  Recorder recorder;
  read(model, &recorder, true);
  const LayerWeights& layer = impl.layers[0];
  const double eps = model->config().norm.eps;
  for (size_t t = 0; t < kIds.size(); ++t) {
    const auto at = static_cast<int64_t>(t);
    std::vector<float> x(model->config().d_model);
    unpack_row(impl.embedding, kIds[t], 0, std::ssize(x), x.data());
    expect_near(recorder.inputs[0].at(at), normed(x, layer.attn_norm, eps), "mixer");
    const std::vector<float> o = product(layer.mixers[0].o, recorder.inputs[1].at(at));
    for (size_t i = 0; i < x.size(); ++i) x[i] += o[i];
    expect_near(recorder.inputs[2].at(at), normed(x, layer.ffn_norm, eps), "ffn");
    std::vector<float> hidden = product(layer.gate, recorder.inputs[2].at(at));
    const std::vector<float> up = product(layer.up, recorder.inputs[2].at(at));
    for (size_t i = 0; i < hidden.size(); ++i) hidden[i] = hidden[i] / (1 + std::exp(-hidden[i])) * up[i];
    expect_near(recorder.inputs[3].at(at), hidden, "hidden");
  }
}

class Thrower final : public ProjectionObserver {
 public:
  void see(size_t site, int, int64_t position, std::span<const float>) override {
    if (site == 2 && position == 3) throw Error(ErrorCode::corrupt, "seen enough");
  }
};

TEST(ProjectionProbe, WhatAnObserverThrowsComesOut) {
  const auto model = load("models/llama", Activation::automatic);
  Session session(model);
  Thrower thrower;
  session.impl().observer = &thrower;
  EXPECT_THROW(session.append(kIds), Error);
  EXPECT_EQ(session.position(), 0u);
  session.impl().observer = nullptr;
  const auto logits = session.append(kIds);
  Session fresh(model);
  const auto expected = fresh.append(kIds);
  EXPECT_EQ(std::vector<float>(logits.begin(), logits.end()),
            std::vector<float>(expected.begin(), expected.end()));
}

TEST(ProjectionProbe, OnlyTheWatchedSequenceOfABatchIsShown) {
  const auto model = load("models/llama", Activation::automatic);
  Session watched(model), other(model);
  Recorder recorder;
  watched.impl().observer = &recorder;
  const std::vector<TokenId> ids{5, 9};
  Session* const sessions[] = {&other, &watched};
  Session::append_batch(sessions, ids);
  Session alone(model);
  Recorder single;
  alone.impl().observer = &single;
  alone.append({&ids[1], 1});
  EXPECT_EQ(recorder.inputs, single.inputs);
}

}  // namespace
}  // namespace mneme::projection_probe_test
