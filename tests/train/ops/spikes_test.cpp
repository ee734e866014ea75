// Spikes as a differentiable operation: forward beside the engine's plain reference, backward beside its
// formula and central differences, and that the price of firing does what it is for.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/fail.h"
#include "train/ops/spikes.h"

namespace mneme::train::spikes_test {
namespace {

const std::vector<NeuronSetting> kNeurons{{3.0f, 0.0f}, {0.7f, 0.0f}, {8.0f, 1.5f}, {64.0f, 40.0f}};

Tensor gaussian(std::vector<int64_t> shape, uint64_t seed) {
  return at::normal(0.0, 1.0, shape, at::detail::createCPUGenerator(seed));
}

/// Rows that are hard: zeros, tiny, huge, one outlier, values on the edge between two counts.
Tensor hard_rows(int64_t n) {
  Tensor x = gaussian({12, n}, 3);
  x[0].zero_();
  x[1].mul_(1e-12);
  x[2].mul_(1e9);
  x[3][5] = 4000;
  x[4].fill_(0.5);
  x[5].mul_(x[5].abs());
  x[6][0] = std::numeric_limits<float>::quiet_NaN();
  x[7][1] = -std::numeric_limits<float>::infinity();
  return x;
}

TEST(Spiked, IsWhatTheEnginesReferenceFires) {
  const int64_t n = 96;
  const Tensor x = hard_rows(n);
  for (const NeuronSetting& neuron : kNeurons) {
    SpikeCount count, want;
    const Tensor got = spiked(x, neuron, {}, &count);
    for (int64_t r = 0; r < x.size(0); ++r) {
      std::vector<int32_t> s(static_cast<size_t>(n));
      const float v = fire_reference(neuron, x[r].data_ptr<float>(), n, s.data());
      for (int64_t i = 0; i < n; ++i) {
        const int32_t spikes = s[static_cast<size_t>(i)];
        const float value = got[r][i].item<float>(), expected = v * static_cast<float>(spikes);
        EXPECT_TRUE(value == expected || (std::isnan(value) && std::isnan(expected))) << r << " " << i;
        want.fired += spikes != 0 ? 1 : 0;
        want.spikes += static_cast<uint64_t>(std::abs(spikes));
      }
    }
    EXPECT_EQ(count.inputs, static_cast<uint64_t>(x.numel()));
    EXPECT_EQ(count.fired, want.fired);
    EXPECT_EQ(count.spikes, want.spikes);
    EXPECT_TRUE(at::isnan(got[6]).all().item<bool>());
    EXPECT_TRUE(at::isnan(got[7]).all().item<bool>());
  }
}

TEST(Spiked, OfOtherTypesIsTheSameNeuron) {
  const Tensor x = hard_rows(64).narrow(0, 0, 6);
  for (const NeuronSetting& neuron : kNeurons) {
    SpikeCount a, b;
    const Tensor engine = spiked(x, neuron, {}, &a), torch = spiked(x.to(at::kDouble), neuron, {}, &b);
    // A value on the edge between two counts may fall on either side: one in a thousand, by one threshold.
    const Tensor off = (engine - torch).abs().gt(1e-5 * torch.abs());
    EXPECT_LE(off.sum().item<int64_t>(), 2);
    EXPECT_NEAR(static_cast<double>(a.fired), static_cast<double>(b.fired), 2);
    EXPECT_NEAR(static_cast<double>(a.spikes), static_cast<double>(b.spikes), 4);
  }
}

TEST(Spiked, SplitsIntoThreadsWithoutChangingABit) {
  const Tensor x = gaussian({7, 50, 64}, 4).transpose(0, 1);  // not contiguous either
  std::vector<Tensor> outs, grads;
  const int before = at::get_num_threads();
  for (const int threads : {1, 2}) {
    at::set_num_threads(threads);
    const Tensor leaf = x.detach().clone().requires_grad_(true);
    const Tensor out = spiked(leaf, kNeurons[2], {0.5, 1});
    (out * out.detach()).sum().backward();
    outs.push_back(out.detach());
    grads.push_back(leaf.grad());
  }
  at::set_num_threads(before);
  EXPECT_TRUE(at::equal(outs[0], outs[1]));
  EXPECT_TRUE(at::equal(grads[0], grads[1]));
}

TEST(Spiked, GradientsGoStraightThrough) {
  for (const auto type : {at::kFloat, at::kDouble}) {
    const Tensor x = gaussian({4, 5, 32}, 5).to(type).requires_grad_(true);
    const Tensor upper = gaussian({4, 5, 32}, 6).to(type);
    const Tensor out = spiked(x, {3, 4});  // most inputs are in the dead zone
    EXPECT_GT(out.eq(0).to(at::kDouble).mean().item<double>(), 0.5);
    (out * upper).sum().backward();
    EXPECT_TRUE(at::equal(x.grad(), upper));
  }
}

TEST(FiringPenalty, IsTheSlopeOfTheFiringProbability) {
  for (const NeuronSetting& neuron : kNeurons) {
    for (const double width : {1.0, 0.4}) {
      const Tensor x = gaussian({3, 64}, 7).to(at::kDouble) * at::tensor({1.0, 0.01, 30.0}).view({3, 1});
      const Tensor leaf = x.clone().requires_grad_(true);
      spiked(leaf, neuron, {2.0, width}).sum().backward();
      const Tensor slope = leaf.grad() - 1;  // without what goes straight through
      const Tensor direction = gaussian({3, 64}, 8).to(at::kDouble) * x.abs();
      const double step = 1e-6;
      const auto price = [&](const Tensor& at) {
        return 2.0 * firing_probability(at, neuron, width).mean().item<double>();
      };
      const double numeric = (price(x + step * direction) - price(x - step * direction)) / (2 * step);
      EXPECT_NEAR((slope * direction).sum().item<double>(), numeric, 1e-6 + 1e-5 * std::abs(numeric));
      // No row gets cheaper by becoming smaller.
      EXPECT_LT((slope * x).sum(1).abs().max().item<double>(), 1e-9);
      const Tensor single = x.to(at::kFloat).requires_grad_(true);
      spiked(single, neuron, {2.0, width}).sum().backward();
      const Tensor close = (single.grad() - 1 - slope) / slope.abs().max();
      EXPECT_LT(close.abs().max().item<double>(), 1e-3);
    }
  }
}

TEST(FiringPenalty, AtTheBoundsOfTheThresholdIsFinite) {
  for (const auto type : {at::kFloat, at::kDouble}) {
    const Tensor x = hard_rows(64).narrow(0, 0, 3).to(type).requires_grad_(true);
    spiked(x, {3, 0}, {1.0, 1.0}).sum().backward();
    EXPECT_TRUE(at::isfinite(x.grad()).all().item<bool>());
    EXPECT_TRUE(at::equal(x.grad()[0], at::ones_like(x.grad()[0])));  // of zeros: nothing to save
  }
}

TEST(FiringPenalty, MakesRowsSparserAndNotSmaller) {
  Tensor x = gaussian({20, 64}, 9);
  const NeuronSetting neuron{3, 1};
  const auto fired = [&] {
    SpikeCount count;
    spiked(x, neuron, {}, &count);
    return static_cast<double>(count.fired) / static_cast<double>(count.inputs);
  };
  const double before = fired(), size = x.norm().item<double>();
  for (int i = 0; i < 200; ++i) {
    const Tensor leaf = x.detach().clone().requires_grad_(true);
    const Tensor out = spiked(leaf, neuron, {20, 1});
    (out * 0).sum().backward();
    x = x - 0.5 * leaf.grad();
  }
  EXPECT_LT(fired(), 0.85 * before);
  EXPECT_GT(x.norm().item<double>(), 0.95 * size);
}

TEST(Spiked, RefusesRowsThatCannotFire) {
  EXPECT_THROW(spiked(at::ones({2, 40}), {3, 0}), Error);
  EXPECT_THROW(spiked(at::ones({2, 64}), {3, 0}, {1, 0}), Error);
  EXPECT_THROW(spiked(at::ones({2, 64}), {3, 0}, {1, 1.5}), Error);
}

}  // namespace
}  // namespace mneme::train::spikes_test
