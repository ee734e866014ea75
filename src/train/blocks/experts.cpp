#include "train/blocks/experts.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/fail.h"
#include "train/blocks/parameters.h"

namespace mneme::train {
namespace {

double rounded_share(double value) {
  return std::round(value * 1e6) / 1e6;
}

OrderedJson routing_line(const LayerRouting& layer) {
  OrderedJson load = OrderedJson::array();
  for (const double part : layer.load()) load.push_back(rounded_share(part));
  return {{"layer", layer.layer},
          {"load", std::move(load)},
          {"cv", rounded_share(layer.variation())},
          {"entropy", rounded_share(layer.entropy())},
          {"starved", layer.starved()},
          {"active", layer.active},
          {"mean_active", rounded_share(layer.mean_active())},
          {"null_share", rounded_share(layer.null_share())},
          {"score_entropy", rounded_share(layer.score_entropy)}};
}

}  // namespace

BalanceConfig BalanceConfig::from_json(JsonFields fields) {
  BalanceConfig out;
  out.balance = fields.number("balance", 0.0, 1e6, out.balance);
  out.entropy = fields.number("entropy", 0.0, 1e6, out.entropy);
  out.bias_rate = fields.number("bias_rate", 0.0, 1.0, out.bias_rate);
  if (fields.has("null_share")) out.null_share = fields.number("null_share", 0.0, 1.0);
  fields.finish();
  return out;
}

Json BalanceConfig::to_json() const {
  Json out = {{"balance", balance}, {"entropy", entropy}, {"bias_rate", bias_rate}};
  if (null_share) out["null_share"] = *null_share;
  return out;
}

TargetShares target_shares(const FfnConfig& ffn, const std::optional<double>& null_share) {
  const double nulls = ffn.null_experts, even = nulls / ffn.choices();
  const double share = nulls == 0 ? 0.0 : null_share.value_or(even);
  return {(1 - share) / ffn.experts, nulls == 0 ? 0.0 : share / nulls};
}

ExpertTally::ExpertTally(const ModelConfig& config) {
  for (size_t i = 0; i < config.layers.size(); ++i) {
    const FfnConfig& ffn = config.layers[i].ffn;
    if (!ffn.moe()) continue;
    LayerRouting layer{i, ffn.experts, ffn.null_experts, ffn.top_k, {}, {}, 0, 0};
    layer.chosen.resize(ffn.choices());
    layer.active.resize(size_t{ffn.top_k} + 1);
    layers_.push_back(std::move(layer));
  }
}

void ExpertTally::add(uint32_t layer, const Tensor& chosen, const Tensor& scores, int64_t positions,
                      int64_t sink_tokens) {
  const auto found =
      std::find_if(layers_.begin(), layers_.end(), [&](const LayerRouting& l) { return l.layer == layer; });
  require(found != layers_.end(), ErrorCode::internal, "layer {} was not a mixture when counting began",
          layer);
  const Tensor ids = chosen.to(at::kCPU).contiguous(),
               values = scores.detach().to(at::kCPU, at::kFloat).contiguous();
  const auto choices = static_cast<size_t>(values.size(1));
  for (int64_t row = 0; row < ids.size(0); ++row) {
    if (row % positions < sink_tokens) continue;
    size_t active = 0;
    for (int64_t place = 0; place < ids.size(1); ++place) {
      const int64_t id = ids.data_ptr<int64_t>()[row * ids.size(1) + place];
      if (id < 0) continue;
      ++found->chosen.at(static_cast<size_t>(id));
      active += id < int64_t{found->experts} ? 1 : 0;
    }
    ++found->active.at(active);
    ++found->tokens;
    found->score_entropy +=
        even_entropy(std::span<const float>(values.data_ptr<float>() + row * values.size(1), choices));
  }
}

void ExpertTally::add(const ExpertTally& other) {
  if (none()) {
    *this = other;
    return;
  }
  const Tensor sum = numbers() + other.numbers();
  restore(sum);
}

std::vector<LayerRouting> ExpertTally::layers() const {
  std::vector<LayerRouting> out = layers_;
  for (LayerRouting& layer : out)
    if (layer.tokens > 0) layer.score_entropy /= static_cast<double>(layer.tokens);
  return out;
}

double ExpertTally::mean_active() const {
  double sum = 0;
  for (const LayerRouting& layer : layers_) sum += layer.mean_active();
  return none() ? 0 : sum / static_cast<double>(layers_.size());
}

double ExpertTally::variation() const {
  double sum = 0;
  for (const LayerRouting& layer : layers_) sum += layer.variation();
  return none() ? 0 : sum / static_cast<double>(layers_.size());
}

uint64_t ExpertTally::starved() const {
  uint64_t sum = 0;
  for (const LayerRouting& layer : layers_) sum += layer.starved().size();
  return sum;
}

OrderedJson ExpertTally::report() const {
  OrderedJson out = OrderedJson::array();
  for (const LayerRouting& layer : layers()) out.push_back(routing_line(layer));
  return out;
}

Tensor ExpertTally::numbers() const {
  std::vector<double> out;
  for (const LayerRouting& layer : layers_) {
    for (const uint64_t n : layer.chosen) out.push_back(static_cast<double>(n));
    for (const uint64_t n : layer.active) out.push_back(static_cast<double>(n));
    out.push_back(layer.score_entropy);
    out.push_back(static_cast<double>(layer.tokens));
  }
  return at::tensor(at::ArrayRef<double>(out), at::kDouble);
}

void ExpertTally::restore(const Tensor& numbers) {
  const Tensor values = numbers.to(at::kCPU, at::kDouble).contiguous();
  size_t wanted = 0;
  for (const LayerRouting& layer : layers_) wanted += layer.chosen.size() + layer.active.size() + 2;
  require(values.dim() == 1 && static_cast<size_t>(values.numel()) == wanted, ErrorCode::corrupt,
          "a tally of experts has {} numbers instead of {}", values.numel(), wanted);
  const double* at = values.data_ptr<double>();
  for (LayerRouting& layer : layers_) {
    for (uint64_t& n : layer.chosen) n = static_cast<uint64_t>(*at++);
    for (uint64_t& n : layer.active) n = static_cast<uint64_t>(*at++);
    layer.score_entropy = *at++;
    layer.tokens = static_cast<uint64_t>(*at++);
  }
}

Tensor routing_price(const FfnConfig& ffn, const Tensor& scores, const Tensor& chosen,
                     const ExpertOptions& options) {
  const Tensor shares = scores / scores.sum(1, true).clamp_min(1e-30);
  Tensor price = at::zeros({}, scores.options());
  if (options.balance > 0) {
    const int64_t experts = ffn.experts, nulls = ffn.null_experts;
    const Tensor filled = chosen.masked_select(chosen.ge(0)).to(at::kLong);
    Tensor f = at::bincount(filled, {}, experts + nulls).to(scores.options());
    f = f / std::max<double>(1, static_cast<double>(filled.numel()));
    const TargetShares target = target_shares(ffn, options.null_share);
    // A share that nobody should get has no price to divide by: it counts as one place in a million.
    f.narrow(0, 0, experts).div_(std::max(target.expert, 1e-6));
    if (nulls > 0) {
      Tensor of_nulls = f.narrow(0, experts, nulls);
      of_nulls.fill_(of_nulls.mean().item<double>() / std::max(target.null_expert, 1e-6));
    }
    price = price + options.balance * (f * shares.mean(0)).sum();
  }
  if (options.entropy > 0)
    price = price - options.entropy * (shares * at::log(shares.clamp_min(1e-30))).sum(1).mean();
  return price;
}

void balance_biases(const ModelConfig& config, const Parameters& parameters, const ExpertTally& step,
                    const BalanceConfig& balance) {
  const at::NoGradGuard no_graph;
  for (const LayerRouting& layer : step.layers()) {
    const FfnConfig& ffn = config.layers[layer.layer].ffn;
    const uint64_t places = std::accumulate(layer.chosen.begin(), layer.chosen.end(), uint64_t{0});
    if (!ffn.selection_bias || balance.bias_rate == 0 || places == 0) continue;
    const TargetShares target = target_shares(ffn, balance.null_share);
    uint64_t of_nulls = 0;
    for (size_t c = ffn.experts; c < layer.chosen.size(); ++c) of_nulls += layer.chosen[c];
    const Tensor& leaf = parameters.at(fmt::format("blk.{}.exp_probs_b.bias", layer.layer));
    if (!leaf.requires_grad()) continue;
    Tensor bias = leaf.detach();
    std::vector<double> move;
    for (size_t c = 0; c < layer.chosen.size(); ++c) {
      const bool null = c >= ffn.experts;
      const double got =
          null ? static_cast<double>(of_nulls) / ffn.null_experts : static_cast<double>(layer.chosen[c]);
      const double missing = (null ? target.null_expert : target.expert) * static_cast<double>(places) - got;
      move.push_back(missing > 0 ? balance.bias_rate : missing < 0 ? -balance.bias_rate : 0.0);
    }
    bias.add_(at::tensor(at::ArrayRef<double>(move), at::kDouble).to(bias.options()));
  }
}

}  // namespace mneme::train
