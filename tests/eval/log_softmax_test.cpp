// Expected values: the definitions in Python's math module.
#include "eval/log_softmax.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "mneme/error.h"

namespace mneme::log_softmax_test {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

TEST(LogSoftmax, SmallAndHugeLogits) {
  EXPECT_NEAR(log_sum_exp(std::vector<float>{1, 2, 3}), 3.4076059644443806, 1e-15);
  EXPECT_NEAR(log_sum_exp(std::vector<float>{10000, 10000}), 10000.693147180560, 1e-11);
  EXPECT_NEAR(log_sum_exp(std::vector<float>{-10000, -10001}), -9999.686738312, 1e-8);
  EXPECT_DOUBLE_EQ(log_sum_exp(std::vector<float>{-kInf, 5, -kInf}), 5);
  EXPECT_NEAR(negative_log_likelihood(std::vector<float>{1, 2, 3}, 0), 2.4076059644443806, 1e-15);
  EXPECT_EQ(negative_log_likelihood(std::vector<float>{1, -kInf}, 1), static_cast<double>(kInf));
}

TEST(LogSoftmax, ManyEqualTermsLoseNothing) {
  EXPECT_NEAR(log_sum_exp(std::vector<float>(262144, -3.5F)), std::log(262144.0) - 3.5, 1e-12);
}

TEST(LogSoftmax, KlDivergence) {
  const std::vector<float> p{0, 1, 2}, q{2, 1, 0};
  // P = (.0900306, .2447285, .6652410): sum P (log P - log Q) = -2 * .0900306 + 2 * .6652410
  EXPECT_NEAR(kl_divergence(p, q), 1.1504207652, 1e-9);
  EXPECT_EQ(kl_divergence(p, p), 0);
  const std::vector<float> shifted{7, 8, 9};
  EXPECT_NEAR(kl_divergence(p, shifted), 0, 1e-12);
  EXPECT_NEAR(kl_divergence(std::vector<float>{0, -kInf}, std::vector<float>{0, 0}), std::log(2.0), 1e-15);
}

TEST(LogSoftmax, DamagedLogitsAreErrors) {
  const std::vector<float> fine{0, 1};
  for (const float bad : {std::nanf(""), kInf})
    for (const size_t at : {0u, 1u}) {
      std::vector<float> logits{0, 1};
      logits[at] = bad;
      EXPECT_THROW(log_sum_exp(logits), Error);
      EXPECT_THROW(kl_divergence(fine, logits), Error);
    }
  EXPECT_THROW(log_sum_exp(std::vector<float>{-kInf, -kInf}), Error);
  EXPECT_THROW(log_sum_exp({}), Error);
  EXPECT_THROW(negative_log_likelihood(fine, 2), Error);
  EXPECT_THROW(negative_log_likelihood(fine, -1), Error);
  EXPECT_THROW(kl_divergence(fine, std::vector<float>{0}), Error);
}

}  // namespace
}  // namespace mneme::log_softmax_test
