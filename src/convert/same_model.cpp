#include "convert/same_model.h"

#include <algorithm>
#include <cmath>

#include "core/json.h"
#include "model/rope_frequencies.h"

namespace mneme {
namespace {

bool close(double a, double b) {
  return std::fabs(a - b) <= 1e-6 * std::max(std::fabs(a), std::fabs(b));
}

bool same_json(const Json& a, const Json& b) {
  if (a.is_number() && b.is_number()) return close(a.get<double>(), b.get<double>());
  if (a.type() != b.type() || a.size() != b.size()) return false;
  if (a.is_object()) {
    for (const auto& [key, value] : a.items())
      if (!b.contains(key) || !same_json(value, b[key])) return false;
    return true;
  }
  if (a.is_array()) {
    for (size_t i = 0; i < a.size(); ++i)
      if (!same_json(a[i], b[i])) return false;
    return true;
  }
  return a == b;
}

bool same_rope(const RopeConfig& a, const RopeConfig& b, uint32_t head_dim) {
  const auto fa = rope_inverse_frequencies(a, head_dim), fb = rope_inverse_frequencies(b, head_dim);
  bool same = fa.size() == fb.size() && a.style == b.style &&
              close(rope_attention_factor(a), rope_attention_factor(b));
  for (size_t i = 0; same && i < fa.size(); ++i) same = std::fabs(fa[i] - fb[i]) <= 2e-6f * fa[i];
  return same;
}

/// The config without what is compared on its own. A layer that repeats the model's RoPE loses it.
ModelConfig without_rope(ModelConfig config) {
  config.name.clear();
  config.rope = {};
  for (auto& layer : config.layers)
    for (MixerConfig& mixer : layer.mixer.branches()) mixer.rope.reset();
  return config;
}

}  // namespace

bool has_standard_mixers(const ModelConfig& config) {
  if (config.sink_tokens > 0) return false;
  return std::all_of(config.layers.begin(), config.layers.end(), [](const LayerConfig& layer) {
    return layer.mixer.type == MixerType::full || layer.mixer.type == MixerType::window;
  });
}

bool same_model(const ModelConfig& a, const ModelConfig& b) {
  if (a.layers.size() != b.layers.size()) return false;
  for (size_t i = 0; i < a.layers.size(); ++i) {
    const auto mine = a.layers[i].mixer.branches(), other = b.layers[i].mixer.branches();
    if (mine.size() != other.size()) return false;
    for (size_t m = 0; m < mine.size(); ++m) {
      const MixerConfig &x = mine[m], &y = other[m];
      if (x.type != y.type || x.head_dim != y.head_dim) return false;
      if (x.softmax() && !same_rope(x.rope.value_or(a.rope), y.rope.value_or(b.rope), x.head_dim))
        return false;
    }
  }
  return same_json(Json::parse(without_rope(a).to_json()), Json::parse(without_rope(b).to_json()));
}

}  // namespace mneme
