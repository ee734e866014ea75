// The recurrences, forward and backward, against the definition in double precision: odd sizes, gates that
// are shut, heads that are dead, threads, instruction sets, memory layouts.
#include "train/ops/recurrence.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>

#include "mneme/error.h"
#include "simd/isa.h"

namespace mneme::train::recurrence_test {
namespace {

struct Sizes {
  int64_t batch, kv_heads, group, length, k_dim, v_dim;
};

struct Case {
  Tensor q, k, v, log_decay, beta, upper;  // beta undefined: gla
  std::vector<Tensor> inputs() const {
    std::vector<Tensor> out = {q, k, v, log_decay};
    if (beta.defined()) out.push_back(beta);
    return out;
  }
};

Case random_case(const Sizes& s, bool delta, uint64_t seed) {
  at::manual_seed(seed);
  Case out;
  out.q = at::randn({s.batch, s.kv_heads, s.group, s.length, s.k_dim});
  out.k = at::randn({s.batch, s.kv_heads, s.length, s.k_dim});
  out.v = at::randn({s.batch, s.kv_heads, s.length, s.v_dim});
  if (delta) {
    out.k = out.k / out.k.norm(2, -1, true);
    out.log_decay = at::log_sigmoid(at::randn({s.batch, s.kv_heads, s.length}) + 2);
    out.beta = at::sigmoid(at::randn({s.batch, s.kv_heads, s.length}));
  } else {
    out.log_decay = at::log_sigmoid(at::randn(out.k.sizes())) / 4;
  }
  out.upper = at::randn({s.batch, s.kv_heads, s.group, s.length, s.v_dim});
  return out;
}

struct Result {
  Tensor out;
  std::vector<Tensor> gradients;
};

Result run(const Case& c, at::ScalarType type, bool reference) {
  std::vector<Tensor> x;
  for (const Tensor& input : c.inputs()) x.push_back(input.detach().to(type).clone().requires_grad_(true));
  const double scale = 0.3;
  Result result;
  if (c.beta.defined())
    result.out = reference ? gated_delta_rule_reference(x[0], x[1], x[2], x[3], x[4], scale)
                           : gated_delta_rule(x[0], x[1], x[2], x[3], x[4], scale);
  else
    result.out = reference ? gated_linear_attention_reference(x[0], x[1], x[2], x[3], scale)
                           : gated_linear_attention(x[0], x[1], x[2], x[3], scale);
  torch::autograd::backward({result.out}, {c.upper.to(type)});
  for (const Tensor& input : x) result.gradients.push_back(input.grad());
  return result;
}

double relative_error(const Tensor& got, const Tensor& expected) {
  const double norm = expected.to(at::kDouble).norm().item<double>();
  return (got.to(at::kDouble) - expected.to(at::kDouble)).norm().item<double>() / (norm > 0 ? norm : 1);
}

void expect_near(const Case& c, double tolerance = 1e-4) {
  const Result got = run(c, at::kFloat, false), expected = run(c, at::kDouble, true);
  EXPECT_LE(relative_error(got.out, expected.out), tolerance);
  ASSERT_EQ(got.gradients.size(), expected.gradients.size());
  for (size_t i = 0; i < got.gradients.size(); ++i) {
    EXPECT_TRUE(at::isfinite(got.gradients[i]).all().item<bool>()) << "gradient " << i;
    EXPECT_LE(relative_error(got.gradients[i], expected.gradients[i]), tolerance) << "gradient " << i;
  }
}

class Recurrence : public testing::TestWithParam<bool> {};  // delta?
INSTANTIATE_TEST_SUITE_P(TrainRecurrence, Recurrence, testing::Bool(),
                         [](const auto& one) { return one.param ? "Delta" : "Gla"; });

TEST_P(Recurrence, EqualsTheDefinitionAtOddSizes) {
  const Sizes all[] = {{1, 1, 1, 1, 8, 8},    {2, 1, 2, 63, 8, 8},    {1, 2, 3, 64, 16, 16},
                       {1, 1, 4, 65, 64, 64}, {2, 2, 1, 200, 16, 16}, {1, 1, 2, 130, 80, 80},
                       {1, 1, 2, 70, 24, 40}, {1, 1, 9, 5, 3, 17}};
  uint64_t seed = 0;
  for (const Sizes& sizes : all) {
    SCOPED_TRACE(testing::Message() << "length " << sizes.length << " dims " << sizes.k_dim << ", "
                                    << sizes.v_dim << " group " << sizes.group);
    expect_near(random_case(sizes, GetParam(), ++seed));
  }
}

TEST_P(Recurrence, ClosedGatesNeitherOverflowNorLeak) {
  Case c = random_case({1, 2, 2, 150, 16, 16}, GetParam(), 3);
  c.log_decay.masked_fill_(at::rand(c.log_decay.sizes()).lt(0.2), -30.0);
  c.log_decay.masked_fill_(at::rand(c.log_decay.sizes()).lt(0.1), -1000.0);
  expect_near(c);
}

TEST_P(Recurrence, OpenGatesAddUp) {
  Case c = random_case({1, 1, 2, 200, 16, 16}, GetParam(), 4);
  c.log_decay.zero_();
  expect_near(c);
}

TEST_P(Recurrence, DeadHeadsGiveZeros) {
  Case c = random_case({1, 2, 2, 100, 16, 16}, GetParam(), 5);
  c.q.select(1, 0).zero_();
  c.k.select(1, 1).zero_();
  expect_near(c);
  EXPECT_EQ(run(c, at::kFloat, false).out.abs().max().item<float>(), 0.0f);
}

TEST_P(Recurrence, IsTheSameOnOneThreadAndOnTwo) {
  const Case c = random_case({3, 2, 2, 130, 32, 32}, GetParam(), 6);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const Result one = run(c, at::kFloat, false);
  at::set_num_threads(2);
  const Result two = run(c, at::kFloat, false);
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(one.out, two.out));
  for (size_t i = 0; i < one.gradients.size(); ++i)
    EXPECT_TRUE(at::equal(one.gradients[i], two.gradients[i])) << "gradient " << i;
}

TEST_P(Recurrence, IsRightOnEveryInstructionSet) {
  const Case c = random_case({1, 1, 2, 80, 40, 40}, GetParam(), 7);
  const Isa before = active_isa();
  for (const Isa isa : supported_isas()) {
    SCOPED_TRACE(to_string(isa));
    set_active_isa(isa);
    expect_near(c);
  }
  set_active_isa(before);
}

TEST_P(Recurrence, TakesHeadsThatLieByToken) {
  const Case c = random_case({2, 2, 3, 70, 16, 16}, GetParam(), 8);
  Case by_token = c;  // q, k, v as views of [batch, length, heads * dim], as projections give them
  by_token.q = c.q.permute({0, 3, 1, 2, 4}).contiguous().permute({0, 2, 3, 1, 4});
  by_token.k = c.k.transpose(1, 2).contiguous().transpose(1, 2);
  by_token.v = c.v.transpose(2, 3).contiguous().transpose(2, 3);
  by_token.upper = c.upper.transpose(3, 4).contiguous().transpose(3, 4);
  const Result plain = run(c, at::kFloat, false), other = run(by_token, at::kFloat, false);
  EXPECT_TRUE(at::equal(plain.out, other.out));
  for (size_t i = 0; i < plain.gradients.size(); ++i)
    EXPECT_TRUE(at::equal(plain.gradients[i], other.gradients[i])) << "gradient " << i;
}

TEST(TrainRecurrence, KnownNumbers) {  // all ones and a decay of 1/2: 1, 1 + 1/2, 1 + 1/2 + 1/4
  const Tensor ones = at::ones({1, 1, 3, 1}), decay = at::full({1, 1, 3, 1}, std::log(0.5));
  const Tensor out = gated_linear_attention(ones.unsqueeze(2), ones, ones, decay, 1.0).flatten();
  EXPECT_TRUE(at::allclose(out, at::tensor({1.0f, 1.5f, 1.75f})));
}

TEST(TrainRecurrence, ShapesThatDoNotBelongTogetherAreErrors) {
  const Case c = random_case({1, 2, 2, 10, 8, 8}, false, 9);
  EXPECT_THROW(gated_linear_attention(c.q, c.k.narrow(2, 0, 9), c.v, c.log_decay, 1), Error);
  EXPECT_THROW(gated_linear_attention(c.q, c.k, c.v, c.log_decay.narrow(3, 0, 1), 1), Error);
  EXPECT_THROW(gated_delta_rule(c.q, c.k, c.v, c.log_decay, c.log_decay, 1), Error);
}

}  // namespace
}  // namespace mneme::train::recurrence_test
