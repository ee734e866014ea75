// `mneme generate`: continues a text, without a chat template.
#include <fmt/format.h>

#include <cstdio>
#include <memory>

#include "cli/input.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "cli/sampling_flags.h"
#include "cli/signals.h"
#include "cli/terminal.h"
#include "cli/verb.h"
#include "mneme/engine.h"

namespace mneme::cli {
namespace {

struct Options {
  CommonOptions common;
  ModelOptions model;
  SessionFlags session;
  SamplingFlags sampling;
  std::string prompt, ids;
  bool has_prompt = false;
  uint32_t tokens = 256;
  std::vector<std::string> stop;
  bool raw = false;
  bool ignore_eos = false;
};

std::vector<TokenId> prompt_ids(const Options& options, const Model& model) {
  if (!options.ids.empty()) {
    auto ids = ids_argument(options.ids);
    check_ids(ids, model.config().vocab);
    return ids;
  }
  const std::string text = text_argument(options.prompt);
  auto ids = model.tokenizer().encode(text, {.add_special = !options.raw, .parse_special = !options.raw});
  if (ids.empty()) throw UsageError("the prompt is empty, and this model begins with no token of its own");
  return ids;
}

int run(const Options& options) {
  if (options.has_prompt == !options.ids.empty())
    throw UsageError("give either -p TEXT or --ids LIST (both accept @FILE and @-)");
  GenerateRequest request;
  request.sampling = sampling_options(options.sampling);
  const auto model = load_model(options.model, options.common);
  const InterruptScope interrupt;
  if (!options.common.quiet) print_start(*model);
  Session session(model, session_options(options.session));
  Progress bar("Reading the prompt", Progress::Unit::tokens, !options.common.quiet);
  bool ends_line = true;

  request.prompt = prompt_ids(options, *model);
  request.max_tokens = options.tokens;
  request.stop = options.stop;
  request.ignore_eos = options.ignore_eos;
  request.cancel = &interrupt.token();
  request.on_prefill = [&](uint64_t done, uint64_t total) {
    bar.update(done, total);
    if (done >= total) bar.clear();
  };
  if (!options.common.json)
    request.on_text = [&](std::string_view text) {
      print(text);
      flush_output();
      if (!text.empty()) ends_line = text.back() == '\n';
      return true;
    };

  const GenerateResult result = generate(session, request);
  bar.clear();
  if (options.common.json) {
    print_json({{"text", result.text},
                {"prompt_tokens", result.prompt_tokens},
                {"generated_tokens", result.generated_tokens},
                {"ttft_ms", result.ttft_ms},
                {"tokens_per_second", result.tokens_per_second},
                {"stop", to_string(result.stop)}});
  } else if (!ends_line || result.text.empty()) {
    print("\n");
  }
  flush_output();
  if (!options.common.quiet)
    fmt::print(stderr,
               "{} prompt tokens, first token after {:.0f} ms; {} tokens, {:.1f} tokens/s; stop: {}\n",
               result.prompt_tokens, result.ttft_ms, result.generated_tokens, result.tokens_per_second,
               to_string(result.stop));
  return interrupt.interrupted() ? kInterrupted : kDone;
}

const VerbRegistration registration(
    {.name = "generate",
     .summary = "Continue a text, without a chat template",
     .group = Group::talk,
     .examples = {{"mneme generate MODEL -p 'Once upon a time' -n 64", "the next 64 tokens"},
                  {"mneme generate MODEL -p @story.txt -n 200 --temp 0 --json",
                   "the prompt from a file, always the likeliest token, the answer as JSON"}},
     .setup = [](CLI::App& app) -> Action {
       auto options = std::make_shared<Options>();
       add_model_options(app, options->model);
       CLI::Option* prompt = app.add_option("-p,--prompt", options->prompt,
                                            "The text; @FILE: from a file, @-: from standard input, "
                                            "@@...: text that begins with @")
                                 ->type_name("TEXT");
       app.add_option("--ids", options->ids, "Token ids instead of text: 1,2,3 or @FILE or @-")
           ->type_name("LIST");
       app.add_option("-n,--tokens", options->tokens, "Generate at most this many tokens")
           ->type_name("N")
           ->check(CLI::Range(1, 1 << 30).description(""));
       app.add_option("--stop", options->stop, "Stop before this text; repeatable")
           ->type_name("TEXT")
           ->allow_extra_args(false);
       app.add_flag("--raw", options->raw,
                    "Add no begin-of-text token, and read spellings such as <|im_end|> as plain text");
       app.add_flag("--ignore-eos", options->ignore_eos, "Go on where the model would end");
       add_sampling_options(app, options->sampling);
       add_session_options(app, options->session);
       add_common_options(app, options->common);
       return [options, prompt] {
         options->has_prompt = prompt->count() > 0;
         return run(*options);
       };
     }});

}  // namespace
}  // namespace mneme::cli
