#include "memory/engram_module.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "files/safetensors.h"
#include "mneme/error.h"

namespace mneme::engram_module_test {
namespace {

using SignOfZero = EngramModuleConfig::SignOfZero;

// A module and what tools/engram_module_reference.py computed for it.
struct Case {
  std::string name;
  int64_t branches = 1;
  EngramModuleConfig config;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const int64_t branches : {1, 4})
    for (const bool root : {false, true})
      for (const auto sign : {SignOfZero::zero, SignOfZero::copysign})
        for (const bool bias : {false, true})
          for (const char* conv : {"none", "4x3", "3x2"})
            for (const int offset : {0, 1}) {
              EngramModuleConfig config;
              config.signed_sqrt = root;
              config.sign0 = sign;
              config.bias = bias;
              config.norm_offset = offset;
              if (conv[0] == '4') config.conv = EngramConvConfig{4, 3, 1e-5};
              if (conv[0] == '3') config.conv = EngramConvConfig{3, 2, 1e-5};
              all.push_back({fmt::format("m{}.root{:d}.{}.bias{:d}.conv{}.offset{}", branches, root,
                                         sign == SignOfZero::zero ? "zero" : "copysign", bias, conv, offset),
                             branches, config});
            }
  return all;
}

class EngramModuleGolden : public testing::Test {
 protected:
  static constexpr int64_t kTokens = 12, kDim = 10, kRowDim = 24;

  template <class T = float>
  std::vector<T> tensor(const std::string& name) const {
    const TensorInfo* info = file_->find(name);
    if (info == nullptr) throw std::runtime_error("no tensor " + name);
    std::vector<T> values(info->values());
    const Bytes data = file_->data(*info);
    if (data.size() != values.size() * sizeof(T)) throw std::runtime_error("another type: " + name);
    std::memcpy(values.data(), data.data(), data.size());
    return values;
  }

  // Tensors of a case, alive as long as this is.
  struct Tensors {
    std::vector<float> e, h, kv_proj, kv_bias, key_norm, query_norm, conv_norm, conv;
    EngramModuleWeights weights;
  };
  Tensors tensors_of(const Case& c) const {
    const auto named = [&](const char* name) { return tensor(fmt::format("m{}.{}", c.branches, name)); };
    Tensors t{named("e"), named("h"), named("kv_proj"), {}, named("key_norm"), named("query_norm"), {},
              {},         {}};
    if (c.config.bias) t.kv_bias = named("kv_bias");
    if (c.config.conv) {
      t.conv_norm = named("conv_norm");
      const auto all = named("conv");  // [channels, 4]; a shorter kernel is its last taps
      const auto width = static_cast<ptrdiff_t>(c.config.conv->kernel);
      for (auto it = all.begin(); it != all.end(); it += 4)
        t.conv.insert(t.conv.end(), it + 4 - width, it + 4);
    }
    t.weights = {kDim,       kRowDim,      c.branches,  t.kv_proj, t.kv_bias,
                 t.key_norm, t.query_norm, t.conv_norm, t.conv};
    return t;
  }

  static std::vector<float> run(const EngramModule& module, const Tensors& t, int64_t branches,
                                int64_t chunk) {
    std::vector<float> h = t.h;
    EngramConvState state = module.state();
    forward(module, t, branches, h, 0, kTokens, chunk, state);
    return h;
  }
  static void forward(const EngramModule& module, const Tensors& t, int64_t branches, std::vector<float>& h,
                      int64_t begin, int64_t end, int64_t chunk, EngramConvState& state) {
    const auto width = static_cast<size_t>(branches * kDim);
    for (int64_t at = begin; at < end; at += chunk) {
      const auto first = static_cast<size_t>(at), n = static_cast<size_t>(std::min(chunk, end - at));
      module.forward(std::span(t.e).subspan(first * kRowDim, n * kRowDim),
                     std::span(h).subspan(first * width, n * width), state);
    }
  }

  std::unique_ptr<TensorSource> file_ = open_safetensors(MNEME_TEST_DATA "/engram_module/golden.safetensors");
};

TEST_F(EngramModuleGolden, EveryCombinationEqualsTheReference) {
  double worst = 0;
  for (const Case& c : cases()) {
    const Tensors t = tensors_of(c);
    const auto expected = tensor<double>(c.name);
    const auto h = run(EngramModule(c.config, t.weights), t, c.branches, kTokens);
    ASSERT_EQ(h.size(), expected.size());
    double peak = 0, error = 0;
    for (size_t i = 0; i < h.size(); ++i) {
      peak = std::max(peak, std::abs(expected[i]));
      error = std::max(error, std::abs(h[i] - expected[i]));
      ASSERT_NEAR(h[i], expected[i], 1e-5 * std::abs(expected[i]) + 1e-6) << c.name << " value " << i;
    }
    worst = std::max(worst, error / peak);
  }
  EXPECT_LE(worst, 1e-6) << "of the largest value";
}

TEST_F(EngramModuleGolden, ChunksGiveTheSameBits) {
  for (const Case& c : cases()) {
    const Tensors t = tensors_of(c);
    const EngramModule module(c.config, t.weights);
    const auto whole = run(module, t, c.branches, kTokens);
    for (const int64_t chunk : {1, 2, 7}) ASSERT_EQ(run(module, t, c.branches, chunk), whole) << c.name;
  }
}

TEST_F(EngramModuleGolden, ForkAndRollbackGiveTheSameBits) {
  for (const Case& c : cases()) {
    const Tensors t = tensors_of(c);
    const EngramModule module(c.config, t.weights);
    const auto whole = run(module, t, c.branches, kTokens);
    std::vector<float> h = t.h;
    EngramConvState state = module.state(5);
    forward(module, t, c.branches, h, 0, 4, 4, state);
    EngramConvState fork = state;
    // Other tokens, which are then taken back.
    std::vector<float> other = t.h;
    EngramConvState wrong = state;
    std::vector<float> elsewhere(5 * kRowDim, 0.25f);
    module.forward(elsewhere, std::span(other).first(static_cast<size_t>(5 * c.branches * kDim)), wrong);
    wrong.rollback(5);
    std::vector<float> again = h;
    forward(module, t, c.branches, again, 4, kTokens, 3, wrong);
    ASSERT_EQ(again, whole) << c.name;
    forward(module, t, c.branches, h, 4, kTokens, 8, fork);
    ASSERT_EQ(h, whole) << c.name;
  }
}

TEST_F(EngramModuleGolden, ZeroValueProjectionChangesNothing) {
  for (const Case& c : cases()) {
    if (c.config.bias) continue;
    Tensors t = tensors_of(c);
    std::fill(t.kv_proj.end() - kDim * kRowDim, t.kv_proj.end(), 0.0f);
    t.weights.kv_proj = t.kv_proj;
    ASSERT_EQ(run(EngramModule(c.config, t.weights), t, c.branches, 5), t.h) << c.name;
  }
}

TEST_F(EngramModuleGolden, WrongSizesAreErrors) {
  Case c = cases().back();
  ASSERT_TRUE(c.config.bias && c.config.conv);
  const Tensors t = tensors_of(c);
  const auto refused = [&](auto change, const char* name) {
    EngramModuleWeights weights = t.weights;
    change(weights);
    EXPECT_THAT([&] { EngramModule(c.config, weights); },
                testing::ThrowsMessage<Error>(testing::HasSubstr(name)));
  };
  refused([](auto& w) { w.d = 0; }, "channels");
  refused([](auto& w) { w.d = 11; }, "kv_proj");
  refused([](auto& w) { w.embedding_dim = INT64_MAX; }, "kv_proj");
  refused([](auto& w) { w.kv_bias = {}; }, "kv_bias");
  refused([](auto& w) { w.key_norm = w.key_norm.first(1); }, "key_norm");
  refused([](auto& w) { w.query_norm = {}; }, "query_norm");
  refused([](auto& w) { w.conv_norm = {}; }, "conv_norm");
  refused([](auto& w) { w.conv = w.conv.first(9); }, "conv");

  const EngramModule module(c.config, t.weights);
  EngramConvState state = module.state();
  std::vector<float> h = t.h;
  EXPECT_THROW(module.forward(std::span(t.e).first(kRowDim + 1), h, state), Error);
  EXPECT_THROW(module.forward(std::span(t.e).first(kRowDim), h, state), Error);
  EXPECT_EQ(h, t.h);
  EXPECT_EQ(state.position(), 0);
}

TEST(EngramConvState, HoldsWhatTheConvolutionCanReach) {
  EngramConvState state({4, 3, 1e-5}, 1, 2);
  EXPECT_EQ(state.bytes(), (9 + 1 + 2) * sizeof(float));
  std::vector<const float*> taps(4);
  for (int position = 0; position < 40; ++position) {
    *state.row() = static_cast<float>(position);
    state.taps(taps);
    for (int j = 0; j < 4; ++j) {
      const int source = position - (3 - j) * 3;
      ASSERT_EQ(taps[static_cast<size_t>(j)] == nullptr, source < 0) << position;
      if (source >= 0) {
        ASSERT_EQ(*taps[static_cast<size_t>(j)], static_cast<float>(source)) << position;
      }
    }
    state.advance();
    if (position % 5 == 4 && position < 35) {  // take two back and write them anew
      state.rollback(2);
      *state.row() = static_cast<float>(position - 1);
      state.advance();
      *state.row() = static_cast<float>(position);
      state.advance();
    }
  }
  EXPECT_THROW(state.rollback(3), Error);
  EXPECT_THROW(state.rollback(-1), Error);
  EXPECT_THROW(EngramConvState({0, 3, 1e-5}, 4), Error);
  EXPECT_THROW(EngramConvState({4, 0, 1e-5}, 4), Error);
  EXPECT_THROW(EngramConvState({UINT32_MAX, UINT32_MAX, 1e-5}, INT64_MAX), Error);
}

}  // namespace
}  // namespace mneme::engram_module_test
