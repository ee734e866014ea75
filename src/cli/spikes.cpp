// `mneme spikes`: the spikes that a text causes in a model, as figures and pictures; src/eval/spike_report.h
// and docs/spikes.md say what is counted.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>

#include "cli/input.h"
#include "cli/options.h"
#include "cli/output_check.h"
#include "cli/progress.h"
#include "cli/signals.h"
#include "cli/suggest.h"
#include "cli/terminal.h"
#include "cli/text_options.h"
#include "cli/verb.h"
#include "core/fail.h"
#include "core/file.h"
#include "engine/session_sequence.h"
#include "eval/nir_export.h"
#include "eval/perplexity.h"
#include "eval/spike_pictures.h"
#include "eval/spike_report.h"
#include "model/projection_probe.h"

namespace mneme::cli::spikes_verb {
namespace {

struct Options {
  CommonOptions common;
  ModelOptions model;
  SessionFlags session;
  TextOptions text;
  std::optional<float> k, dead_zone;
  bool no_ppl = false;
  uint32_t steps = 3;
  std::string raster, histogram, nir, layer, projection, coding;
  uint32_t draw_tokens = 16, draw_neurons = 128;

  /// The neuron asked for; empty: that of each projection.
  std::optional<SpikeRule> rule() const {
    if (!k && !dead_zone) return std::nullopt;
    return SpikeRule{k.value_or(SpikeRule{}.k), dead_zone.value_or(SpikeRule{}.dead_zone)};
  }
  bool records() const { return !raster.empty() || !nir.empty(); }
};

/// The code asked for, or else the one that fits: bidirectional for pictures, ternary for NIR.
SpikeCode coding(const Options& options, SpikeCode otherwise) {
  if (options.coding.empty()) return otherwise;
  const auto code = spike_code_from(options.coding);
  if (code) return *code;
  std::vector<std::string> names;
  names.reserve(std::size(kSpikeCodes));
  for (const SpikeCode known : kSpikeCodes) names.emplace_back(to_string(known));
  throw UsageError(fmt::format("--coding: there is no coding \"{}\"; it is one of {}{}",
                               options.coding.substr(0, 40), fmt::join(names, ", "),
                               did_you_mean(options.coding, names)));
}

std::optional<size_t> layer_of(const Options& options) {
  if (options.layer.empty()) return std::nullopt;
  const auto numbers = number_list(options.layer, "--layer", 0, (1u << 20));
  if (numbers.size() != 1) throw UsageError("--layer takes one number");
  return numbers[0];
}

std::vector<std::string> projections_of(const Options& options) {
  std::vector<std::string> names;
  for (size_t at = 0; at < options.projection.size();) {
    const size_t comma = std::min(options.projection.find(',', at), options.projection.size());
    names.push_back(options.projection.substr(at, comma - at));
    at = comma + 1;
  }
  return names;
}

// What is wrong with a file's name is said before the work.
void check_outputs(const Options& options) {
  if (!options.nir.empty() && fs::path(options.nir).extension() != ".nir")
    throw UsageError(fmt::format("--nir {}: the name of a NIR file ends in .nir", options.nir));
  if (!options.nir.empty() && options.layer.empty())
    throw UsageError("--nir needs --layer N: NIR cannot express the norms and the attention between layers");
  check_output_file(options.nir);
  check_picture_file("--raster", options.raster);
  check_picture_file("--histogram", options.histogram);
}

/// Neighbours in the report that read the same input.
struct Input {
  size_t layer;
  std::string names;  // "q, k, v"
  std::shared_ptr<const SpikeHistogram> histogram;
};
std::vector<Input> inputs_of(const SpikeReport& report) {
  std::vector<Input> inputs;
  for (const ProjectionSpikes& p : report.projections) {
    if (!inputs.empty() && inputs.back().histogram == p.histogram)
      inputs.back().names += ", " + p.name;
    else
      inputs.push_back({p.layer, p.name, p.histogram});
  }
  return inputs;
}

std::vector<SpikePanel> panels_of(const SpikeReport& report, std::optional<size_t> layer) {
  std::vector<SpikePanel> panels;
  for (const Input& input : inputs_of(report)) {
    if (layer && input.layer != *layer) continue;
    auto at = std::find_if(panels.begin(), panels.end(),
                           [&](const SpikePanel& p) { return p.name == input.names; });
    if (at == panels.end()) at = panels.insert(panels.end(), {input.names, {}});
    at->histogram.add(*input.histogram);
  }
  return panels;
}

/// The neuron of all projections, if they have the same.
std::optional<SpikeRule> common_rule(const SpikeReport& report) {
  const SpikeRule first = report.projections.front().rule;
  const bool same = std::all_of(report.projections.begin(), report.projections.end(),
                                [&](const ProjectionSpikes& p) { return p.rule == first; });
  return same ? std::optional(first) : std::nullopt;
}

std::string rule_text(const SpikeReport& report) {
  const auto rule = common_rule(report);
  return rule ? fmt::format("k = {}, dead zone {}", rule->k, rule->dead_zone) : "the neurons of the model";
}

void save(const std::string& path, const std::string& content) {
  AtomicFile out{fs::path(path)};
  out.write(content);
  out.commit();
}

void draw(const Options& options, const Model& model, const SpikeReport& report) {
  const SpikeCode code = coding(options, SpikeCode::bidirectional);
  if (!options.raster.empty())
    save(options.raster,
         spike_raster(report.records.front(), code, options.draw_neurons, picture_format(options.raster)));
  if (options.histogram.empty()) return;
  const auto layer = layer_of(options);
  const std::string name = model_name(model.config(), model.path());
  const std::string title =
      fmt::format("{}, {}{}", name, rule_text(report), layer ? fmt::format(", layer {}", *layer) : "");
  save(options.histogram,
       spike_histograms(title, panels_of(report, layer), code, picture_format(options.histogram)));
}

fs::path nir_data(const std::string& graph) {
  return fs::path(graph).replace_extension(".spikes.h5");
}

void export_nir(const Options& options, const Model& model, const SpikeReport& report) {
  const NirExport files = nir_export(model, report.records, coding(options, SpikeCode::ternary));
  save(nir_data(options.nir).string(), files.spikes);
  save(options.nir, files.graph);
}

// ---- what spikes cost the model

struct Perplexities {
  double spikes = 0, floats = 0;
  uint64_t tokens = 0;  // scored
  std::string why_not;  // empty: they were measured
};

bool fires(const Model& model) {
  for (const ProbeSite& site : probe_sites(model.impl()))
    for (const ProbeSite::Reader& reader : site.readers)
      if (reader.linear->input == Linear::Input::spikes ||
          reader.linear->input == Linear::Input::spike_floats)
        return true;
  return false;
}

PerplexityResult score(const Options& options, const std::shared_ptr<const Model>& model,
                       std::span<const TokenId> ids, uint32_t window, const CancelToken& cancel) {
  Progress bar("Scoring", Progress::Unit::tokens, !options.common.quiet);
  SessionOptions session = session_options(options.session);
  session.max_context = window;
  SessionRunner runner(model, session);
  PerplexityOptions request;
  request.ctx = window;
  request.cancel = &cancel;
  request.progress = [&](uint64_t done, uint64_t, double) { bar.update(done, ids.size()); };
  return perplexity(runner, stream_ids(ids, opening_token(*model)), request);
}

/// Of the same text with float activations and with spikes: those of the model if it has any, else of all
/// projections.
Perplexities measure_perplexities(const Options& options, const std::shared_ptr<const Model>& model,
                                  std::span<const TokenId> ids, uint32_t window, const CancelToken& cancel) {
  Perplexities result;
  if (options.no_ppl || ids.size() < 2 || window < 2) {
    result.why_not = options.no_ppl   ? "--no-ppl"
                     : ids.size() < 2 ? "a text of one token"
                                      : "windows of one token";
    return result;
  }
  window = static_cast<uint32_t>(std::min<size_t>(window, ids.size()));
  const auto with = [&](const std::string& activation) {
    ModelOptions wanted = options.model;
    wanted.activation = activation;
    return load_model(wanted, options.common);
  };
  const SpikeRule rule = options.rule().value_or(SpikeRule{});
  try {
    const bool own = fires(*model) && !options.rule();
    const PerplexityResult spikes =
        score(options, own ? model : with(fmt::format("spike:k={},dead_zone={}", rule.k, rule.dead_zone)),
              ids, window, cancel);
    result.spikes = spikes.ppl;
    result.tokens = spikes.tokens;
    result.floats = score(options, with("float"), ids, window, cancel).ppl;
  } catch (const Error& error) {
    if (error.code() != ErrorCode::unsupported) throw;
    result.why_not = error.what();  // such as rows that do not divide into blocks
  }
  return result;
}

// ---- figures

struct Figure {
  const char* json;
  const char* heading;
  double (*of)(const SpikeHistogram&, int64_t steps);
  const char* format;
  double scale;
};
constexpr Figure kFigures[] = {
    {"silent", "silent %", [](const SpikeHistogram& h, int64_t) { return h.silent(); }, "{:.1f}", 100},
    {"mean_abs", "E|s|", [](const SpikeHistogram& h, int64_t) { return h.mean_size(); }, "{:.2f}", 1},
    {"popcount", "popcount", [](const SpikeHistogram& h, int64_t) { return h.popcount(); }, "{:.2f}", 1},
    {"slot_sparsity", "free slots %",
     [](const SpikeHistogram& h, int64_t steps) { return h.slot_sparsity(steps); }, "{:.1f}", 100},
    {"silent_windows", "windows %",
     [](const SpikeHistogram& h, int64_t steps) { return h.window_spikes(steps)[0]; }, "{:.1f}", 100},
    {"le7", "|s|<=7 %", [](const SpikeHistogram& h, int64_t) { return h.at_most_seven(); }, "{:.1f}", 100},
};

double mean(const SpikeReport& report, const Figure& figure, int64_t steps) {
  return report.mean([&](const ProjectionSpikes& p) { return figure.of(*p.histogram, steps); });
}

// What the counts of the whole model take in each code.
struct CodeCost {
  SpikeCode code;
  std::string why_not;  // empty: it can hold them
  int64_t steps = 0;
  double spikes = 0;
};
std::vector<CodeCost> code_costs(const SpikeHistogram& all) {
  std::vector<CodeCost> costs;
  for (const SpikeCode code : kSpikeCodes) {
    CodeCost cost{code, "", 0, 0};
    if (is_unsigned(code) && all.least() < 0) {
      cost.why_not = "cannot hold negative counts";
    } else {
      cost.steps = spike_steps(code, all.least(), all.most());
      for (const auto& [spikes, n] : all.spikes_per_value(code, cost.steps))
        cost.spikes +=
            static_cast<double>(spikes) * static_cast<double>(n) / static_cast<double>(all.values());
    }
    costs.push_back(cost);
  }
  return costs;
}

Json counts_json(const SpikeHistogram& histogram) {  // [count, occurrences], the rare ones too
  Json counts = Json::array();
  histogram.for_each([&](int32_t count, uint64_t n) { counts.push_back({count, n}); });
  return counts;
}

// 2.2f as 2.2, not as 2.200000047683716.
double shortest(float x) {
  return std::stod(fmt::format("{}", x));
}

Json as_json(const Options& options, const SpikeReport& report, const Perplexities& ppl) {
  const int64_t steps = options.steps;
  Json projections = Json::array(), means, codes = Json::array();
  const SpikeHistogram* before = nullptr;
  for (const ProjectionSpikes& p : report.projections) {
    Json entry{{"layer", p.layer}, {"name", p.name}, {"inputs", p.inputs}, {"outputs", p.outputs}};
    for (const Figure& figure : kFigures) entry[figure.json] = figure.of(*p.histogram, steps);
    entry["max"] = p.histogram->largest();
    entry["k"] = shortest(p.rule.k);
    entry["dead_zone"] = shortest(p.rule.dead_zone);
    entry["path"] = p.event_tokens > 0.5 ? "events" : "dense";
    entry["event_tokens"] = p.event_tokens;
    if (p.histogram.get() != before)
      entry["counts"] = counts_json(*p.histogram);  // others read the same input
    before = p.histogram.get();
    projections.push_back(entry);
  }
  for (const Figure& figure : kFigures) means[figure.json] = mean(report, figure, steps);
  for (const CodeCost& cost : code_costs(report.histogram())) {
    Json entry{{"code", to_string(cost.code)}};
    if (cost.why_not.empty()) {
      entry["steps"] = cost.steps;
      entry["spikes"] = cost.spikes;
      entry["rate"] = cost.spikes / static_cast<double>(cost.steps);
    } else {
      entry["why_not"] = cost.why_not;
    }
    codes.push_back(entry);
  }
  const SpikeEnergy energy = spike_energy(means["popcount"].get<double>());
  const auto rule = common_rule(report);
  const bool scored = ppl.why_not.empty();
  return {{"k", rule ? Json(shortest(rule->k)) : Json()},
          {"dead_zone", rule ? Json(shortest(rule->dead_zone)) : Json()},
          {"ppl", scored ? Json(ppl.spikes) : Json()},
          {"ppl_float", scored ? Json(ppl.floats) : Json()},
          {"ppl_tokens", ppl.tokens},
          {"tokens", report.tokens},
          {"steps", steps},
          {"projections", projections},
          {"mean", means},
          {"codes", codes},
          {"energy_model",
           {{"pj_per_mac",
             {{"spike", energy.spike}, {"fp16", SpikeEnergy::kFp16Mac}, {"int8", SpikeEnergy::kInt8Mac}}},
            {"pj_per_add", SpikeEnergy::kInt8Add},
            {"leaves_out", SpikeEnergy::kOmissions}}}};
}

std::vector<std::string> figure_row(const SpikeReport* report, const SpikeHistogram* histogram,
                                    int64_t steps) {
  std::vector<std::string> row;
  for (const Figure& figure : kFigures) {
    const double value = histogram != nullptr ? figure.of(*histogram, steps) : mean(*report, figure, steps);
    row.push_back(fmt::format(fmt::runtime(figure.format), value * figure.scale));
  }
  return row;
}

void print_report(const Options& options, const SpikeReport& report, const Perplexities& ppl) {
  const int64_t steps = options.steps;
  std::vector<std::vector<std::string>> rows{{"layer", "input of"}};
  for (const Figure& figure : kFigures) rows[0].emplace_back(figure.heading);
  rows[0].emplace_back("max");
  const auto add = [&](std::string layer, std::string names, std::vector<std::string> figures,
                       int64_t largest) {
    auto& row = rows.emplace_back(std::vector<std::string>{std::move(layer), std::move(names)});
    row.insert(row.end(), figures.begin(), figures.end());
    row.push_back(std::to_string(largest));
  };
  for (const Input& input : inputs_of(report))
    add(std::to_string(input.layer), input.names, figure_row(nullptr, input.histogram.get(), steps),
        input.histogram->largest());
  const SpikeHistogram all = report.histogram();
  add("all", "by multiplications", figure_row(&report, nullptr, steps), all.largest());
  print(table(rows));
  print(fmt::format("{} tokens, {}; free slots and silent windows at T = {}\n", report.tokens,
                    rule_text(report), steps));
  const double events = report.mean([](const ProjectionSpikes& p) { return p.event_tokens; });
  print(
      fmt::format("decoding would take the event-driven way for {:.1f} % of products (by multiplications)\n",
                  100 * events));
  print(ppl.why_not.empty()
            ? fmt::format("perplexity {:.4f} with spikes, {:.4f} with float activations: {:+.2f} % ({} "
                          "tokens scored)\n\n",
                          ppl.spikes, ppl.floats, 100 * (ppl.spikes / ppl.floats - 1), ppl.tokens)
            : fmt::format("perplexity not measured: {}\n\n", ppl.why_not));

  std::vector<std::vector<std::string>> codes{{"code", "T", "spikes a neuron", "of slots %"}};
  for (const CodeCost& cost : code_costs(all))
    codes.push_back(
        cost.why_not.empty()
            ? std::vector<std::string>{std::string(to_string(cost.code)), std::to_string(cost.steps),
                                       fmt::format("{:.2f}", cost.spikes),
                                       fmt::format("{:.1f}",
                                                   100 * cost.spikes / static_cast<double>(cost.steps))}
            : std::vector<std::string>{std::string(to_string(cost.code)), "-", cost.why_not, "-"});
  print(table(codes));
  const SpikeEnergy energy = spike_energy(mean(report, kFigures[2], steps));
  print(fmt::format(
      "\nenergy, a model and not measured: {:.3f} pJ for a weight ({:.2f} additions of {} pJ), {:.1f} % "
      "below {} pJ of an FP16 MAC, {:.1f} % below {} pJ of an INT8 MAC (45 nm); leaves out {}\n",
      energy.spike, energy.spike / SpikeEnergy::kInt8Add, SpikeEnergy::kInt8Add,
      100 * energy.less_than_fp16(), SpikeEnergy::kFp16Mac, 100 * energy.less_than_int8(),
      SpikeEnergy::kInt8Mac, SpikeEnergy::kOmissions));
}

void check_rule(const Options& options) {
  try {
    if (const auto rule = options.rule()) check_spike_rule(*rule);
  } catch (const Error& error) {
    throw UsageError(fmt::format("--k, --dead-zone: {}", error.what()));
  }
}

int run(const Options& options) {
  check_text_options(options.text);
  check_rule(options);
  coding(options, SpikeCode::bidirectional);
  check_outputs(options);
  const auto layer = layer_of(options);
  const auto model = load_model(options.model, options.common);
  const std::vector<TokenId> ids = text_ids(options.text, *model);
  if (layer)
    require(*layer < model->config().layers.size(), ErrorCode::not_found,
            "--layer {}: the model has layers 0 to {}", *layer, model->config().layers.size() - 1);
  const InterruptScope interrupt;
  Progress bar("Counting spikes", Progress::Unit::tokens, !options.common.quiet);
  SpikeReportOptions request;
  request.rule = options.rule();
  request.ctx = window_of(options.text, *model);
  request.bos = opening_token(*model);
  request.cancel = &interrupt.token();
  request.progress = [&bar](uint64_t done, uint64_t total) { bar.update(done, total); };
  if (options.records())
    request.record = SpikeReportOptions::Recording{
        layer.value_or(0), projections_of(options),
        static_cast<uint32_t>(std::min<uint64_t>({options.draw_tokens, ids.size(), request.ctx}))};
  const SpikeReport report = spike_report(model, ids, request, session_options(options.session));
  bar.clear();
  draw(options, *model, report);
  if (!options.nir.empty()) export_nir(options, *model, report);
  const Perplexities ppl = measure_perplexities(options, model, ids, request.ctx, interrupt.token());
  if (options.common.json)
    print_json(as_json(options, report, ppl));
  else
    print_report(options, report, ppl);
  flush_output();
  return kDone;
}

Action set_up(CLI::App& app) {
  auto options = std::make_shared<Options>();
  add_model_options(app, options->model);
  add_text_options(app, options->text);
  app.add_option("--k", options->k,
                 "Spikes that a neuron fires on average: the threshold is mean|x| / k; else the model's, or "
                 "3 (also with --dead-zone alone)")
      ->type_name("K")
      ->check(CLI::Range(1e-3f, 64.0f).description(""));
  app.add_option("--dead-zone", options->dead_zone,
                 "Inputs below so many thresholds are silent; up to 0.5 that changes nothing")
      ->type_name("Z")
      ->check(CLI::Range(0.0f, 1e4f).description(""));
  app.add_flag("--no-ppl", options->no_ppl, "Without perplexities, for which the text is read twice more");
  app.add_option("--steps", options->steps, "T of the slots that are counted")
      ->type_name("T")
      ->check(CLI::Range(1, 31).description(""));
  app.add_option("--coding", options->coding,
                 "Code of pictures and NIR: binary, ternary (NIR), unsigned, bidirectional (pictures) or "
                 "twos-complement")
      ->type_name("C");
  app.add_option("--raster", options->raster, "Draw spikes, time by neuron, to FILE.svg or FILE.png")
      ->type_name("FILE");
  app.add_option("--histogram", options->histogram,
                 "Draw how many spikes neurons fire to FILE.svg or FILE.png")
      ->type_name("FILE");
  app.add_option("--nir", options->nir,
                 "Write projections of --layer as a NIR graph to FILE.nir and their spikes to FILE.spikes.h5")
      ->type_name("FILE");
  app.add_option("--layer", options->layer,
                 "Layer of the raster (else 0), of NIR, and of the histograms (else all)")
      ->type_name("N");
  app.add_option("--projection", options->projection,
                 "Whose input the raster shows, e.g. q or down; else the first. Of NIR: e.g. q,k,v; else all")
      ->type_name("NAME");
  app.add_option("--raster-tokens", options->draw_tokens, "Tokens of the raster and of NIR's spikes")
      ->type_name("N")
      ->check(CLI::Range(1, 4096).description(""));
  app.add_option("--raster-neurons", options->draw_neurons, "Neurons that the raster shows")
      ->type_name("N")
      ->check(CLI::Range(1, 8192).description(""));
  add_session_options(app, options->session, false);
  add_common_options(app, options->common);
  return [options] { return run(*options); };
}

const VerbRegistration registration(
    {.name = "spikes",
     .summary = "Show the spikes that a text causes in a model",
     .group = Group::measure,
     .examples = {{"mneme spikes MODEL -p 'The owl hunts at night.'", "figures for each projection"},
                  {"mneme spikes MODEL -f book.txt --tokens 10000 --k 2 --json", "of a longer text, as JSON"},
                  {"mneme spikes MODEL -p @text.txt --raster spikes.svg --layer 3 --projection down",
                   "a raster: time by neuron"},
                  {"mneme spikes MODEL -p @text.txt --nir layer3.nir --layer 3", "for neuromorphic tools"},
                  {"mneme spikes MODEL -f book.txt --histogram spikes.png --coding ternary",
                   "spikes of a neuron"}},
     .setup = set_up});

}  // namespace
}  // namespace mneme::cli::spikes_verb
