#include "model/layer_routing.h"

#include <algorithm>
#include <cmath>

namespace mneme {
namespace {

constexpr double kStarvedShare = 0.1;  // of the even share

template <class T>
double entropy_of(std::span<const T> values) {
  double sum = 0, entropy = 0;
  for (const T v : values) sum += static_cast<double>(v);
  if (sum <= 0 || values.size() < 2) return 0;
  for (const T v : values)
    if (v > 0) entropy -= static_cast<double>(v) / sum * std::log(static_cast<double>(v) / sum);
  return entropy / std::log(static_cast<double>(values.size()));
}

}  // namespace

double even_entropy(std::span<const float> values) {
  return entropy_of(values);
}

double even_entropy(std::span<const uint64_t> values) {
  return entropy_of(values);
}

std::vector<double> LayerRouting::load() const {
  double sum = 0;
  for (uint32_t e = 0; e < experts; ++e) sum += static_cast<double>(chosen[e]);
  std::vector<double> out;
  for (uint32_t e = 0; e < experts; ++e) out.push_back(sum > 0 ? static_cast<double>(chosen[e]) / sum : 0);
  return out;
}

double LayerRouting::variation() const {
  double squares = 0;
  const double even = 1.0 / experts;
  for (const double part : load()) squares += (part - even) * (part - even);
  return std::sqrt(squares / experts) / even;
}

double LayerRouting::entropy() const {
  return even_entropy(std::span(chosen).first(std::min<size_t>(experts, chosen.size())));
}

std::vector<uint32_t> LayerRouting::starved() const {
  std::vector<uint32_t> out;
  const std::vector<double> parts = load();
  for (uint32_t e = 0; e < experts; ++e)
    if (parts[e] < kStarvedShare / experts) out.push_back(e);
  return out;
}

double LayerRouting::mean_active() const {
  double sum = 0;
  for (size_t n = 0; n < active.size(); ++n) sum += static_cast<double>(n) * static_cast<double>(active[n]);
  return tokens > 0 ? sum / static_cast<double>(tokens) : 0;
}

double LayerRouting::null_share() const {
  double all = 0, nulls = 0;
  for (size_t i = 0; i < chosen.size(); ++i) {
    all += static_cast<double>(chosen[i]);
    if (i >= experts) nulls += static_cast<double>(chosen[i]);
  }
  return all > 0 ? nulls / all : 0;
}

}  // namespace mneme
