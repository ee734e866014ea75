#include "train/ops/spikes.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <vector>

#include "core/fail.h"

namespace mneme::train {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kRowsOfAThread = 16;  // the least that is worth a thread
constexpr int64_t kLanes = 16;          // partial sums of a row: the order of a sum is fixed and still wide

/// Where firing begins, in thresholds.
float firing_edge(const NeuronSetting& neuron) {
  return std::max(0.5f, neuron.dead_zone);
}

bool in_f32_on_cpu(const Tensor& x) {
  return x.device().is_cpu() && x.scalar_type() == at::kFloat;
}

/// The sum of |s| of row 0.
uint64_t spikes_of_row(const SpikeRows& spikes, int64_t n) {
  uint64_t sum = 0;
  for (int64_t c = 0; c < n; ++c)
    sum += static_cast<uint64_t>(std::abs(int{spikes.base[static_cast<size_t>(c)]}));
  if (spikes.beyond[0].begin.empty()) return sum;
  for (const int8_t piece : spikes.beyond[0].counts) sum += static_cast<uint64_t>(std::abs(int{piece}));
  return sum;
}

Tensor fire_by_engine(const Tensor& x, const NeuronSetting& neuron, SpikeCount* count) {
  const int64_t n = x.size(-1), rows = x.numel() / n;
  Tensor out = at::empty_like(x);
  const float* const in = x.data_ptr<float>();
  auto* const to = out.data_ptr<float>();
  std::vector<SpikeCount> of_row(count ? static_cast<size_t>(rows) : 0);
  at::parallel_for(0, rows, kRowsOfAThread, [&](int64_t begin, int64_t end) {
    SpikeRows spikes;
    spikes.reserve(1, n, /*with_events=*/false);
    for (int64_t r = begin; r < end; ++r) {
      fire_row(neuron, in + r * n, 0, n, spikes);
      spikes_to_floats(spikes, 0, n, to + r * n);
      if (count)
        of_row[static_cast<size_t>(r)] = {static_cast<uint64_t>(n), static_cast<uint64_t>(spikes.spiking[0]),
                                          spikes_of_row(spikes, n)};
    }
  });
  for (const SpikeCount& row : of_row) {
    count->inputs += row.inputs;
    count->fired += row.fired;
    count->spikes += row.spikes;
  }
  return out;
}

/// The same by libtorch's operations, for other types and devices.
Tensor fire_by_torch(const Tensor& x, const NeuronSetting& neuron, SpikeCount* count) {
  const Tensor size = x.abs(), mean = size.mean(-1, true), most = size.amax(-1, true);
  Tensor v = (mean / neuron.k).clamp(kLeastThreshold, kMostThreshold);
  v = at::maximum(at::maximum(v, mean / kMostMeanCount), most / kMostCount);
  v = v.masked_fill(at::isfinite(mean).logical_not(), std::numeric_limits<double>::quiet_NaN());
  const Tensor s = at::round(x / v).masked_fill(size.lt(v * neuron.dead_zone), 0);
  if (count) {
    const Tensor whole = at::nan_to_num(s, 0.0);
    count->inputs += static_cast<uint64_t>(x.numel());
    count->fired += static_cast<uint64_t>(whole.ne(0).sum().item<int64_t>());
    count->spikes += static_cast<uint64_t>(whole.abs().to(at::kDouble).sum().item<double>());
  }
  return s * v;
}

float mean_size(const float* x, int64_t n) {
  float sums[kLanes] = {};
  for (int64_t i = 0; i < n; i += kLanes)
    for (int64_t c = 0; c < kLanes; ++c) sums[c] += std::abs(x[i + c]);
  float sum = 0;
  for (const float lane : sums) sum += lane;
  return sum / static_cast<float>(n);
}

/// dx += weight dP/dx for one row: with t the triangle at u_i,
///   dP/dx_j = sign(x_j) / (n V width tau) (t_j - sum_i t_i |x_i| / sum_i |x_i|),
/// without the second term where V is at one of its bounds and no longer follows x.
void add_firing_slope(const float* x, int64_t n, const NeuronSetting& neuron, float width, float weight,
                      float* triangle, float* dx) {
  const float mean = mean_size(x, n), count = static_cast<float>(n), edge = firing_edge(neuron);
  const float threshold = std::clamp(mean / neuron.k, kLeastThreshold, kMostThreshold);
  const bool follows = threshold > kLeastThreshold && threshold < kMostThreshold;
  const float of_size = 1.0f / (threshold * width * edge), at_edge = 1.0f / width;
  float sums[kLanes] = {};
  for (int64_t i = 0; i < n; i += kLanes)
    for (int64_t c = 0; c < kLanes; ++c) {
      const float size = std::abs(x[i + c]);
      const float t = std::max(0.0f, 1.0f - std::abs(size * of_size - at_edge));
      triangle[i + c] = t;
      sums[c] += t * size;
    }
  float sum = 0;
  for (const float lane : sums) sum += lane;
  const float shared = follows ? sum / (count * mean) : 0.0f, factor = weight * of_size / count;
  for (int64_t i = 0; i < n; ++i) {
    const float sign = static_cast<float>(x[i] > 0) - static_cast<float>(x[i] < 0);
    dx[i] += factor * sign * (triangle[i] - shared);
  }
}

void add_firing_slopes(const Tensor& x, const NeuronSetting& neuron, double width, double weight,
                       const Tensor& dx) {
  const int64_t n = x.size(-1), rows = x.numel() / n;
  const float* const in = x.data_ptr<float>();
  auto* const to = dx.data_ptr<float>();
  at::parallel_for(0, rows, kRowsOfAThread, [&](int64_t begin, int64_t end) {
    std::vector<float> triangle(static_cast<size_t>(n));
    for (int64_t r = begin; r < end; ++r)
      add_firing_slope(in + r * n, n, neuron, static_cast<float>(width),
                       static_cast<float>(weight / static_cast<double>(rows)), triangle.data(), to + r * n);
  });
}

/// weight d(mean of P)/dx, by libtorch.
Tensor firing_slopes_by_torch(const Tensor& x, const NeuronSetting& neuron, double width, double weight) {
  const at::AutoGradMode with_grad(true);
  const Tensor leaf = x.detach().requires_grad_(true);
  const Tensor price = firing_probability(leaf, neuron, width).mean() * weight;
  return torch::autograd::grad({price}, {leaf})[0];
}

class Spiked : public torch::autograd::Function<Spiked> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& any, const NeuronSetting& neuron,
                        const FiringPenalty& penalty, SpikeCount* count) {
    const Tensor x = any.contiguous();
    if (penalty.weight != 0) {
      ctx->save_for_backward({x});
      ctx->saved_data["k"] = static_cast<double>(neuron.k);
      ctx->saved_data["dead_zone"] = static_cast<double>(neuron.dead_zone);
      ctx->saved_data["width"] = penalty.width;
    }
    ctx->saved_data["weight"] = penalty.weight;
    return in_f32_on_cpu(x) ? fire_by_engine(x, neuron, count) : fire_by_torch(x, neuron, count);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    auto& data = ctx->saved_data;
    const double weight = data["weight"].toDouble();
    Tensor out = grads[0];
    if (weight != 0) {
      const Tensor x = ctx->get_saved_variables()[0];
      const NeuronSetting neuron{static_cast<float>(data["k"].toDouble()),
                                 static_cast<float>(data["dead_zone"].toDouble())};
      const double width = data["width"].toDouble();
      if (in_f32_on_cpu(x)) {
        out = out.clone(at::MemoryFormat::Contiguous);
        add_firing_slopes(x, neuron, width, weight, out);
      } else {
        out = out + firing_slopes_by_torch(x, neuron, width, weight);
      }
    }
    return {out, {}, {}, {}};
  }
};

}  // namespace

Tensor spiked(const Tensor& x, const NeuronSetting& neuron, const FiringPenalty& penalty, SpikeCount* count) {
  require(x.dim() > 0 && x.numel() > 0 && x.size(-1) % kBlock == 0, ErrorCode::invalid_argument,
          "spikes need rows of a multiple of {} values, but these have {}", kBlock,
          x.dim() > 0 ? x.size(-1) : 0);
  require(penalty.width > 0 && penalty.width <= 1, ErrorCode::invalid_argument,
          "the width of a firing penalty is {}, but must be above 0 and at most 1", penalty.width);
  return Spiked::apply(x, neuron, penalty, count);
}

Tensor spiked_queries(const Tensor& x, const NeuronSetting& neuron) {
  return x + (fire_by_torch(x.detach(), neuron, nullptr) - x).detach();
}

Tensor firing_probability(const Tensor& x, const NeuronSetting& neuron, double width) {
  const double tau = firing_edge(neuron);
  const Tensor size = x.abs(), mean = size.mean(-1, true);
  const Tensor v = (mean / neuron.k).clamp(kLeastThreshold, kMostThreshold);
  const Tensor z = ((size / v - tau) / (width * tau)).clamp(-1, 1);
  return at::where(z.lt(0), (1 + z).square() / 2, 1 - (1 - z).square() / 2).mean(-1);
}

}  // namespace mneme::train
