#include "model/rope_frequencies.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace mneme {
namespace {

constexpr double kTurn = 2 * std::numbers::pi;

/// Long waves are stretched by the factor, short ones kept, those between blended by how often they turn
/// within the original context.
double llama3(double frequency, const RopeScaling& s) {
  const double turns = s.original_context * frequency / kTurn;
  if (turns > s.high_freq_factor) return frequency;
  if (turns < s.low_freq_factor) return frequency / s.factor;
  const double keep = (turns - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
  return (1 - keep) * frequency / s.factor + keep * frequency;
}

/// Index (a real number) of the pair that turns `turns` times within the original context.
double yarn_pair(double turns, const RopeConfig& rope, uint32_t dims) {
  return dims * std::log(rope.scaling.original_context / (turns * kTurn)) / (2 * std::log(rope.base));
}

/// Pairs below `first` keep their frequency, those above `last` are divided by the factor.
void yarn(const RopeConfig& rope, uint32_t dims, std::vector<double>& frequencies) {
  const RopeScaling& s = rope.scaling;
  const double first = std::max(std::floor(yarn_pair(s.beta_fast, rope, dims)), 0.0);
  double last = std::min(std::ceil(yarn_pair(s.beta_slow, rope, dims)), static_cast<double>(dims - 1));
  if (first == last) last += 0.001;
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double divided = std::clamp((static_cast<double>(i) - first) / (last - first), 0.0, 1.0);
    frequencies[i] = divided * frequencies[i] / s.factor + (1 - divided) * frequencies[i];
  }
}

}  // namespace

std::vector<float> rope_inverse_frequencies(const RopeConfig& rope, uint32_t head_dim) {
  const uint32_t dims = rope.dims == 0 ? head_dim : rope.dims;
  const RopeScaling& s = rope.scaling;
  std::vector<double> out(dims / 2);
  for (size_t i = 0; i < out.size(); ++i) out[i] = std::pow(rope.base, -2.0 * static_cast<double>(i) / dims);
  switch (s.type) {
    case RopeScaling::Type::none:
      break;
    case RopeScaling::Type::linear:
      for (double& frequency : out) frequency /= s.factor;
      break;
    case RopeScaling::Type::llama3:
      for (double& frequency : out) frequency = llama3(frequency, s);
      break;
    case RopeScaling::Type::yarn:
      yarn(rope, dims, out);
      break;
    case RopeScaling::Type::factors:
      for (size_t i = 0; i < std::min(out.size(), s.factors.size()); ++i) out[i] /= s.factors[i];
      break;
  }
  return {out.begin(), out.end()};
}

double rope_attention_factor(const RopeConfig& rope) {
  const RopeScaling& s = rope.scaling;
  if (s.type != RopeScaling::Type::yarn) return 1.0;
  if (s.attention_factor != 0) return s.attention_factor;
  return s.factor <= 1 ? 1.0 : 0.1 * std::log(s.factor) + 1.0;
}

}  // namespace mneme
