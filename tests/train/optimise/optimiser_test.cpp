// The optimisers beside what PyTorch's compute (recorded by tools/optimiser_reference.py), and what must hold
// for rows: untouched ones stay as they are, touched ones move as a dense optimiser would move them.
#include "train/optimise/optimiser.h"

#include <gtest/gtest.h>

#include "core/file.h"
#include "core/json.h"
#include "mneme/error.h"
#include "train/optimise/row_optimiser.h"

namespace mneme::train::optimiser_test {
namespace {

const Json& golden() {
  static const Json json =
      parse_json(read_text_file(std::string(MNEME_TEST_DATA) + "/train/optimisers.json"), "optimisers.json");
  return json;
}

Tensor tensor(const Json& values, const Json& shape) {
  const auto numbers = values.get<std::vector<double>>();
  return at::tensor(numbers, at::kDouble)
      .to(at::kFloat)
      .reshape(shape.get<std::vector<int64_t>>())
      .contiguous();
}

/// Takes the recorded steps with an Optimiser over one tensor; the largest distance from the recorded values.
double distance(const std::string& entry, const std::string& name, const OptimiserConfig& config) {
  const Json& record = golden().at(entry);
  Parameters parameters;
  parameters.add(name, tensor(record["start"], record["shape"]));
  Optimiser optimiser(config, parameters, false);
  double most = 0;
  for (size_t step = 0; step < record["gradients"].size(); ++step) {
    parameters.at(name).mutable_grad() = tensor(record["gradients"][step], record["shape"]);
    optimiser.step(config.lr);
    const Tensor want = tensor(record["values"][step], record["shape"]);
    most = std::max(most, (parameters.at(name).detach() - want).abs().max().item<double>());
  }
  return most;
}

OptimiserConfig settings(OptimiserConfig::Type type, double lr) {
  OptimiserConfig out;
  out.type = type;
  out.lr = lr;
  return out;
}

TEST(Optimiser, AdamWIsPyTorchs) {
  const OptimiserConfig config = settings(OptimiserConfig::Type::adamw, 0.01);
  EXPECT_LT(distance("adamw", "blk.0.attn_q.weight", config), 3e-6);
  EXPECT_LT(distance("adamw_no_decay", "output_norm.weight", config), 3e-6);
  EXPECT_GT(distance("adamw", "token_embd.weight", config), 1e-3);  // looked up: no decay
}

TEST(Optimiser, MuonIsItsDefinitionAndPyTorchs) {
  const OptimiserConfig config = settings(OptimiserConfig::Type::muon, 0.02);
  EXPECT_LT(distance("muon_exact", "blk.0.attn_q.weight", config), 1e-5);
  EXPECT_LT(distance("muon_tall_exact", "blk.0.ffn_up.weight", config), 1e-5);
  EXPECT_LT(distance("muon", "blk.0.attn_q.weight", config), 2e-3);  // its iteration runs in bf16
  EXPECT_LT(distance("muon_tall", "blk.0.ffn_up.weight", config), 2e-3);
  EXPECT_GT(distance("muon_exact", "output.weight", config), 1e-2);  // the head is Adam's
}

TEST(Optimiser, MuonsUpdateHasSingularValuesNearOne) {
  at::Generator generator = at::detail::createCPUGenerator(3);
  const Tensor matrix = at::randn({48, 20}, generator);
  const Tensor values = at::linalg_svdvals(newton_schulz(matrix, 5));
  EXPECT_GT(values.min().item<float>(), 0.6);
  EXPECT_LT(values.max().item<float>(), 1.25);
}

TEST(Optimiser, TheFusedLoopIsTheLibtorchFormula) {
  at::Generator generator = at::detail::createCPUGenerator(3);
  for (const int64_t n : {1, 7, 16384, 50001}) {
    Tensor value = at::randn({n}, generator), m = at::randn({n}, generator), v = at::rand({n}, generator);
    const Tensor gradient = at::randn({n}, generator);
    const AdamSettings settings{0.01, 0.9, 0.95, 1e-8, 0.1, 0.7};
    Tensor value64 = value.to(at::kDouble), m64 = m.to(at::kDouble), v64 = v.to(at::kDouble);
    adamw_step(value, gradient, m, v, settings, 4);
    adamw_step(value64, gradient.to(at::kDouble), m64, v64, settings, 4);  // not f32: the fallback
    EXPECT_LT((value - value64).abs().max().item<double>(), 1e-6);
    EXPECT_LT((v - v64).abs().max().item<double>(), 1e-6);
  }
}

TEST(Optimiser, EqualBitsOnAnyNumberOfThreads) {
  const auto run = [](int threads) {
    const int before = at::get_num_threads();
    at::set_num_threads(threads);
    at::Generator generator = at::detail::createCPUGenerator(5);
    Tensor value = at::randn({100003}, generator), m = at::zeros({100003}), v = at::zeros({100003});
    const Tensor gradient = at::randn({100003}, generator);
    const double norm = gradient_norm(std::vector<Tensor>{gradient});
    adamw_step(value, gradient, m, v, {0.01, 0.9, 0.95, 1e-8, 0.1, 1 / norm}, 1);
    at::set_num_threads(before);
    return std::pair(value, norm);
  };
  const auto one = run(1), two = run(2);
  EXPECT_TRUE(at::equal(one.first, two.first));
  EXPECT_EQ(one.second, two.second);
}

TEST(Optimiser, TheNormIsOfAllGradientsTogether) {
  std::vector<Tensor> gradients{at::full({3}, 2.0f), {}, at::full({20000}, 0.5f)};
  EXPECT_NEAR(gradient_norm(gradients), std::sqrt(12.0 + 5000.0), 1e-9);
  gradients[0][1] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(gradient_norm(gradients)));
}

TEST(Optimiser, StateComesBack) {
  Parameters parameters, same;
  for (Parameters* p : {&parameters, &same}) {
    p->add("blk.0.attn_q.weight", at::ones({16, 16}));
    p->add("output_norm.weight", at::ones({16}));
  }
  const OptimiserConfig config = settings(OptimiserConfig::Type::muon, 0.02);
  Optimiser first(config, parameters, false), second(config, same, false);
  const auto move = [](Parameters& p, Optimiser& optimiser, int seed) {
    at::Generator generator = at::detail::createCPUGenerator(static_cast<uint64_t>(seed));
    for (const std::string& name : p.names())
      p.at(name).mutable_grad() = at::randn(p.at(name).sizes(), generator);
    optimiser.step(0.02, 0.5);
  };
  move(parameters, first, 1);
  const at::NoGradGuard guard;
  for (const std::string& name : same.names()) same.at(name).detach().copy_(parameters.at(name));
  EXPECT_EQ(first.state().size(), 3u);
  second.restore(first.state(), first.steps());
  move(parameters, first, 2);
  move(same, second, 2);
  for (const std::string& name : same.names())
    EXPECT_TRUE(at::equal(same.at(name), parameters.at(name))) << name;
  EXPECT_THROW(second.restore({}, 1), Error);
}

TEST(RowOptimiser, EveryRowTouchedIsDenseAdam) {
  const Json& record = golden().at("rows");
  Tensor values = tensor(record["start"], record["shape"]).clone();
  RowOptimiserConfig config;
  config.lr_scale = 2;
  RowOptimiser optimiser(config, 5, 8);
  const Tensor order = at::tensor({3, 0, 4, 1, 2}, at::kLong);
  for (size_t step = 0; step < record["gradients"].size(); ++step) {
    const Tensor gradient = tensor(record["gradients"][step], record["shape"]);
    optimiser.update(values, order, gradient.index_select(0, order), 0.005);
    const Tensor want = tensor(record["values"][step], record["shape"]);
    EXPECT_LT((values - want).abs().max().item<double>(), 3e-6);
  }
}

TEST(RowOptimiser, RowsThatAreNotTouchedStayBitForBit) {
  for (const auto type : {RowOptimiserConfig::Type::adam, RowOptimiserConfig::Type::scalar}) {
    RowOptimiserConfig config;
    config.type = type;
    at::Generator generator = at::detail::createCPUGenerator(9);
    Tensor values = at::randn({1000, 24}, generator);
    const Tensor before = values.clone();
    RowOptimiser optimiser(config, 1000, 24);
    const Tensor ids = at::tensor({2, 17, 999}, at::kLong);
    optimiser.update(values, ids, at::randn({3, 24}, generator), 0.01);
    const Tensor moved = (values != before).any(1).nonzero().squeeze(1);
    EXPECT_TRUE(at::equal(moved, ids));
    for (const auto& [name, state] : optimiser.state())
      EXPECT_EQ((state.reshape({1000, -1}) != 0).any(1).sum().item<int64_t>(), 3) << name;
  }
}

TEST(RowOptimiser, ARarelyTouchedRowMovesAsInItsOwnAdam) {
  // Row 1 is touched at steps 1 and 4 only: it must be where an Adam that saw two steps has it.
  Tensor table = at::zeros({2, 8}), alone = at::zeros({1, 8}), m = at::zeros({1, 8}), v = at::zeros({1, 8});
  RowOptimiser optimiser({}, 2, 8);
  for (int step = 1; step <= 4; ++step) {
    const Tensor gradient = at::full({2, 8}, 0.3f * static_cast<float>(step));
    const bool both = step == 1 || step == 4;
    const Tensor ids = both ? at::tensor({0, 1}, at::kLong) : at::tensor({0}, at::kLong);
    optimiser.update(table, ids, gradient.narrow(0, 0, ids.size(0)), 0.01);
    if (both)
      adamw_step(alone, gradient.narrow(0, 0, 1), m, v, {0.05, 0.9, 0.95, 1e-8, 0, 1}, step == 1 ? 1 : 2);
  }
  EXPECT_TRUE(at::allclose(table[1], alone[0], 1e-6, 1e-7));
}

TEST(RowOptimiser, OneScalarARowDividesByTheRootMeanSquare) {
  Tensor table = at::zeros({3, 4});
  RowOptimiserConfig config;
  config.type = RowOptimiserConfig::Type::scalar;
  config.lr_scale = 1;
  RowOptimiser optimiser(config, 3, 4);
  const Tensor id = at::tensor({1}, at::kLong);
  const Tensor gradient = at::tensor({3.0f, -3.0f, 3.0f, 3.0f}).unsqueeze(0);
  optimiser.update(table, id, gradient, 0.1, 0.5);
  EXPECT_TRUE(at::allclose(table[1], at::tensor({-0.1f, 0.1f, -0.1f, -0.1f})));
  optimiser.update(table, id, gradient * 2, 0.1, 0.5);  // s = 0.95 * 1.5^2 + 0.05 * 3^2
  const float move = 0.1f * 3.0f / std::sqrt(0.95f * 2.25f + 0.05f * 9.0f);
  EXPECT_NEAR(table[1][0].item<float>(), -0.1f - move, 1e-6);
}

TEST(RowOptimiser, TheLibtorchFormIsTheSame) {
  for (const auto type : {RowOptimiserConfig::Type::adam, RowOptimiserConfig::Type::scalar}) {
    RowOptimiserConfig config;
    config.type = type;
    at::Generator generator = at::detail::createCPUGenerator(11);
    Tensor fast = at::randn({50, 12}, generator);
    // A table that is not contiguous takes the way of other devices.
    Tensor slow = at::empty({12, 50}).t();
    slow.copy_(fast);
    RowOptimiser a(config, 50, 12), b(config, 50, 12);
    for (int step = 0; step < 5; ++step) {
      const Tensor ids = at::randperm(50, generator).narrow(0, 0, 20);
      const Tensor gradient = at::randn({20, 12}, generator);
      a.update(fast, ids, gradient, 0.01, 0.3);
      b.update(slow, ids, gradient, 0.01, 0.3);
    }
    EXPECT_LT((fast - slow).abs().max().item<float>(), 1e-5);
  }
}

TEST(RowOptimiser, RefusesIdsOutsideTheTable) {
  Tensor table = at::zeros({3, 4});
  RowOptimiser optimiser({}, 3, 4);
  EXPECT_THROW(optimiser.update(table, at::tensor({3}, at::kLong), at::zeros({1, 4}), 0.1), Error);
  EXPECT_THROW(optimiser.update(table, at::tensor({-1}, at::kLong), at::zeros({1, 4}), 0.1), Error);
  EXPECT_THROW(optimiser.update(table, at::tensor({1}, at::kLong), at::zeros({1, 5}), 0.1), Error);
}

}  // namespace
}  // namespace mneme::train::optimiser_test
