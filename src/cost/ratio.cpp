#include "cost/ratio.h"

#include <cmath>

#include "core/fail.h"

namespace mneme {
namespace {

double share_of(const Json& value, const char* name) {
  require(value.is_number(), ErrorCode::corrupt, "the report of spikes has no number \"{}\"", name);
  const auto number = value.get<double>();
  require(std::isfinite(number) && number >= 0 && number <= 1, ErrorCode::corrupt,
          "the report of spikes says {} = {}, which is no share between 0 and 1", name, number);
  return number;
}

}  // namespace

ModelShape dense_counterpart(ModelShape shape) {
  for (LayerConfig& layer : shape.config.layers)
    for (MixerConfig& mixer : layer.mixer.branches()) {
      MixerConfig full;
      full.heads = mixer.heads;
      full.kv_heads = mixer.kv_heads;
      full.head_dim = mixer.head_dim;
      mixer = full;
    }
  for (WeightShape& weight : shape.weights) {
    weight.active = 1;
    weight.used = weight.copies;
    if (weight.input == Linear::Input::spikes) {
      weight.input = Linear::Input::int8;
      weight.w.stripe_lines = 0;
    } else if (weight.input == Linear::Input::spike_floats) {
      weight.input = Linear::Input::floats;
    }
  }
  return shape;
}

void check_ratio(const SparsityRatio& ratio) {
  const std::pair<const char*, double> terms[] = {
      {"alpha", ratio.alpha}, {"m/n", ratio.m_over_n}, {"a", ratio.a}, {"k/M", ratio.k_over_m}};
  for (const auto& [name, value] : terms)
    require(std::isfinite(value) && value >= 0 && value <= 1, ErrorCode::invalid_argument,
            "{} is {}, but must be a number from 0 to 1", name, value);
  require(ratio.r() > 0, ErrorCode::invalid_argument,
          "R is 0: nothing would be computed; check alpha, m/n, a and k/M");
}

CountedRatio counted_ratio(const ModelShape& shape, KvType kv, uint64_t context) {
  const PassCost own = decode_cost(shape, kv, context);
  CountedRatio out;
  const PassCost dense = decode_cost(dense_counterpart(shape), kv, context);
  SparsityRatio& f = out.formula;
  f.n = static_cast<double>(context);
  const double dense_macs = dense.total().macs;
  if (dense_macs > 0) f.alpha = dense.position_macs / dense_macs;
  if (dense.position_macs > 0) f.m_over_n = own.position_macs / dense.position_macs;
  double inputs = 0, firing = 0, experts = 0, awake = 0;
  for (const WeightShape& weight : shape.weights) {
    const double all = weight.values() * weight.copies;
    if (weight.part == CostPart::feed_forward) {
      experts += all;
      awake += weight.values() * weight.used;
    }
    if (weight.projection.empty()) continue;
    inputs += all;
    firing += all * (is_spiking(weight.input) ? weight.active : 1);
  }
  if (inputs > 0) f.a = firing / inputs;
  if (experts > 0) f.k_over_m = awake / experts;
  out.macs = dense_macs > 0 ? own.total().macs / dense_macs : 1;
  const double dense_bytes = dense.total().bytes;
  out.bytes = dense_bytes > 0 ? own.total().bytes / dense_bytes : 1;
  return out;
}

FiringReport firing_report(const Json& json) {
  require(json.is_object() && json.contains("projections") && json["projections"].is_array() &&
              !json["projections"].empty(),
          ErrorCode::corrupt, "this is no report of `mneme spikes --json`: it has no list \"projections\"");
  FiringReport report;
  double sum = 0, weights = 0;
  for (const Json& entry : json["projections"]) {
    const bool whole = entry.is_object() && entry.contains("layer") && entry["layer"].is_number_unsigned() &&
                       entry.contains("name") && entry["name"].is_string() && entry.contains("silent") &&
                       entry.contains("inputs") && entry["inputs"].is_number_unsigned() &&
                       entry.contains("outputs") && entry["outputs"].is_number_unsigned() &&
                       entry.contains("popcount") && entry["popcount"].is_number();
    require(whole, ErrorCode::corrupt,
            "the report of spikes has a projection without layer, name, inputs, outputs, silent or popcount");
    const double active = 1 - share_of(entry["silent"], "silent");
    const auto inputs = entry["inputs"].get<uint64_t>(), outputs = entry["outputs"].get<uint64_t>();
    const double weight = static_cast<double>(inputs) * static_cast<double>(outputs);
    report.projections[{entry["layer"].get<size_t>(), entry["name"].get<std::string>()}] = {active, inputs,
                                                                                            outputs};
    const auto popcount = entry["popcount"].get<double>();
    require(popcount >= 0, ErrorCode::corrupt, "the report of spikes says popcount = {}, below 0", popcount);
    report.popcount += weight * popcount;
    sum += weight * active;
    weights += weight;
  }
  require(weights > 0 && std::isfinite(report.popcount), ErrorCode::corrupt,
          "the report of spikes counts no multiplications");
  report.mean = sum / weights;
  report.popcount /= weights;
  return report;
}

RoutingFigures routing_figures(const Json& json) {
  require(json.is_object() && json.contains("layers") && json["layers"].is_array() && !json["layers"].empty(),
          ErrorCode::corrupt, "this is no report of `mneme experts --json`: it has no list \"layers\"");
  RoutingFigures figures;
  for (const Json& entry : json["layers"]) {
    const bool whole = entry.is_object() && entry.contains("layer") && entry["layer"].is_number_unsigned() &&
                       entry.contains("experts") && entry["experts"].is_number_unsigned() &&
                       entry.contains("mean_active") && entry["mean_active"].is_number();
    require(whole, ErrorCode::corrupt,
            "the report of experts has a layer without layer, experts or mean_active");
    const auto experts = entry["experts"].get<uint64_t>();
    const auto active = entry["mean_active"].get<double>();
    require(active >= 0 && active <= static_cast<double>(experts), ErrorCode::corrupt,
            "the report of experts says {} of {} experts are active in layer {}", active, experts,
            entry["layer"].get<size_t>());
    figures.layers[entry["layer"].get<size_t>()] = {active, experts};
  }
  return figures;
}

void set_routing(ModelShape& shape, const RoutingFigures& routing) {
  bool any = false;
  for (WeightShape& weight : shape.weights) {
    if (!weight.name.ends_with("_exps")) continue;
    any = true;
    const auto found = routing.layers.find(weight.layer);
    require(found != routing.layers.end() && static_cast<double>(found->second.experts) == weight.copies,
            ErrorCode::mismatch,
            "the report of experts has no layer {} with {} experts: it is of another model", weight.layer,
            weight.copies);
    weight.used = found->second.active;
  }
  require(any, ErrorCode::invalid_argument,
          "no layer of the model has experts, so that --routing says nothing");
}

bool fires(const ModelShape& shape) {
  for (const WeightShape& weight : shape.weights)
    if (is_spiking(weight.input)) return true;
  return false;
}

void set_firing(ModelShape& shape, double active) {
  for (WeightShape& weight : shape.weights)
    if (is_spiking(weight.input)) weight.active = active;
}

void set_firing(ModelShape& shape, const FiringReport& report) {
  for (WeightShape& weight : shape.weights) {
    if (!is_spiking(weight.input)) continue;
    // What a report does not see: memory modules, and hidden values of experts.
    if (weight.projection.empty() || weight.projection.starts_with("down_")) {
      weight.active = report.mean;
      continue;
    }
    const auto found = report.projections.find({weight.layer, weight.projection});
    require(found != report.projections.end() &&
                found->second.inputs == static_cast<uint64_t>(weight.w.cols) &&
                found->second.outputs == static_cast<uint64_t>(weight.w.rows),
            ErrorCode::mismatch,
            "the report of spikes has no projection {} [{}x{}] of layer {}: it is of another model",
            weight.projection, weight.w.rows, weight.w.cols, weight.layer);
    weight.active = found->second.active;
  }
}

}  // namespace mneme
