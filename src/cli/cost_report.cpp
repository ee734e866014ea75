#include "cli/cost_report.h"

#include <fmt/format.h>

#include "cli/terminal.h"
#include "core/fail.h"
#include "eval/spike_statistics.h"

namespace mneme::cli {

const char* const kRatioLeavesOut =
    "R counts multiply-adds only. It leaves out: bytes moved from memory (which bound decoding), the head "
    "and the projections of attention, which have no experts, the router, softmax, norms and neurons, the "
    "lists of events, barriers between stages, and that prefill computes silent inputs densely";

namespace {

std::string count_text(double value) {
  constexpr const char* kUnits[] = {"", " thousand", " million", " billion", " trillion"};
  size_t unit = 0;
  while (unit + 1 < std::size(kUnits) && value >= 1000) {
    value /= 1000;
    ++unit;
  }
  return fmt::format("{:.4g}{}", value, kUnits[unit]);
}

Json or_null(const std::optional<double>& value) {
  return value ? Json(*value) : Json();
}

std::optional<double> milliseconds(const std::optional<PredictedTime>& time) {
  return time ? std::optional(time->seconds() * 1e3) : std::nullopt;
}
std::optional<double> milliseconds(const std::optional<TimedRuns>& time) {
  return time ? std::optional(time->reached() * 1e3) : std::nullopt;
}
std::optional<double> quotient(const std::optional<double>& a, const std::optional<double>& b) {
  return a && b && *b > 0 ? std::optional(*a / *b) : std::nullopt;
}

Json shares(const PassCost& cost, double PartCost::*of) {
  const double all = cost.total().*of;
  Json out;
  for (const CostPart part : kAllCostParts) out[to_string(part)] = all > 0 ? cost[part].*of / all : 0.0;
  return out;
}

Json time_json(const PredictedTime& time) {
  Json parts;
  for (const CostPart part : kAllCostParts)
    parts[to_string(part)] = time.parts[static_cast<size_t>(part)] * 1e3;
  return {{"ms", time.seconds() * 1e3},           {"reading_ms", time.reading * 1e3},
          {"computing_ms", time.computing * 1e3}, {"stages_ms", time.stages * 1e3},
          {"read_gbps", time.read_gbps},          {"parts_ms", parts}};
}

Json ratio_json(const CostPoint& point) {
  const SourcedRatio& s = point.sourced;
  Json json{{"n", s.ratio.n},
            {"m", s.ratio.m()},
            {"sources", {{"alpha", s.alpha}, {"m_over_n", s.m}, {"a", s.a}, {"k_over_M", s.k}}},
            {"leaves_out", kRatioLeavesOut}};
  if (!point.shape) return json;
  json["counted_macs"] = point.counted.macs;
  json["counted_bytes"] = point.counted.bytes;
  json["predicted_time"] =
      or_null(quotient(milliseconds(point.predicted), milliseconds(point.predicted_dense)));
  json["measured_time"] =
      or_null(quotient(milliseconds(point.measured), milliseconds(point.measured_against)));
  return json;
}

Json energy_json(const CostPoint& point) {
  return {{"arithmetic_joules", arithmetic_joules(point)},
          {"pj",
           {{"fp16_mac", SpikeEnergy::kFp16Mac},
            {"int8_mac", SpikeEnergy::kInt8Mac},
            {"int8_add", SpikeEnergy::kInt8Add}}},
          {"macs",
           {{"float", point.decode.float_macs},
            {"int8", point.decode.int8_macs},
            {"spike", point.decode.spike_macs}}},
          {"spikes_counted_as", point.popcount ? "additions" : "int8 multiply-adds: no report of spikes"},
          {"leaves_out", SpikeEnergy::kOmissions}};
}

std::string percent(double part, double all) {
  return fmt::format("{:.1f}", all > 0 ? 100 * part / all : 0.0);
}

std::string share_table(const CostPoint& point) {
  std::vector<std::vector<std::string>> rows{{"part", "multiply-adds %", "bytes %", "predicted time %"}};
  const PartCost all = point.decode.total();
  for (const CostPart part : kAllCostParts) {
    const PartCost& own = point.decode[part];
    const std::string time = point.predicted ? percent(point.predicted->parts[static_cast<size_t>(part)],
                                                       point.predicted->seconds())
                                             : "-";
    rows.push_back(
        {std::string(to_string(part)), percent(own.macs, all.macs), percent(own.bytes, all.bytes), time});
  }
  return table(rows);
}

std::string ratio_text(const CostPoint& point) {
  const SourcedRatio& s = point.sourced;
  std::string text = fmt::format(
      "R = alpha m/n + (1 - alpha) a k/M = {:.5g}, speed-up 1/R = {:.4g}\n"
      "  alpha {:.4g} ({}); m/n {:.4g}, m = {:.0f} of n = {:.0f} ({}); a {:.4g} ({}); k/M {:.4g} ({})\n",
      s.ratio.r(), s.ratio.speedup(), s.ratio.alpha, s.alpha, s.ratio.m_over_n, s.ratio.m(), s.ratio.n, s.m,
      s.ratio.a, s.a, s.ratio.k_over_m, s.k);
  if (point.shape) {
    text += fmt::format(
        "  counted matrix by matrix: {:.5g} of the dense counterpart's multiply-adds, {:.5g} of its bytes",
        point.counted.macs, point.counted.bytes);
    if (const auto time = quotient(milliseconds(point.predicted), milliseconds(point.predicted_dense)))
      text += fmt::format(", {:.4g} of its predicted time", *time);
    if (const auto time = quotient(milliseconds(point.measured), milliseconds(point.measured_against)))
      text += fmt::format(", {:.4g} of the measured time of --against", *time);
    text += "\n";
  }
  return text + "  " + kRatioLeavesOut + "\n";
}

std::string time_text(const CostPoint& point) {
  std::string text;
  const auto line = [&](const char* what, const std::optional<PredictedTime>& predicted,
                        const std::optional<TimedRuns>& measured) {
    if (!predicted && !measured) return;
    text += fmt::format("{:<19}", what);
    if (predicted) text += fmt::format("{:.4g} ms predicted", predicted->seconds() * 1e3);
    if (measured)
      text += fmt::format("{}{:.4g} ms measured", predicted ? ", " : "", measured->reached() * 1e3);
    if (predicted && measured)
      text += fmt::format("; predicted / measured = {:.3f}", predicted->seconds() / measured->reached());
    text += "\n";
  };
  line("A token", point.predicted, point.measured);
  line("The prompt", point.predicted_prompt, point.measured_prompt);
  if (point.predicted)
    text += fmt::format(
        "{:19}bytes alone {:.4g} ms at {:.3g} GB/s, arithmetic alone {:.4g} ms, stages {:.4g} ms; {} "
        "threads\n",
        "", point.predicted->reading * 1e3, point.predicted->read_gbps, point.predicted->computing * 1e3,
        point.predicted->stages * 1e3, point.threads);
  return text + fmt::format("{:19}{}\n", "", point.figures);
}

std::string price_text(const CostPoint& point) {
  const CostPrice price = price_of(point);
  std::string text;
  if (price.by_hour)
    text += fmt::format("{:<19}{:.4g} for a million tokens at {} an hour\n", "Price", *price.by_hour,
                        point.rates.per_hour);
  if (price.by_energy)
    text += fmt::format("{:<19}{:.4g} for a million tokens at {} a kWh and {} W\n", "Price", *price.by_energy,
                        point.rates.per_kwh, point.rates.watts);
  if (price.by_model)
    text += fmt::format(
        "{:<19}{:.4g} for a million tokens at {} a kWh, of the energy model's arithmetic alone (give "
        "--watts)\n",
        "Price", *price.by_model, point.rates.per_kwh);
  return text;
}

}  // namespace

std::optional<double> CostPoint::token_seconds() const {
  if (measured) return measured->reached();
  if (predicted) return predicted->seconds();
  return std::nullopt;
}

double arithmetic_joules(const CostPoint& point) {
  const PassCost& cost = point.decode;
  const double spikes = point.popcount ? cost.spike_weights * spike_energy(*point.popcount).spike
                                       : cost.spike_macs * SpikeEnergy::kInt8Mac;
  return (cost.float_macs * SpikeEnergy::kFp16Mac + cost.int8_macs * SpikeEnergy::kInt8Mac + spikes) * 1e-12;
}

CostPrice price_of(const CostPoint& point) {
  constexpr double kMillion = 1e6, kJoules = 3.6e6;  // of a kWh
  CostPrice price;
  const auto seconds = point.token_seconds();
  const bool needs_time = point.rates.per_hour > 0 || (point.rates.per_kwh > 0 && point.rates.watts > 0);
  require(seconds || !needs_time, ErrorCode::invalid_argument,
          "a price needs a time of a token, and --machine none predicts none; leave that out or add "
          "--measure");
  if (point.rates.per_hour > 0) price.by_hour = point.rates.per_hour / 3600 * seconds.value_or(0) * kMillion;
  if (point.rates.per_kwh > 0 && point.rates.watts > 0)
    price.by_energy = point.rates.per_kwh * point.rates.watts * seconds.value_or(0) * kMillion / kJoules;
  else if (point.rates.per_kwh > 0)
    price.by_model = point.rates.per_kwh * arithmetic_joules(point) * kMillion / kJoules;
  return price;
}

Json to_json(const CostPoint& point) {
  const SparsityRatio& r = point.sourced.ratio;
  Json json{{"context", point.context},
            {"alpha", r.alpha},
            {"m_over_n", r.m_over_n},
            {"a", r.a},
            {"k_over_M", r.k_over_m},
            {"R", r.r()},
            {"speedup", r.speedup()},
            {"ratio", ratio_json(point)},
            {"predicted_ms", or_null(milliseconds(point.predicted))},
            {"measured_ms", or_null(milliseconds(point.measured))},
            {"notes", point.notes}};
  for (const auto& [key, value] : point.swept) json["swept"][key] = value;
  if (!point.shape) {
    for (const char* key : {"macs", "bytes", "state_bytes", "share"}) json[key] = Json();
    return json;
  }
  const PartCost all = point.decode.total(), reading = point.reading.total();
  json.update({{"kv", point.kv},
               {"macs", all.macs},
               {"bytes", all.bytes},
               {"share", shares(point.decode, &PartCost::macs)},
               {"share_bytes", shares(point.decode, &PartCost::bytes)},
               {"position_macs", point.decode.position_macs},
               {"weight_bytes", point.shape->decode_weight_bytes()},
               {"state_bytes", point.kv_bytes + point.recurrent_bytes},
               {"kv_bytes", point.kv_bytes},
               {"recurrent_state_bytes", point.recurrent_bytes},
               {"resident_bytes", point.shape->resident},
               {"disk_bytes", point.shape->disk},
               {"table_bytes", point.shape->table_bytes},
               {"table_rows", point.shape->table_rows},
               {"predicted_over_measured",
                or_null(quotient(milliseconds(point.predicted), milliseconds(point.measured)))},
               {"prompt",
                {{"tokens", point.prompt},
                 {"macs", reading.macs},
                 {"bytes", reading.bytes},
                 {"share", shares(point.reading, &PartCost::macs)},
                 {"predicted_ms", or_null(milliseconds(point.predicted_prompt))},
                 {"measured_ms", or_null(milliseconds(point.measured_prompt))}}},
               {"figures", point.figures},
               {"threads", point.threads},
               {"energy_model", energy_json(point)}});
  if (point.predicted) json["roofline"] = time_json(*point.predicted);
  if (point.measured)
    json["measured_runs_ms"] = [&] {
      Json runs = Json::array();
      for (const double seconds : point.measured->seconds) runs.push_back(seconds * 1e3);
      return runs;
    }();
  const CostPrice price = price_of(point);
  if (price.by_hour || price.by_energy || price.by_model)
    json["price_per_million"] = {{"by_hour", or_null(price.by_hour)},
                                 {"by_energy", or_null(price.by_energy)},
                                 {"by_energy_model", or_null(price.by_model)}};
  return json;
}

std::string describe(const CostPoint& point) {
  std::string text;
  const auto line = [&](std::string_view name, const std::string& value) {
    text += fmt::format("{:<19}{}\n", name, value);
  };
  const auto size = [](auto bytes) { return human_bytes(static_cast<double>(bytes)); };
  if (point.shape) {
    const ModelShape& shape = *point.shape;
    const PartCost all = point.decode.total(), reading = point.reading.total();
    if (!shape.config.name.empty()) line("Name", shape.config.name);
    line("One token", fmt::format("that sees {} positions: {} multiply-adds, {} from memory", point.context,
                                  count_text(all.macs), size(all.bytes)));
    line("A prompt", fmt::format("of {} tokens: {} multiply-adds, {} from memory", point.prompt,
                                 count_text(reading.macs), size(reading.bytes)));
    line("State", fmt::format("{}: {} of keys and values ({}), {} of recurrences",
                              size(point.kv_bytes + point.recurrent_bytes), size(point.kv_bytes), point.kv,
                              size(point.recurrent_bytes)));
    line("Weights", fmt::format("{} resident, {} on disk", size(shape.resident), size(shape.disk)));
    if (shape.table_bytes > 0)
      line("Memory tables", fmt::format("{} rows, {}", shape.table_rows, size(shape.table_bytes)));
    text += share_table(point);
    text += time_text(point);
    text += price_text(point);
    line("Energy, a model",
         fmt::format("{:.3g} mJ of arithmetic for a token (45 nm constants, not measured); leaves out {}",
                     arithmetic_joules(point) * 1e3, SpikeEnergy::kOmissions));
  }
  text += ratio_text(point);
  for (const std::string& note : point.notes) text += "note: " + note + "\n";
  return text;
}

std::vector<std::vector<std::string>> sweep_rows(const std::vector<CostPoint>& points) {
  std::vector<std::vector<std::string>> rows(1);
  for (const auto& [key, value] : points.front().swept) rows[0].push_back(key);
  for (const char* name : {"million MACs", "MB a token", "state MB", "resident MB", "disk MB", "R", "1/R",
                           "predicted ms", "measured ms"})
    rows[0].emplace_back(name);
  const CostRates& rates = points.front().rates;
  const bool by_hour = rates.per_hour > 0, by_power = rates.per_kwh > 0;
  if (by_hour) rows[0].emplace_back("a million tokens, by the hour");
  if (by_power) rows[0].emplace_back(rates.watts > 0 ? "by power" : "by the energy model");
  const auto cell = [](const std::optional<double>& value) {
    return value ? fmt::format("{:.4g}", *value) : std::string("-");
  };
  for (const CostPoint& point : points) {
    std::vector<std::string> row;
    row.reserve(rows[0].size());
    for (const auto& [key, value] : point.swept) row.push_back(fmt::format("{}", value));
    const PartCost all = point.decode.total();
    for (const double value :
         {all.macs, all.bytes, static_cast<double>(point.kv_bytes + point.recurrent_bytes),
          static_cast<double>(point.shape->resident), static_cast<double>(point.shape->disk)})
      row.push_back(fmt::format("{:.1f}", value / 1e6));
    row.push_back(cell(point.sourced.ratio.r()));
    row.push_back(cell(point.sourced.ratio.speedup()));
    row.push_back(cell(milliseconds(point.predicted)));
    row.push_back(cell(milliseconds(point.measured)));
    const CostPrice price = price_of(point);
    if (by_hour) row.push_back(cell(price.by_hour));
    if (by_power) row.push_back(cell(price.by_energy ? price.by_energy : price.by_model));
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace mneme::cli
