// `mneme perplexity`: how well a model predicts a text; src/eval/perplexity.h says what is counted.
#include "eval/perplexity.h"

#include <fmt/format.h>

#include <memory>

#include "cli/expert_processes.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "cli/signals.h"
#include "cli/terminal.h"
#include "cli/verb.h"

namespace mneme::cli::perplexity_verb {
namespace {

struct Options {
  CommonOptions common;
  ModelOptions model;
  SessionFlags session;
  std::string file;
  uint32_t window = 512;
  uint64_t tokens = 0;
};

int lead(const Options& options) {
  const auto model = load_model(options.model, options.common);
  note_long_context(*model, options.window, options.common);
  const InterruptScope interrupt;
  Progress bar("Scoring", Progress::Unit::tokens, !options.common.quiet);
  PerplexityOptions request;
  request.ctx = options.window;
  request.max_tokens = options.tokens;
  request.cancel = &interrupt.token();
  request.progress = [&bar](uint64_t done, uint64_t total, double) { bar.update(done, total); };
  const PerplexityResult result =
      perplexity(model, options.file, request, session_options(options.session, *model));
  bar.clear();
  if (options.common.json) {
    Json json{{"tokens", result.tokens},
              {"nll", result.nll},
              {"ppl", result.ppl},
              {"stderr", result.standard_error}};
    if (const Json traffic = process_traffic(options.model); !traffic.is_null()) json["experts"] = traffic;
    add_experts(json, *model);
    print_json(json);
  } else {
    print(fmt::format("perplexity {:.4f} ± {:.4f} ({:.5f} nats a token, {} tokens scored, windows of {})\n",
                      result.ppl, result.standard_error, result.nll, result.tokens, options.window));
    if (!options.common.quiet) print_experts(*model);
  }
  if (!options.common.quiet) print_process_traffic(options.model);
  return kDone;
}

int run(Options& options) {
  return with_processes(options.model, options.common, [&] { return lead(options); });
}

const VerbRegistration registration(
    {.name = "perplexity",
     .summary = "Measure how well a model predicts a text",
     .group = Group::measure,
     .examples = {{"mneme perplexity MODEL book.txt", "the whole file, in windows of 512 tokens"},
                  {"mneme perplexity MODEL book.txt --ctx 2048 --tokens 100000 --json",
                   "the first 100,000 tokens, as JSON"}},
     .setup = [](CLI::App& app) -> Action {
       auto options = std::make_shared<Options>();
       add_model_options(app, options->model);
       add_process_options(app, options->model);
       app.add_option("file", options->file, "A text file of any length")->type_name("FILE")->required();
       app.add_option("--ctx", options->window,
                      "Tokens of a window; its first half is context only, its second half is scored")
           ->type_name("N")
           ->check(CLI::Range(2, 1 << 24).description(""));
       app.add_option("--tokens", options->tokens, "Only the first N tokens of the file; 0: all")
           ->type_name("N");
       add_session_options(app, options->session, false);
       add_common_options(app, options->common);
       return [options] { return run(*options); };
     }});

}  // namespace
}  // namespace mneme::cli::perplexity_verb
