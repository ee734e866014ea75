// Figures of how a router divides its tokens among experts, from counts: of a text that the engine reads
// (src/eval/routing_report.h) and of the steps of a training run.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace mneme {

/// The choices of one layer's router. An expert is starved if it gets less than a tenth of its even share.
struct LayerRouting {
  size_t layer = 0;
  uint32_t experts = 0, null_experts = 0, top_k = 0;
  std::vector<uint64_t> chosen;  // [experts + null_experts]: tokens that chose it
  std::vector<uint64_t> active;  // [top_k + 1]: tokens that passed so many experts, null experts not counted
  double score_entropy = 0;      // mean over tokens of the entropy of their scores / ln(choices), 0 to 1
  uint64_t tokens = 0;

  /// The part of all passes through experts that went to each, [experts]; sums to 1 unless nothing passed
  /// any.
  std::vector<double> load() const;
  /// Standard deviation of the load over its mean: 0 if all experts work the same.
  double variation() const;
  /// Entropy of the load / ln(experts): 1 if all work the same, 0 if one does everything.
  double entropy() const;
  std::vector<uint32_t> starved() const;
  double mean_active() const;  // experts that a token passes
  double null_share() const;   // of the places that were filled
};

/// -sum p ln p / ln(n) of values that need not sum to 1: 1 if they are equal, 0 if one is all (or all are 0).
double even_entropy(std::span<const float> values);
double even_entropy(std::span<const uint64_t> values);

}  // namespace mneme
