// `mneme experts`: where the routers of a mixture of experts send a text; docs/experts.md says what the
// figures are.
#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "cli/options.h"
#include "cli/output_check.h"
#include "cli/progress.h"
#include "cli/signals.h"
#include "cli/terminal.h"
#include "cli/text_options.h"
#include "cli/verb.h"
#include "eval/routing_report.h"

namespace mneme::cli::experts_verb {
namespace {

struct Options {
  CommonOptions common;
  ModelOptions model;
  SessionFlags session;
  TextOptions text;
  std::string map;
};

Json as_json(const RoutingReport& report) {
  Json layers = Json::array();
  for (const LayerRouting& layer : report.layers)
    layers.push_back({{"layer", layer.layer},
                      {"experts", layer.experts},
                      {"null_experts", layer.null_experts},
                      {"top_k", layer.top_k},
                      {"load", layer.load()},
                      {"cv", layer.variation()},
                      {"entropy", layer.entropy()},
                      {"starved", layer.starved()},
                      {"score_entropy", layer.score_entropy},
                      {"mean_active", layer.mean_active()},
                      {"active", layer.active},
                      {"null_share", layer.null_share()}});
  return {{"tokens", report.tokens}, {"mean_active", report.mean_active()}, {"layers", layers}};
}

/// "1: 20 %, 2: 80 %": how many tokens passed how many experts, in %, numbers without any left out.
std::string distribution(const LayerRouting& layer) {
  std::string text;
  for (size_t n = 0; n < layer.active.size(); ++n)
    if (layer.active[n] > 0)
      text += fmt::format("{}{}: {:.0f} %", text.empty() ? "" : ", ", n,
                          100.0 * static_cast<double>(layer.active[n]) / static_cast<double>(layer.tokens));
  return text;
}

void print_report(const RoutingReport& report) {
  std::vector<std::vector<std::string>> rows{{"layer", "experts", "busiest %", "least %", "CV", "entropy",
                                              "starved", "score entropy", "null %", "active", "of tokens"}};
  for (const LayerRouting& layer : report.layers) {
    const std::vector<double> load = layer.load();
    const auto [least, most] = std::minmax_element(load.begin(), load.end());
    rows.push_back({std::to_string(layer.layer), std::to_string(layer.experts),
                    fmt::format("{:.1f}", 100 * *most), fmt::format("{:.1f}", 100 * *least),
                    fmt::format("{:.2f}", layer.variation()), fmt::format("{:.3f}", layer.entropy()),
                    std::to_string(layer.starved().size()), fmt::format("{:.3f}", layer.score_entropy),
                    fmt::format("{:.1f}", 100 * layer.null_share()),
                    fmt::format("{:.2f}", layer.mean_active()), distribution(layer)});
  }
  print(table(rows));
  print(fmt::format(
      "{} tokens; {:.2f} experts a token and layer. Starved: less than a tenth of an even share. No "
      "token is ever dropped.\n",
      report.tokens, report.mean_active()));
}

int run(const Options& options) {
  check_text_options(options.text);
  check_picture_file("--map", options.map);
  const auto model = load_model(options.model, options.common);
  const std::vector<TokenId> ids = text_ids(options.text, *model);
  const InterruptScope interrupt;
  Progress bar("Routing", Progress::Unit::tokens, !options.common.quiet);
  RoutingOptions request;
  request.ctx = window_of(options.text, *model);
  request.bos = opening_token(*model);
  request.cancel = &interrupt.token();
  request.progress = [&bar](uint64_t done, uint64_t total) { bar.update(done, total); };
  const RoutingReport report = routing_report(model, ids, request, session_options(options.session));
  bar.clear();
  if (!options.map.empty())
    save_heat_map(routing_map(report, model_name(model->config(), model->path())), options.map);
  if (options.common.json)
    print_json(as_json(report));
  else
    print_report(report);
  flush_output();
  return kDone;
}

Action set_up(CLI::App& app) {
  auto options = std::make_shared<Options>();
  add_model_options(app, options->model);
  add_text_options(app, options->text);
  app.add_option("--map", options->map, "Draw the load, layers by experts, to FILE.svg or FILE.png")
      ->type_name("FILE");
  add_session_options(app, options->session, false);
  add_common_options(app, options->common);
  return [options] { return run(*options); };
}

const VerbRegistration registration({.name = "experts",
                                     .summary = "Show which experts a text wakes in a mixture of experts",
                                     .group = Group::measure,
                                     .examples = {{"mneme experts MODEL -f book.txt --tokens 10000",
                                                   "load, balance and active experts"},
                                                  {"mneme experts MODEL -f book.txt --map load.svg --json",
                                                   "the same as JSON, and a picture"}},
                                     .setup = set_up});

}  // namespace
}  // namespace mneme::cli::experts_verb
