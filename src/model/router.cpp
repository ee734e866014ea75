#include "model/router.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace mneme {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

void score_choices(RouterScore kind, const float* logits, size_t choices, float* scores) {
  if (kind == RouterScore::sigmoid) {
    for (size_t i = 0; i < choices; ++i) scores[i] = 1.0f / (1.0f + std::exp(-logits[i]));
    return;
  }
  const float most = *std::max_element(logits, logits + choices);
  double sum = 0;
  for (size_t i = 0; i < choices; ++i) {
    scores[i] = std::exp(logits[i] - most);
    sum += double{scores[i]};
  }
  const auto inverse = static_cast<float>(1.0 / sum);
  for (size_t i = 0; i < choices; ++i) scores[i] *= inverse;
}

/// The best rank of a group, or the sum of its best two.
float group_rank(GroupScore kind, const float* ranks, size_t size) {
  float best = kNever, second = kNever;
  for (size_t i = 0; i < size; ++i) {
    if (ranks[i] > best) {
      second = best;
      best = ranks[i];
    } else {
      second = std::max(second, ranks[i]);
    }
  }
  return kind == GroupScore::max ? best : best + second;
}

/// Makes experts outside of the best groups unelectable.
void keep_top_groups(const FfnConfig& ffn, std::vector<std::pair<float, uint32_t>>& groups, float* ranks) {
  const size_t size = ffn.experts / ffn.groups;
  groups.clear();
  for (uint32_t g = 0; g < ffn.groups; ++g)
    groups.emplace_back(-group_rank(ffn.group_score, ranks + g * size, size), g);
  std::sort(groups.begin(), groups.end());  // equal ranks: the lower group first
  for (uint32_t g = ffn.top_groups; g < ffn.groups; ++g)
    std::fill_n(ranks + groups[g].second * size, size, kNever);
}

/// The number of places that top_p leaves.
size_t places_used(const FfnConfig& ffn, const RouterScratch& s) {
  if (ffn.top_p == 0) return ffn.top_k;
  double all = 0, held = 0;
  for (uint32_t i = 0; i < ffn.choices(); ++i) all += double{s.scores[i]};
  for (size_t n = 0; n < ffn.top_k; ++n) {
    held += double{s.scores[static_cast<size_t>(s.order[n])]};
    if (held >= ffn.top_p * all) return n + 1;
  }
  return ffn.top_k;
}

template <class T>
void enlarge(std::vector<T>& v, size_t size) {
  if (v.size() < size) v.resize(size);
}

}  // namespace

int64_t choose_experts(const FfnConfig& ffn, const float* logits, const float* bias, RouterScratch& s,
                       Route* out) {
  const size_t choices = ffn.choices();
  std::fill_n(out, ffn.top_k, Route{});
  for (size_t i = 0; i < choices; ++i)
    if (!std::isfinite(logits[i])) return static_cast<int64_t>(i);
  enlarge(s.scores, choices);
  enlarge(s.ranks, choices);
  enlarge(s.order, choices);
  score_choices(ffn.router, logits, choices, s.scores.data());
  for (size_t i = 0; i < choices; ++i) s.ranks[i] = s.scores[i] + (bias != nullptr ? bias[i] : 0.0f);
  if (ffn.groups > 1) keep_top_groups(ffn, s.groups, s.ranks.data());

  for (size_t i = 0; i < choices; ++i) s.order[i] = static_cast<int32_t>(i);
  const auto better = [&](int32_t a, int32_t b) {
    const float x = s.ranks[static_cast<size_t>(a)], y = s.ranks[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  };
  const auto begin = s.order.begin();
  std::partial_sort(begin, begin + ffn.top_k, begin + static_cast<int64_t>(choices), better);

  std::fill(s.order.begin() + static_cast<int64_t>(places_used(ffn, s)), begin + ffn.top_k, -1);
  weigh_experts(ffn, s.scores.data(), s.order.data(), out);
  return -1;
}

void weigh_experts(const FfnConfig& ffn, const float* scores, const int32_t* chosen, Route* out) {
  std::fill_n(out, ffn.top_k, Route{});
  float sum = 0;
  for (size_t n = 0; n < ffn.top_k && chosen[n] >= 0; ++n) {
    out[n].expert = chosen[n];
    if (chosen[n] >= static_cast<int32_t>(ffn.experts)) continue;
    out[n].weight = scores[chosen[n]];
    sum += out[n].weight;
  }
  const auto scale = static_cast<float>(ffn.scale);
  if (ffn.renormalise && sum < std::numeric_limits<float>::min()) {  // 1 / sum may be beyond a float
    for (size_t n = 0; n < ffn.top_k; ++n)
      out[n].weight = sum > 0 ? static_cast<float>(double{out[n].weight} / double{sum} * ffn.scale) : 0.0f;
    return;
  }
  const float factor = ffn.renormalise ? scale / sum : scale;
  for (size_t n = 0; n < ffn.top_k; ++n) out[n].weight *= factor;
}

void Routing::reserve(int64_t count, const FfnConfig& ffn) {
  const size_t places = static_cast<size_t>(count) * ffn.top_k;
  enlarge(routes, places);
  enlarge(rows, places);
  enlarge(place, places);
  enlarge(first, size_t{ffn.experts} + 1);
  used.reserve(std::min<size_t>(ffn.experts, places));
}

void Routing::sort(int64_t count, const FfnConfig& ffn) {
  reserve(count, ffn);
  first.resize(size_t{ffn.experts} + 1);
  std::fill(first.begin(), first.end(), 0);
  const size_t places = static_cast<size_t>(count) * ffn.top_k;
  const auto real = [&](size_t p) {
    return routes[p].expert >= 0 && routes[p].expert < static_cast<int32_t>(ffn.experts);
  };
  for (size_t p = 0; p < places; ++p)
    if (real(p)) ++first[static_cast<size_t>(routes[p].expert) + 1];
  used.clear();
  for (size_t e = 0; e < ffn.experts; ++e) {
    if (first[e + 1] > 0) used.push_back(static_cast<int32_t>(e));
    first[e + 1] += first[e];
  }
  // first[e] walks to the end of expert e, which is the beginning of e + 1; then it is moved back by one.
  for (size_t p = 0; p < places; ++p) {
    place[p] = -1;
    if (!real(p)) continue;
    int64_t& at = first[static_cast<size_t>(routes[p].expert)];
    rows[static_cast<size_t>(at)] = static_cast<int64_t>(p / ffn.top_k);
    place[p] = at++;
  }
  for (size_t e = ffn.experts; e > 0; --e) first[e] = first[e - 1];
  first[0] = 0;
}

}  // namespace mneme
