// `mneme convert`: a model becomes another kind of model by a recipe; the work is mneme-train's, but for the
// calibration of spikes and for upcycling, which train nothing.
#include <fmt/format.h>

#include <memory>
#include <string_view>

#include "cli/calibrate.h"
#include "cli/convert_upcycle.h"
#include "cli/options.h"
#include "cli/store.h"
#include "cli/train_program.h"
#include "cli/verb.h"

namespace mneme::cli::convert_verb {
namespace {

struct Options {
  CommonOptions common;
  std::string in, out, recipe;
  std::string snapshot;
  bool restart = false;
};

/// A recipe that is a stream can be read once only, and is the trainer's.
bool is_file(const std::string& recipe) {
  std::error_code error;
  return !fs::exists(recipe, error) || fs::is_regular_file(recipe, error);
}

void refuse_going_on(const Options& options, std::string_view what) {
  if (!options.snapshot.empty() || options.restart)
    throw UsageError(
        fmt::format("{} keeps nothing until its end: --snapshot and --restart have no meaning", what));
}

int run(const Options& options) {
  if (is_file(options.recipe)) {
    if (const auto recipe = CalibrationRecipe::load(options.recipe)) {
      refuse_going_on(options, "a calibration");
      return run_calibration(options.in, options.out, *recipe, options.common);
    }
    if (const auto recipe = read_upcycle_recipe(options.recipe)) {
      refuse_going_on(options, "an upcycling without training");
      return run_upcycling(options.in, options.out, *recipe, options.common);
    }
  }
  std::vector<std::string> words{"convert", resolve_model(options.in).string(), options.out, "--recipe",
                                 options.recipe};
  if (options.restart) words.emplace_back("--restart");
  if (!options.snapshot.empty()) words.insert(words.end(), {"--snapshot", options.snapshot});
  if (options.common.threads > 0)
    words.insert(words.end(), {"--threads", std::to_string(options.common.threads)});
  if (options.common.json) words.emplace_back("--json");
  if (options.common.quiet) words.emplace_back("--quiet");
  become_train_program(words);
}

const VerbRegistration registration(
    {.name = "convert",
     .summary = "Change a model by a recipe: windows, recurrences, memories, experts, calibrated spikes",
     .group = Group::models,
     .examples = {{"mneme convert model.gguf hybrid/ --recipe hybrid.json",
                   "the stages that the recipe says"},
                  {"mneme convert model.gguf hybrid/ --recipe hybrid.json",
                   "again after a stop or a crash: it goes on"},
                  {"mneme convert model.gguf quiet.gguf --recipe spikes.json",
                   "neurons whose silent inputs cost nothing (docs/spikes.md)"},
                  {"mneme quantize hybrid/ hybrid.gguf --type q8_0", "the result as one file"}},
     .setup = [](CLI::App& app) -> Action {
       auto options = std::make_shared<Options>();
       app.add_option("in", options->in, "GGUF file, Hugging Face folder or name of a stored model")
           ->required()
           ->type_name("IN");
       app.add_option("out", options->out,
                      "Folder to write; OUT.convert beside it keeps what is done until then. A calibration "
                      "writes a GGUF file, or a folder if OUT ends with '/'")
           ->required()
           ->type_name("OUT");
       app.add_option("--recipe", options->recipe,
                      "The stages, JSON (docs/conversion.md, for spikes docs/spikes.md)")
           ->required()
           ->type_name("FILE");
       app.add_option("--snapshot", options->snapshot,
                      "Write the model as OUT.convert has it to this folder, and do nothing else")
           ->type_name("FOLDER");
       app.add_flag("--restart", options->restart, "Begin anew instead of going on from OUT.convert");
       add_common_options(app, options->common);
       return [options] { return run(*options); };
     }});

}  // namespace
}  // namespace mneme::cli::convert_verb
