// `mneme experts`: where the routers of a mixture of experts send a text; docs/experts.md says what the
// figures are.
#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "cli/input.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "cli/signals.h"
#include "cli/terminal.h"
#include "cli/verb.h"
#include "core/fail.h"
#include "core/file.h"
#include "eval/perplexity.h"
#include "eval/routing_report.h"

namespace mneme::cli::experts_verb {
namespace {

struct Options {
  CommonOptions common;
  ModelOptions model;
  SessionFlags session;
  std::string prompt, file, ids, map;
  uint32_t window = 0;
  uint64_t tokens = 0;
};

std::vector<TokenId> ids_of(const Options& options, const Model& model) {
  std::vector<TokenId> ids;
  if (!options.ids.empty()) {
    ids = ids_argument(options.ids);
    check_ids(ids, model.config().vocab);
  } else {
    const std::string text = text_argument(options.file.empty() ? options.prompt : "@" + options.file);
    if (text.empty()) throw UsageError("the text is empty: there is nothing to route");
    ids = model.tokenizer().encode(text, {.add_special = true, .parse_special = false});
  }
  if (options.tokens > 0 && ids.size() > options.tokens) ids.resize(options.tokens);
  return ids;
}

void check_map(const std::string& path) {
  if (path.empty()) return;
  try {
    picture_format(path);
  } catch (const Error& error) {
    throw UsageError(fmt::format("--map {}", error.what()));
  }
  const fs::path folder = fs::path(path).parent_path();
  require(folder.empty() || fs::is_directory(folder), ErrorCode::not_found, "there is no folder {}",
          folder.string());
}

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
  const int given = !options.prompt.empty() + !options.file.empty() + !options.ids.empty();
  if (given != 1)
    throw UsageError(
        given == 0 ? "what shall the model read? -p TEXT, -f FILE or --ids LIST (the text may not be empty)"
                   : "give one of -p TEXT, -f FILE and --ids LIST");
  check_map(options.map);
  const auto model = load_model(options.model, options.common);
  const std::vector<TokenId> ids = ids_of(options, *model);
  const InterruptScope interrupt;
  Progress bar("Routing", Progress::Unit::tokens, !options.common.quiet);
  RoutingOptions request;
  request.ctx = options.window > 0 ? options.window : std::min(512u, model->config().context);
  request.bos = model->has_tokenizer() ? opening_bos(model->tokenizer()) : -1;
  request.cancel = &interrupt.token();
  request.progress = [&bar](uint64_t done, uint64_t total) { bar.update(done, total); };
  const RoutingReport report = routing_report(model, ids, request, session_options(options.session));
  bar.clear();
  if (!options.map.empty()) {
    const std::string& name = model->config().name;
    save_heat_map(routing_map(report, name.empty() ? fs::path(model->path()).filename().string() : name),
                  options.map);
  }
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
  app.add_option("-p,--prompt", options->prompt, "The text; @FILE or @- reads it")->type_name("TEXT");
  app.add_option("-f,--file", options->file, "A text file instead")->type_name("FILE");
  app.add_option("--ids", options->ids, "Token ids instead, e.g. 1,2,3")->type_name("LIST");
  app.add_option("--tokens", options->tokens, "Only the first N tokens; 0: all")->type_name("N");
  app.add_option("--ctx", options->window,
                 "Tokens of a window; each is read by itself. 0: 512, or the model's context if that is less")
      ->type_name("N")
      ->check(CLI::Range(0, 1 << 24).description(""));
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
