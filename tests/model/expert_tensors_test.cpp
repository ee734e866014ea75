// Experts as files hold them, seen one matrix at a time.
#include "model/expert_tensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

#include "model/fake_tensors.h"
#include "model/published_configs.h"

namespace mneme::expert_tensors_test {
namespace {

using ::testing::HasSubstr;
using testing_fakes::error_of;
using testing_fakes::FakeTensors;

/// Two layers of width 4: a mixture of 3 experts of width 2 with a shared one of width 5, and a dense one.
ModelConfig mixed_config() {
  ModelConfig config = testing_fakes::smollm2_135m();
  config.d_model = 4;
  config.layers.resize(2);
  FfnConfig& ffn = config.layers[0].ffn;
  ffn.type = FfnType::moe;
  ffn.hidden = 2;
  ffn.experts = 3;
  ffn.top_k = 2;
  ffn.shared = 1;
  ffn.shared_hidden = 5;
  ffn.shared_gate = true;
  config.validate();
  return config;
}

std::vector<float> counted(size_t n, float first = 0) {
  std::vector<float> out(n);
  std::iota(out.begin(), out.end(), first);
  return out;
}

std::vector<float> values_of(const TensorSource& source, const std::string& name) {
  const TensorInfo* info = source.find(name);
  if (info == nullptr) return {};
  const Bytes bytes = source.data(*info);
  std::vector<float> out(bytes.size() / sizeof(float));
  std::memcpy(out.data(), bytes.data(), bytes.size());
  return out;
}

std::unique_ptr<TensorSource> split(FakeTensors tensors, NameStyle style) {
  return split_experts(mixed_config(), std::make_unique<FakeTensors>(std::move(tensors)), style);
}

TEST(ExpertTensors, GgufStacksComeApart) {
  FakeTensors file;
  file.add("blk.0.ffn_gate_exps.weight", {3, 2, 4}, counted(24));
  file.add("blk.0.ffn_down_exps.weight", {3, 4, 2}, counted(24, 100));
  file.add("blk.0.ffn_gate_inp_shexp.weight", {1, 4}, counted(4));
  file.add("blk.1.ffn_gate.weight", {1536, 4});
  const auto source = split(file, NameStyle::gguf);
  EXPECT_EQ(source->tensors().size(), 8u);
  EXPECT_EQ(source->find("blk.0.ffn_gate.2.weight")->shape, (std::vector<uint64_t>{2, 4}));
  EXPECT_EQ(values_of(*source, "blk.0.ffn_gate.2.weight"), counted(8, 16));
  EXPECT_EQ(values_of(*source, "blk.0.ffn_down.1.weight"), counted(8, 108));
  EXPECT_EQ(source->find("blk.0.ffn_gate_inp_shexp.weight")->shape, (std::vector<uint64_t>{4}));
  EXPECT_NE(source->find("blk.1.ffn_gate.weight"), nullptr);
  EXPECT_EQ(source->find("blk.0.ffn_gate_exps.weight"), nullptr);
}

TEST(ExpertTensors, GateAboveUpInOneStack) {
  for (const auto& [style, stack, gate, up] :
       {std::tuple(NameStyle::gguf, "blk.0.ffn_gate_up_exps.weight", "blk.0.ffn_gate.1.weight",
                   "blk.0.ffn_up.1.weight"),
        {NameStyle::hugging_face, "model.layers.0.block_sparse_moe.input_linear.weight",
         "model.layers.0.mlp.experts.1.gate_proj.weight", "model.layers.0.mlp.experts.1.up_proj.weight"},
        {NameStyle::hugging_face, "model.layers.0.mlp.experts.gate_up_proj",
         "model.layers.0.mlp.experts.1.gate_proj.weight", "model.layers.0.mlp.experts.1.up_proj.weight"}}) {
    FakeTensors file;
    file.add(stack, {3, 4, 4}, counted(48));
    const auto source = split(file, style);
    EXPECT_EQ(values_of(*source, gate), counted(8, 16)) << stack;
    EXPECT_EQ(values_of(*source, up), counted(8, 24)) << stack;
  }
}

TEST(ExpertTensors, NamesOfEveryFamily) {
  FakeTensors file;
  file.add("model.layers.0.block_sparse_moe.experts.2.w1.weight", {2, 4}, counted(8));
  file.add("model.layers.0.block_sparse_moe.experts.2.w3.weight", {2, 4}, counted(8, 10));
  file.add("model.layers.0.block_sparse_moe.experts.2.w2.weight", {4, 2}, counted(8, 20));
  file.add("model.layers.0.block_sparse_moe.gate.weight", {3, 4}, counted(12));
  file.add("model.layers.0.shared_mlp.input_linear.weight", {10, 4}, counted(40));
  file.add("model.layers.0.mlp.shared_experts.down_proj.weight", {4, 5}, counted(20));
  file.add("model.layers.0.mlp.shared_expert_gate.weight", {1, 4}, counted(4));
  file.add("model.layers.1.block_sparse_moe.gate.weight", {3, 4});  // of a dense layer: not ours
  const auto source = split(file, NameStyle::hugging_face);
  const std::string mlp = "model.layers.0.mlp.";
  EXPECT_EQ(values_of(*source, mlp + "experts.2.gate_proj.weight"), counted(8));
  EXPECT_EQ(values_of(*source, mlp + "experts.2.up_proj.weight"), counted(8, 10));
  EXPECT_EQ(values_of(*source, mlp + "experts.2.down_proj.weight"), counted(8, 20));
  EXPECT_EQ(values_of(*source, mlp + "gate.weight"), counted(12));
  EXPECT_EQ(values_of(*source, mlp + "shared_expert.gate_proj.weight"), counted(20));
  EXPECT_EQ(values_of(*source, mlp + "shared_expert.up_proj.weight"), counted(20, 20));
  EXPECT_EQ(values_of(*source, mlp + "shared_expert.down_proj.weight"), counted(20));
  EXPECT_EQ(source->find(mlp + "shared_expert_gate.weight")->shape, (std::vector<uint64_t>{4}));
  EXPECT_NE(source->find("model.layers.1.block_sparse_moe.gate.weight"), nullptr);
}

TEST(ExpertTensors, StacksOfAnotherShapeAndDoublesAreRefused) {
  FakeTensors file;
  file.add("blk.0.ffn_gate_exps.weight", {4, 2, 4});
  Error error = error_of([&] { split(file, NameStyle::gguf); });
  EXPECT_EQ(error.code(), ErrorCode::mismatch);
  EXPECT_THAT(error.what(),
              HasSubstr("blk.0.ffn_gate_exps.weight has shape [4, 2, 4], but the config asks for 3 "
                        "experts: [3, 2, 4]"));
  FakeTensors twice;
  twice.add("blk.0.ffn_gate_exps.weight", {3, 2, 4}).add("blk.0.ffn_gate.1.weight", {2, 4});
  error = error_of([&] { split(twice, NameStyle::gguf); });
  EXPECT_EQ(error.code(), ErrorCode::corrupt);
  EXPECT_THAT(error.what(), HasSubstr("tensor blk.0.ffn_gate.1.weight is there twice"));
}

TEST(ExpertTensors, MatchingNamesTheExpertThatIsMissing) {
  const ModelConfig config = mixed_config();
  for (const auto& [style, name] :
       {std::pair(NameStyle::gguf, "blk.0.ffn_up.1.weight"),
        {NameStyle::hugging_face, "model.layers.0.mlp.experts.1.up_proj.weight"}}) {
    FakeTensors file(config, style);
    EXPECT_NO_THROW(match_tensors(config, file, style));
    file.erase(name);
    const Error error = error_of([&] { match_tensors(config, file, style); });
    EXPECT_EQ(error.code(), ErrorCode::mismatch);
    EXPECT_THAT(error.what(), HasSubstr(std::string("tensor ") + name + " is missing"));
    file.add(name, {3, 4});
    EXPECT_THAT(error_of([&] { match_tensors(config, file, style); }).what(), HasSubstr("has shape [3, 4]"));
  }
}

TEST(ExpertTensors, NamesOfExpertsComeApart) {
  const auto name = expert_tensor_name_of("blk.12.ffn_down.345.weight");
  ASSERT_TRUE(name.has_value());
  EXPECT_EQ(name->block, "blk.12.");
  EXPECT_EQ(name->projection, "down");
  EXPECT_EQ(name->expert, 345u);
  EXPECT_EQ(name->stacked(), "blk.12.ffn_down_exps.weight");
  for (const char* other : {"blk.0.ffn_gate.weight", "blk.0.ffn_gate_exps.weight", "blk.0.ffn_gate.x.weight",
                            "blk.0.ffn_gate..weight", "blk.0.ffn_norm.1.weight", "blk.0.ffn_gate.1.bias",
                            ".weight", "ffn_", "ffn_.weight", "blk.0.ffn_gate.99999999999.weight"})
    EXPECT_FALSE(expert_tensor_name_of(other).has_value()) << other;
}

}  // namespace
}  // namespace mneme::expert_tensors_test
