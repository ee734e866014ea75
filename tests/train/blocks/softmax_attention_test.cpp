// Attention over ranges of keys (f32, kernels of every instruction set) against the same under a mask in
// double precision.
#include "train/blocks/softmax_attention.h"

#include <gtest/gtest.h>

#include "simd/isa.h"
#include "train/ops/fused_kernels.h"

namespace mneme::train::softmax_attention_test {
namespace {

struct Case {
  int64_t positions, window, sinks, sink_tokens;
  double scale;
};

std::vector<Tensor> attend(const Case& c, at::ScalarType type) {
  at::manual_seed(5);
  const Tensor q = at::randn({2, 2, 3, c.positions, 12}).to(type).requires_grad_(true),
               k = at::randn({2, 2, c.positions, 12}).to(type).requires_grad_(true),
               v = at::randn({2, 2, c.positions, 12}).to(type).requires_grad_(true),
               upper = at::randn({2, 2, 3, c.positions, 12}).to(type);
  Visibility visible;
  visible.window = c.window;
  visible.sinks = c.sinks;
  visible.sink_tokens = c.sink_tokens;
  AttentionOptions options;
  options.scale = c.scale;
  const Tensor out = softmax_attention(q, k, v, {}, visible, options);
  torch::autograd::backward({out}, {upper});
  return {out, q.grad(), k.grad(), v.grad()};
}

class SoftmaxAttention : public testing::TestWithParam<Case> {};

TEST_P(SoftmaxAttention, OverRangesEqualsTheMaskedOne) {
  const std::vector<Tensor> expected = attend(GetParam(), at::kDouble);
  const Isa before = active_isa();
  for (const Isa isa : supported_isas()) {
    set_active_isa(isa);
    const std::vector<Tensor> got = attend(GetParam(), at::kFloat);
    for (size_t i = 0; i < got.size(); ++i)
      EXPECT_LE((got[i].to(at::kDouble) - expected[i]).norm().item<double>(),
                2e-6 * expected[i].norm().item<double>())
          << to_string(isa) << ", result " << i;
  }
  set_active_isa(before);
}

INSTANTIATE_TEST_SUITE_P(Shapes, SoftmaxAttention,
                         testing::Values(Case{1, 0, 0, 0, 0.3}, Case{37, 0, 0, 0, 0.3},
                                         Case{300, 0, 0, 0, 0.3}, Case{300, 1, 0, 0, 0.3},
                                         Case{300, 7, 0, 0, 2.0}, Case{300, 7, 3, 0, 0.3},
                                         Case{300, 130, 90, 0, 0.3}, Case{300, 64, 70, 0, 0.3},
                                         Case{200, 5, 4, 4, 0.3}, Case{90, 1000, 2, 0, 0.3}),
                         [](const testing::TestParamInfo<Case>& one) {
                           return "p" + std::to_string(one.param.positions) + "_w" +
                                  std::to_string(one.param.window) + "_s" + std::to_string(one.param.sinks) +
                                  "_t" + std::to_string(one.param.sink_tokens) +
                                  (one.param.scale > 1 ? "_sharp" : "");
                         });

TEST(SoftmaxRow, HugeScoresAndHiddenOnesDoNotReachTheRest) {
  const Isa before = active_isa();
  for (const Isa isa : supported_isas()) {
    set_active_isa(isa);
    std::vector<float> row = {1e30f, 1e30f, NAN, INFINITY, -1e30f, 3.0f, NAN};
    softmax_row(row.data(), 7, {2, 4, 6}, 1.0f);  // sees 0, 1, 4 and 5
    EXPECT_EQ(row, (std::vector<float>{0.5f, 0.5f, 0, 0, 0, 0, 0})) << to_string(isa);
    std::vector<float> slope = {4.0f, 2.0f, NAN, NAN, 7.0f, 9.0f, NAN};
    softmax_row_back(row.data(), 7, {2, 4, 6}, 2.0f, slope.data());
    EXPECT_EQ(slope, (std::vector<float>{1.0f, -1.0f, 0, 0, 0, 0, 0})) << to_string(isa);
  }
  set_active_isa(before);
}

}  // namespace
}  // namespace mneme::train::softmax_attention_test
