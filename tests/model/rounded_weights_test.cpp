// The rounded weights of W8ASpike, from tensors in memory: which are rounded, to what, and what is refused.
#include "model/rounded_weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "model/fake_tensors.h"
#include "model/gla_swa.h"

namespace mneme::rounded_weights_test {
namespace {

using ::testing::HasSubstr;
using testing_fakes::error_of;
using testing_fakes::FakeTensors;

constexpr const char* kQWeight = "model.layers.0.attn.q_proj.weight";
constexpr const char* kQScales = "model.layers.0.attn.q_proj.weight_quantizer.scales";
constexpr const char* kDownWeight = "model.layers.0.mlp.down_proj.weight";
constexpr const char* kDownScales = "model.layers.0.mlp.down_proj.weight_quantizer.scales";

std::vector<float> ramp_of(size_t n, float step) {
  std::vector<float> out(n);
  for (size_t i = 0; i < n; ++i) out[i] = step * (static_cast<float>(i) - static_cast<float>(n) / 3);
  return out;
}

/// Two rows of two groups each.
FakeTensors small_checkpoint() {
  FakeTensors tensors;
  tensors.add("model.embeddings.weight", {1, 4}, {0.3f, 1.7f, -2.2f, 9.9f});
  tensors.add(kQWeight, {2, 256}, ramp_of(512, 0.37f));
  tensors.add(kQScales, {2, 2, 1}, {1.0f, 0.5f, 2.0f, 0.125f});
  tensors.add(kDownWeight, {1, 128}, ramp_of(128, 0.37f));
  tensors.add(kDownScales, {1, 1, 1}, {1.0f});
  return tensors;
}

std::vector<float> rounded_values(const RoundedWeights& source, const char* name) {
  const TensorInfo& info = *source.find(name);
  EXPECT_EQ(info.type, DType::f32);
  const Bytes bytes = source.data(info);
  const auto* begin = reinterpret_cast<const float*>(bytes.data());
  std::vector<float> out(begin, begin + bytes.size() / sizeof(float));
  source.release(info);
  return out;
}

Error refused_scales(const FakeTensors& tensors) {
  return error_of([&] {
    const RoundedWeights source(std::make_unique<FakeTensors>(tensors));
    source.data(*source.find(kQWeight));
  });
}

TEST(RoundedWeights, ScalesHoldForGroupsOf128Inputs) {
  const RoundedWeights source(std::make_unique<FakeTensors>(small_checkpoint()));
  const float scales[] = {1.0f, 0.5f, 2.0f, 0.125f};
  const std::vector<float> raw = ramp_of(512, 0.37f);
  for (int pass = 0; pass < 2; ++pass) {  // a released tensor can be asked for again
    const std::vector<float> values = rounded_values(source, kQWeight);
    ASSERT_EQ(values.size(), 512u);
    for (size_t i = 0; i < values.size(); ++i) {
      const float scale = scales[i / 128];
      EXPECT_EQ(values[i], std::nearbyint(raw[i] / scale) * scale) << i;
    }
  }
  EXPECT_NE(source.scales_of(*source.find(kQWeight)), nullptr);
}

TEST(RoundedWeights, CodesAreNotClampedToInt8) {
  FakeTensors tensors = small_checkpoint();
  tensors.add(kQScales, {2, 2, 1}, {1e-2f, 1e-2f, 1e-2f, 1e-2f});
  const RoundedWeights source(std::make_unique<FakeTensors>(tensors));
  const std::vector<float> values = rounded_values(source, kQWeight), raw = ramp_of(512, 0.37f);
  for (size_t i = 0; i < values.size(); ++i) EXPECT_NEAR(values[i], raw[i], 0.0051) << i;
  EXPECT_GT(values.back(), 1.27f);
}

TEST(RoundedWeights, DownProjAndOthersKeepTheirFloats) {
  const RoundedWeights source(std::make_unique<FakeTensors>(small_checkpoint()));
  EXPECT_EQ(rounded_values(source, kDownWeight), ramp_of(128, 0.37f));
  EXPECT_EQ(rounded_values(source, "model.embeddings.weight"), (std::vector<float>{0.3f, 1.7f, -2.2f, 9.9f}));
  EXPECT_EQ(source.scales_of(*source.find(kDownWeight)), nullptr);
  EXPECT_EQ(gla_swa_scales_name(kQWeight), kQScales);
  EXPECT_EQ(gla_swa_scales_name(kDownWeight), "");
  EXPECT_EQ(gla_swa_scales_name("model.layers.0.attn.gk_proj.0.weight"), "");
  EXPECT_EQ(gla_swa_scales_name("lm_head.weight"), "");
}

TEST(RoundedWeights, MissingAndMisshapenScalesAreNamed) {
  FakeTensors tensors = small_checkpoint();
  EXPECT_TRUE(has_weight_scales(tensors));
  tensors.erase(kQScales);
  EXPECT_FALSE(has_weight_scales(tensors));
  EXPECT_EQ(refused_scales(tensors).code(), ErrorCode::mismatch);
  EXPECT_THAT(refused_scales(tensors).what(), HasSubstr(std::string(kQScales) + " is missing"));
  tensors.add(kQScales, {2, 4, 1});
  EXPECT_EQ(refused_scales(tensors).code(), ErrorCode::mismatch);
  EXPECT_THAT(refused_scales(tensors).what(),
              HasSubstr("has shape [2, 4, 1], but its weights ask for [2, 2, 1]"));
  tensors.add(kQWeight, {2, 200}).add(kQScales, {2, 1, 1});
  EXPECT_THAT(refused_scales(tensors).what(), HasSubstr("not a multiple of the 128"));
}

TEST(RoundedWeights, ScalesAndWeightsThatAreNoNumbersAreNamed) {
  for (const float scale : {0.0f, -1.0f, NAN, INFINITY}) {
    FakeTensors tensors = small_checkpoint();
    tensors.add(kQScales, {2, 2, 1}, {1, 1, scale, 1});
    EXPECT_EQ(refused_scales(tensors).code(), ErrorCode::corrupt) << scale;
    EXPECT_THAT(refused_scales(tensors).what(), HasSubstr(kQScales));
  }
  for (const float weight : {NAN, INFINITY, 70000.0f}) {
    FakeTensors tensors = small_checkpoint();
    std::vector<float> values = ramp_of(512, 0.37f);
    values[300] = weight;
    tensors.add(kQWeight, {2, 256}, values);
    EXPECT_EQ(refused_scales(tensors).code(), ErrorCode::corrupt) << weight;
    EXPECT_THAT(refused_scales(tensors).what(), HasSubstr(kQWeight));
  }
}

}  // namespace
}  // namespace mneme::rounded_weights_test
