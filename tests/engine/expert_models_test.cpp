// Mixtures of experts in the engine: decode and prefill, threads and batches, number formats, and what a
// router may do that it should not. Logits beside other implementations: golden_models_test and
// mixer_models_test.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <mutex>
#include <set>

#include "engine/session_impl.h"
#include "engine/tiny_models.h"
#include "files/safetensors.h"
#include "mneme/error.h"
#include "model/checkpoint.h"
#include "scratch.h"
#include "simd/blocks.h"

namespace mneme::expert_models_test {
namespace {

using ::testing::HasSubstr;

LoadOptions with_type(const char* type, int threads = 2) {
  LoadOptions options;
  options.type = type;
  options.threads = threads;
  return options;
}

// The kernels give equal bits for one row and for many, and sums go in one order: so do whole models.
TEST(ExpertModels, DecodeEqualsPrefillInEveryNumberFormat) {
  for (const char* name : {"qwen3_moe", "mixtral", "qwen2_moe"}) {
    const Golden golden = load_golden(name);
    std::vector<float> floats;
    for (const char* type : {"", "f32", "f16", "q8_0", "q4_0", "q4_1"}) {
      const auto model = load_tiny(name, with_type(type));
      const auto whole = logits_in_pieces(model, golden.ids, golden.ids.size());
      EXPECT_LE(relative_difference(whole, logits_in_pieces(model, golden.ids, 1)), 1e-6)
          << name << " " << type;
      EXPECT_LE(relative_difference(whole, logits_in_pieces(model, golden.ids, 7)), 1e-6)
          << name << " " << type;
      const bool quantized = type[0] == 'q';
      EXPECT_LE(relative_difference(golden.logits, whole), quantized ? 0.7 : 0.01) << name << " " << type;
      if (quantized) {
        EXPECT_GT(relative_difference(golden.logits, whole), 1e-4) << "nothing was rounded";
      }
    }
  }
}

TEST(ExpertModels, EveryActivationRunsInBothForms) {
  const Golden golden = load_golden("qwen3_moe");
  for (const char* activation : {"float", "int8", "spike", "spike:dead_zone=0.75", "auto:down=spike"}) {
    LoadOptions options = with_type("q8_0");
    options.activation = ActivationPolicy::parse(activation);
    const auto model = load_tiny("qwen3_moe", options);
    const auto whole = logits_in_pieces(model, golden.ids, golden.ids.size());
    EXPECT_LE(relative_difference(whole, logits_in_pieces(model, golden.ids, 1)), 1e-6) << activation;
    for (const float x : whole) ASSERT_TRUE(std::isfinite(x)) << activation;
  }
}

TEST(ExpertModels, ThreadsDoNotChangeABit) {
  const Golden golden = load_golden("dots1");
  for (const char* type : {"", "q8_0"}) {
    const auto one = load_tiny("dots1", with_type(type, 1));
    for (const int threads : {2, 3, 5}) {
      const auto more = load_tiny("dots1", with_type(type, threads));
      for (const size_t piece : {size_t{1}, golden.ids.size()})
        EXPECT_EQ(logits_in_pieces(one, golden.ids, piece), logits_in_pieces(more, golden.ids, piece))
            << type << ", " << threads << " threads, pieces of " << piece;
    }
  }
}

/// Counts what it is shown, by layer and position.
class SeenRoutes final : public RouteObserver {
 public:
  void see(size_t layer, int, int64_t position, std::span<const Route> routes,
           std::span<const float> scores) override {
    const std::lock_guard lock(mutex);
    EXPECT_TRUE(seen.insert({layer, position}).second) << "twice";
    places = routes.size();
    choices = scores.size();
    for (const Route& route : routes) {
      experts.insert(route.expert);
      if (layer == 0) first_layer.insert(route.expert);
    }
  }
  std::mutex mutex;
  std::set<std::pair<size_t, int64_t>> seen;
  std::set<int32_t> experts, first_layer;
  size_t places = 0, choices = 0;
};

TEST(ExpertModels, AnObserverSeesEveryTokenOnceALayer) {
  const auto model = load_tiny("qwen2_moe");  // layer 1 is dense
  for (const size_t piece : {size_t{1}, size_t{20}}) {
    SeenRoutes routes;
    Session session(model);
    session.impl().routes = &routes;
    const std::vector<TokenId> ids{5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24};
    for (size_t at = 0; at < ids.size(); at += piece) session.append(std::span(ids).subspan(at, piece));
    EXPECT_EQ(routes.seen.size(), 40u);
    EXPECT_TRUE(routes.seen.contains({0, 0}) && routes.seen.contains({2, 19}));
    EXPECT_EQ(routes.places, 2u);
    EXPECT_EQ(routes.choices, 5u);
    EXPECT_GE(routes.experts.size(), 3u);
  }
}

class ThrowingObserver final : public RouteObserver {
 public:
  void see(size_t, int, int64_t position, std::span<const Route>, std::span<const float>) override {
    if (position == 3) throw Error(ErrorCode::cancelled, "seen enough");
  }
};

TEST(ExpertModels, WhatAnObserverThrowsEndsThePass) {
  const auto model = load_tiny("mixtral");
  const std::vector<TokenId> ids{5, 6, 7, 8, 9};
  ThrowingObserver thrower;
  Session session(model);
  session.impl().routes = &thrower;
  EXPECT_THROW(session.append(ids), Error);
  for (size_t i = 0; i < 3; ++i) session.append(std::span(ids).subspan(i, 1));
  EXPECT_THROW(session.append(std::span(ids).subspan(3, 1)), Error);
  EXPECT_EQ(session.position(), 3u);
  session.impl().routes = nullptr;
  EXPECT_NO_THROW(session.append(std::span(ids).subspan(3, 1)));
}

/// Makes a copy of a tiny model with every value of the router of layer 0 replaced; its folder.
std::string with_router(const ScratchFolder& folder, const std::string& name, float value) {
  fs::copy_file(tiny_model_path(name) + "/config.json", folder / "config.json");
  const Checkpoint model = open_checkpoint(tiny_model_path(name));
  std::vector<SafetensorToWrite> tensors;
  for (const TensorInfo& tensor : model.tensors().tensors()) {
    const bool router = tensor.name == "model.layers.0.mlp.gate.weight";
    tensors.push_back({tensor, [&model, &tensor, router, value](AtomicFile& file) {
                         if (!router) return file.write(model.tensors().data(tensor));
                         std::vector<std::byte> bytes(tensor.bytes);
                         const std::vector<float> row(tensor.shape[1], value);
                         for (uint64_t r = 0; r < tensor.shape[0]; ++r)
                           quantize_row(tensor.type, row.data(),
                                        bytes.data() + r * (tensor.bytes / tensor.shape[0]), row.size());
                         file.write(bytes);
                       }});
  }
  write_safetensors(folder / "model.safetensors", tensors, {{"format", "pt"}});
  return folder.path().string();
}

TEST(ExpertModels, ARouterThatIsNotFiniteIsNamed) {
  const ScratchFolder folder;
  const auto model = Model::load(with_router(folder, "qwen3_moe", 3e38f), with_type("", 2));
  const std::vector<TokenId> ids{5, 6, 7, 8};
  for (const size_t piece : {size_t{1}, size_t{4}}) {
    Session session(model);
    try {
      session.append(std::span(ids).first(piece));
      FAIL() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::corrupt);
      EXPECT_THAT(error.what(), HasSubstr("layer 0: the router's score of expert 0 is "));
    }
  }
}

TEST(ExpertModels, AllTokensMayChooseTheSameExperts) {
  const ScratchFolder folder;
  const auto model =
      Model::load(with_router(folder, "qwen3_moe", 0.0f), with_type("", 2));  // all scores are equal
  const Golden golden = load_golden("qwen3_moe");
  const auto whole = logits_in_pieces(model, golden.ids, golden.ids.size());
  EXPECT_LE(relative_difference(whole, logits_in_pieces(model, golden.ids, 1)), 1e-6);
  SeenRoutes routes;
  Session session(model);
  session.impl().routes = &routes;
  session.append(golden.ids);
  EXPECT_EQ(routes.first_layer, (std::set<int32_t>{0, 1, 2}));  // ties go to the lowest index
}

TEST(ExpertModels, BytesOfATokenAreThoseOfTheChosenExperts) {
  const auto model = load_tiny("qwen3_moe");
  uint64_t experts = 0, others = 0;
  for (const TensorDescription& tensor : model->tensors()) {
    if (tensor.layout == "f32 vector") continue;
    (tensor.name.find("_exps") != std::string::npos ? experts : others) += tensor.bytes;
  }
  EXPECT_EQ(model->tensors().size(),
            1u + 2 * (2 + 2 + 4 + 1 + 3) + 1);     // the experts of a layer are three lines
  const uint64_t padding = 2 * (16 - 6) * 32 * 2;  // the routers' 6 rows of bf16 are held in tiles of 16
  EXPECT_EQ(model->bytes_per_token(), others + padding + experts * 3 / 6);
  EXPECT_THAT(model->describe_plan(false), HasSubstr("3 of 6 experts"));
  EXPECT_THAT(model->describe_plan(true), HasSubstr("sort by expert"));
}

}  // namespace
}  // namespace mneme::expert_models_test
