// The fused operations and products against libtorch's own in double precision, forward and backward.
#include "train/ops/fused.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "mneme/error.h"
#include "simd/isa.h"

namespace mneme::train::fused_test {
namespace {

using Operation = std::function<Tensor(const std::vector<Tensor>&)>;

double relative_error(const Tensor& got, const Tensor& expected) {
  const double norm = expected.to(at::kDouble).norm().item<double>();
  return (got.to(at::kDouble) - expected.to(at::kDouble)).norm().item<double>() / (norm > 0 ? norm : 1);
}

/// Output, then the gradients of the inputs for a fixed random gradient of the output.
std::vector<Tensor> run(const Operation& f, const std::vector<Tensor>& inputs, at::ScalarType type) {
  std::vector<Tensor> x;
  for (const Tensor& input : inputs) x.push_back(input.detach().to(type).requires_grad_(true));
  const Tensor out = f(x);
  at::manual_seed(99);
  const Tensor upper = at::randn(out.sizes()).to(type);
  torch::autograd::backward({out}, {upper});
  std::vector<Tensor> result = {out};
  for (const Tensor& one : x) result.push_back(one.grad());
  return result;
}

void expect_near(const Operation& f, const Operation& expected, const std::vector<Tensor>& inputs,
                 double tolerance = 5e-5) {
  const Isa before = active_isa();
  const std::vector<Tensor> right = run(expected, inputs, at::kDouble);
  for (const Isa isa : supported_isas()) {
    set_active_isa(isa);
    const std::vector<Tensor> got = run(f, inputs, at::kFloat);
    ASSERT_EQ(got.size(), right.size());
    for (size_t i = 0; i < got.size(); ++i) {
      ASSERT_EQ(got[i].sizes(), right[i].sizes());
      EXPECT_LE(relative_error(got[i], right[i]), tolerance) << to_string(isa) << ", result " << i;
    }
  }
  set_active_isa(before);
}

void expect_same_on_two_threads(const Operation& f, const std::vector<Tensor>& inputs) {
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const std::vector<Tensor> one = run(f, inputs, at::kFloat);
  at::set_num_threads(2);
  const std::vector<Tensor> two = run(f, inputs, at::kFloat);
  at::set_num_threads(threads);
  for (size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(at::equal(one[i], two[i])) << "result " << i;
}

TEST(TrainFused, RmsNorm) {
  const auto norm = [](double offset) {
    return [=](const std::vector<Tensor>& x) { return rms_norm(x[0], x[1], 1e-5, offset); };
  };
  const auto plain = [](double offset) {
    return [=](const std::vector<Tensor>& x) {
      return x[0] / at::sqrt(x[0].square().mean(-1, true) + 1e-5) * (x[1] + offset);
    };
  };
  at::manual_seed(1);
  for (const int64_t n : {1, 8, 17, 64, 100})
    expect_near(norm(0), plain(0), {at::randn({3, 70, n}), at::randn({n})});
  expect_near(norm(1), plain(1), {at::randn({5, 32}), at::randn({32})});
  expect_near(norm(0), plain(0), {at::randn({2, 33, 3, 16}).permute({0, 2, 1, 3}), at::randn({16})});
  expect_near(norm(0), plain(0), {at::zeros({2, 16}), at::randn({16})});
  expect_same_on_two_threads(norm(0), {at::randn({900, 40}), at::randn({40})});
  EXPECT_THROW(rms_norm(at::randn({4, 8}), at::randn({7}), 1e-5, 0), Error);
}

TEST(TrainFused, SiluTimes) {
  const Operation fused = [](const std::vector<Tensor>& x) { return silu_times(x[0], x[1]); };
  const Operation plain = [](const std::vector<Tensor>& x) { return x[0] * at::sigmoid(x[0]) * x[1]; };
  at::manual_seed(2);
  expect_near(fused, plain, {at::randn({3, 5, 37}) * 4, at::randn({3, 5, 37})});
  expect_near(fused, plain, {at::tensor({-200.0f, -90.0f, 0.0f, 90.0f}), at::ones({4})});
  expect_near(fused, plain, {at::randn({6, 20}).t(), at::randn({20, 6})});
  expect_same_on_two_threads(fused, {at::randn({50001}), at::randn({50001})});
}

TEST(TrainFused, Rotate) {
  at::manual_seed(3);
  for (const bool half : {true, false})
    for (const int64_t pairs : {1, 4, 12, 16}) {
      const Tensor angle = at::rand({21, pairs}, at::kDouble) * 6;
      const auto turn = [&](at::ScalarType type) {
        return [=](const std::vector<Tensor>& x) {
          return rotate(x[0], angle.cos().to(type), angle.sin().to(type), half);
        };
      };
      expect_near(turn(at::kFloat), turn(at::kDouble), {at::randn({2, 3, 21, 32})});
      expect_near(turn(at::kFloat), turn(at::kDouble), {at::randn({2, 21, 3, 32}).transpose(1, 2)});
    }
  // A quarter turn of (1, 2): (-2, 1), by hand.
  const Tensor x = at::tensor({1.0f, 2.0f}).view({1, 1, 1, 2});
  const Tensor out = rotate(x, at::zeros({1, 1}), at::ones({1, 1}), true).flatten();
  EXPECT_TRUE(at::equal(out, at::tensor({-2.0f, 1.0f})));
}

Tensor plain_loss(const Tensor& hidden, const Tensor& head, const Tensor& targets, double scale, double cap) {
  Tensor logits = at::matmul(hidden, head.t()) * scale;
  if (cap > 0) logits = at::tanh(logits / cap) * cap;
  const Tensor all = at::log_softmax(logits, -1);
  Tensor sum = at::zeros({}, hidden.options());
  int64_t count = 0;
  for (int64_t i = 0; i < targets.size(0); ++i)
    if (const int64_t t = targets[i].item<int64_t>(); t >= 0) {
      sum = sum - all[i][t];
      ++count;
    }
  return sum / static_cast<double>(count);
}

TEST(TrainFused, CrossEntropy) {
  at::manual_seed(4);
  for (const double cap : {0.0, 5.0}) {
    const Tensor targets = at::randint(0, 37, {300}, at::kLong);
    targets[0] = -1;
    targets[299] = -1;
    const Operation fused = [&](const std::vector<Tensor>& x) {
      return cross_entropy(x[0], x[1], targets, 0.7, cap);
    };
    const Operation plain = [&](const std::vector<Tensor>& x) {
      return plain_loss(x[0], x[1], targets, 0.7, cap);
    };
    const std::vector<Tensor> inputs = {at::randn({300, 24}), at::randn({37, 24})};
    expect_near(fused, plain, inputs);
    const Operation rounded = [&](const std::vector<Tensor>& x) {
      return cross_entropy(x[0], x[1], targets, 0.7, cap, true);
    };
    expect_near(rounded, plain, inputs, 2e-2);
  }
}

TEST(TrainFused, CrossEntropyOfHugeLogitsAndOfNoTarget) {
  const Tensor hidden = at::tensor({1000.0f, -1000.0f}).view({2, 1}).requires_grad_(true);
  const Tensor head = at::tensor({1.0f, -1.0f, 0.0f}).view({3, 1}).requires_grad_(true);
  const Tensor loss = cross_entropy(hidden, head, at::tensor({0, 0}, at::kLong), 1, 0);
  EXPECT_FLOAT_EQ(loss.item<float>(), 1000.0f);  // 0 for the first, 2000 for the second
  const Tensor none = cross_entropy(hidden, head, at::tensor({-1, -1}, at::kLong), 1, 0);
  torch::autograd::backward({none});
  EXPECT_EQ(none.item<float>(), 0.0f);
  EXPECT_EQ(hidden.grad().abs().max().item<float>(), 0.0f);
  EXPECT_THROW(cross_entropy(hidden, head, at::tensor({0, 3}, at::kLong), 1, 0), Error);
}

TEST(TrainProducts, EqualLibtorch) {
  at::manual_seed(5);
  for (const bool bias : {false, true}) {
    const auto fused = [=](bool bfloat16) {
      return
          [=](const std::vector<Tensor>& x) { return product(x[0], x[1], bias ? x[2] : Tensor(), bfloat16); };
    };
    const Operation plain = [=](const std::vector<Tensor>& x) {
      return at::linear(x[0], x[1], bias ? c10::optional<Tensor>(x[2]) : c10::nullopt);
    };
    for (const int64_t rows : {1, 3, 67}) {
      std::vector<Tensor> inputs = {at::randn({2, rows, 40}), at::randn({29, 40})};
      if (bias) inputs.push_back(at::randn({29}));
      expect_near(fused(false), plain, inputs);
      expect_near(fused(true), plain, inputs, 2e-2);
      inputs[0] = at::randn({2, 40, rows}).transpose(1, 2);
      expect_near(fused(false), plain, inputs);
    }
  }
}

TEST(TrainProducts, OfOneInputAddUpItsGradient) {
  at::manual_seed(6);
  for (const bool bfloat16 : {false, true}) {
    const Operation fused = [=](const std::vector<Tensor>& x) {
      return at::cat(products(x[0], {x[1], x[2], x[3]}, {Tensor(), x[4], Tensor()}, bfloat16), -1);
    };
    const Operation plain = [](const std::vector<Tensor>& x) {
      return at::cat({at::linear(x[0], x[1]), at::linear(x[0], x[2], x[4]), at::linear(x[0], x[3])}, -1);
    };
    expect_near(
        fused, plain,
        {at::randn({33, 16}), at::randn({8, 16}), at::randn({5, 16}), at::randn({20, 16}), at::randn({5})},
        bfloat16 ? 2e-2 : 1e-5);
  }
}

TEST(TrainProducts, UnusedResultsAndFrozenWeightsHaveNoGradient) {
  const Tensor x = at::randn({4, 6}).requires_grad_(true), a = at::randn({3, 6}).requires_grad_(true);
  const Tensor b = at::randn({3, 6}), c = at::randn({3, 6}).requires_grad_(true);
  const auto out = products(x, {a, b, c}, {Tensor(), Tensor(), Tensor()}, false);
  torch::autograd::backward({(out[0] + out[1]).sum()});
  EXPECT_FALSE(b.grad().defined());
  EXPECT_FALSE(c.grad().defined());
  EXPECT_LE(relative_error(x.grad(), at::ones({4, 3}).mm(a.detach() + b)), 1e-6);
  EXPECT_THROW(product(x, at::randn({3, 5}), {}, false), Error);
}

TEST(TrainProducts, Batched) {
  at::manual_seed(7);
  const Tensor a = at::randn({3, 7, 20}), b = at::randn({3, 20, 9}), wide = at::randn({3, 9, 4, 20});
  EXPECT_LE(relative_error(batched_product(a, b, false), at::bmm(a, b)), 1e-6);
  EXPECT_LE(relative_error(batched_product(a, b, true), at::bmm(a, b)), 2e-2);
  const Tensor strided = wide.select(2, 1).transpose(1, 2);  // [3, 20, 9], columns in one piece
  EXPECT_LE(relative_error(batched_product(a, strided, false), at::bmm(a, strided)), 1e-6);
  const Tensor turned = b.transpose(1, 2).contiguous().transpose(1, 2);
  EXPECT_LE(relative_error(batched_product(a, turned, true), at::bmm(a, b)), 2e-2);
}

}  // namespace
}  // namespace mneme::train::fused_test
