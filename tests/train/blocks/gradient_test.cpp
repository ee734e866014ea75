// Gradients of every block, in double precision, beside central differences: one random direction in each
// tensor, the rows of memory tables among them. Discrete choices are recorded once and forced, because a
// difference across a jump says nothing.
#include <gtest/gtest.h>

#include <cmath>

#include "core/fail.h"
#include "model/tensor_names.h"
#include "train/blocks/block_cases.h"
#include "train/blocks/blocks.h"
#include "train/blocks/decoder.h"

namespace mneme::train::gradient_test {
namespace {

/// The gradient of a leaf; zeros of an expert that nobody chose and of a selection bias, which has none.
Tensor gradient_of(const std::string& name, const Tensor& leaf) {
  if (leaf.grad().defined()) return leaf.grad();
  EXPECT_TRUE(expert_tensor_name_of(name) || name.ends_with("exp_probs_b.bias")) << name;
  return at::zeros_like(leaf.detach());
}

class Gradients : public testing::TestWithParam<BlockCase> {};

/// A model of a case in a floating type, with a batch.
struct Problem {
  Problem(const BlockCase& block, at::ScalarType type)
      : config(config_of(block)), parameters(random_parameters(config, 3).to(type)) {
    const Tensor ids = random_tokens(config, 2, block.short_length + 1, 4);
    tokens = ids.narrow(1, 0, block.short_length).contiguous();
    targets = ids.narrow(1, 1, block.short_length).contiguous();
    targets[0][1] = -1;  // a place without a target
    const RowTables tables = random_tables(config, 5);
    rows = touch_rows(config, make_table_ids(config, nullptr), tables, tokens);
    for (auto& [name, layers] : rows)
      for (auto& [layer, touched] : layers)
        touched.rows = touched.rows.detach().to(type).requires_grad_(true);
  }

  Tensor loss(const PassOptions& options = {}) const {
    return Decoder(config, parameters).loss(tokens, targets, rows, options);
  }
  /// All leaves by name.
  std::map<std::string, Tensor> leaves() const {
    std::map<std::string, Tensor> out;
    for (const std::string& name : parameters.names()) out.emplace(name, parameters.at(name));
    for (const auto& [name, layers] : rows)
      for (const auto& [layer, touched] : layers)
        out.emplace(fmt::format("rows of {} in layer {}", name, layer), touched.rows);
    return out;
  }

  ModelConfig config;
  Parameters parameters;
  BatchRows rows;
  Tensor tokens, targets;
};

TEST_P(Gradients, EqualCentralDifferences) {
  const Problem problem(GetParam(), at::kDouble);
  Choices choices;
  PassOptions options;
  options.record = &choices;
  problem.loss(options).backward();
  options.record = nullptr;
  options.forced = &choices;
  at::Generator generator = at::detail::createCPUGenerator(11);
  const at::NoGradGuard no_grad;
  for (const auto& [name, leaf] : problem.leaves()) {
    const Tensor start = leaf.detach().clone();
    const Tensor direction =
        at::normal(0.0, 1.0, leaf.sizes(), generator, at::TensorOptions().dtype(at::kDouble));
    const double analytic = (gradient_of(name, leaf) * direction).sum().item<double>();
    const double step = 1e-6;
    Tensor value = leaf.detach();
    value.copy_(start + step * direction);
    const double up = problem.loss(options).item<double>();
    value.copy_(start - step * direction);
    const double down = problem.loss(options).item<double>();
    value.copy_(start);
    const double numeric = (up - down) / (2 * step);
    EXPECT_NEAR(analytic, numeric, 1e-5 * std::abs(numeric) + 1e-7) << name;
  }
}

TEST_P(Gradients, OfRecomputedLayersAreTheSame) {
  std::vector<std::map<std::string, Tensor>> leaves;
  for (const bool checkpoint : {false, true}) {
    const Problem problem(GetParam(), at::kFloat);
    PassOptions options;
    options.checkpoint_layers = checkpoint;
    problem.loss(options).backward();
    leaves.push_back(problem.leaves());
  }
  for (const auto& [name, leaf] : leaves[0])
    EXPECT_TRUE(at::equal(gradient_of(name, leaf), gradient_of(name, leaves[1].at(name)))) << name;
}

// bf16 rounds the factors of products to 8 bits: losses agree to a percent or so, and directions of
// gradients.
TEST_P(Gradients, InBfloat16PointTheSameWay) {
  std::vector<double> losses;
  std::vector<Tensor> all;
  for (const bool bfloat16 : {false, true}) {
    const Problem problem(GetParam(), at::kFloat);
    Choices choices;
    PassOptions options;
    options.record = &choices;
    problem.loss(options);  // the choices of f32 for both
    options.record = nullptr;
    options.forced = &choices;
    options.bfloat16 = bfloat16;
    const Tensor loss = problem.loss(options);
    loss.backward();
    losses.push_back(loss.item<double>());
    std::vector<Tensor> flat;
    for (const auto& [name, leaf] : problem.leaves()) {
      EXPECT_EQ(gradient_of(name, leaf).scalar_type(), at::kFloat) << name;
      flat.push_back(gradient_of(name, leaf).flatten());
    }
    all.push_back(at::cat(flat));
  }
  EXPECT_NEAR(losses[1], losses[0], 0.03 * losses[0]);
  EXPECT_NE(losses[1], losses[0]);
  const double cosine = ((all[0] * all[1]).sum() / (all[0].norm() * all[1].norm())).item<double>();
  EXPECT_GT(cosine, 0.9);
}

INSTANTIATE_TEST_SUITE_P(Blocks, Gradients, testing::ValuesIn(block_cases()),
                         [](const auto& at_case) { return std::string(at_case.param.name); });

TEST(RowGradients, OfDuplicatesAddUp) {
  const RowTable table(50, 4, 1, 1.0);
  const TouchedRows touched = table.touch(at::tensor({7, 3, 7, 7, 49, 3}, at::kLong).view({1, 2, 3}));
  EXPECT_TRUE(at::equal(touched.ids, at::tensor({3, 7, 49}, at::kLong)));
  const Tensor weights = at::arange(24, at::kFloat).view({1, 2, 3, 4});
  (at::embedding(touched.rows, touched.where) * weights).sum().backward();
  const Tensor w = weights.view({6, 4});
  EXPECT_TRUE(at::equal(touched.rows.grad(), at::stack({w[1] + w[5], w[0] + w[2] + w[3], w[4]})));
}

TEST(RowGradients, TouchRefusesIdsOutsideTheTable) {
  const RowTable table(50, 4, 1, 1.0);
  EXPECT_THROW(table.touch(at::tensor({3, 50}, at::kLong)), Error);
  EXPECT_THROW(table.touch(at::tensor({-1, 5}, at::kLong)), Error);
}

TEST(RowValues, DependOnSeedAndIdAlone) {
  const RowTable small(100, 6, 9, 0.5), large(5000, 6, 9, 0.5), other(100, 6, 10, 0.5);
  EXPECT_TRUE(at::equal(small.values(), large.values().narrow(0, 0, 100)));
  EXPECT_FALSE(at::equal(small.values(), other.values()));
  EXPECT_NEAR(large.values().std().item<double>(), 0.5, 0.01);
  EXPECT_NEAR(large.values().mean().item<double>(), 0.0, 0.01);
}

// One module by itself, with keys so small that the gate's logit is within the clamp of the signed root.
struct TinyGate {
  explicit TinyGate(double size, const char* sign0) {
    config = ModelConfig::from_json(std::string(R"({"mneme": 1, "d_model": 8, "vocab": 48, "context": 64,
        "defaults": {"mixer": {"heads": 1, "kv_heads": 1, "head_dim": 8}, "ffn": {"hidden": 8}},
        "layers": [{"mixer": {"type": "full"}, "memory": {"table": "facts", "layer_id": 0, "sign0": ")") +
                                    sign0 + "\"}}]" + test_tables("") + "}");
    parameters = random_parameters(config, 1).to(at::kDouble);
    {
      const at::NoGradGuard no_grad;
      Tensor key_norm = parameters.at("blk.0.engram_k_norm.weight").detach();
      key_norm.mul_(size);
    }
    const Tensor tokens = random_tokens(config, 1, 5, 2);
    TouchedRows touched =
        touch_rows(config, make_table_ids(config, nullptr), random_tables(config, 3), tokens)
            .at("facts")
            .at(0);
    touched.rows = touched.rows.detach().to(at::kDouble).requires_grad_(true);
    x = at::randn({1, 5, 8}, at::detail::createCPUGenerator(4), at::TensorOptions().dtype(at::kDouble))
            .requires_grad_(true);
    out = engram(config, *config.layers[0].memory, Weights(parameters, "blk.0."), x, touched);
    out.sum().backward();
  }
  ModelConfig config;
  Parameters parameters;
  Tensor x, out;
};

TEST(EngramGate, HasNoGradientWithinTheClampOfItsRoot) {
  for (const char* sign0 : {"copysign", "zero"}) {
    const TinyGate inside(1e-9, sign0), outside(1.0, sign0);
    for (const char* name : {"blk.0.engram_k.weight", "blk.0.engram_q_norm.weight"}) {
      EXPECT_EQ(inside.parameters.at(name).grad().abs().max().item<double>(), 0) << name;
      EXPECT_GT(outside.parameters.at(name).grad().abs().max().item<double>(), 1e-3) << name;
    }
    EXPECT_EQ(inside.x.grad().abs().max().item<double>(), 0);
    EXPECT_GT(inside.parameters.at("blk.0.engram_v.weight").grad().abs().max().item<double>(), 1e-2);
  }
}

TEST(EngramGate, OfAZeroLogitIsAsTheConfigSays) {
  const TinyGate zero(0.0, "zero"), copied(0.0, "copysign");
  EXPECT_TRUE(at::isfinite(zero.x.grad()).all().item<bool>());
  EXPECT_TRUE(at::isfinite(copied.x.grad()).all().item<bool>());
  // sigmoid(0) beside sigmoid(+-1e-3)
  const double ratio = (copied.out / zero.out - 1).abs().min().item<double>();
  EXPECT_NEAR(ratio, 0.5e-3, 1e-6);
}

}  // namespace
}  // namespace mneme::train::gradient_test
