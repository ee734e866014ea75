// `mneme memory attach`: a model file that has a memory without being told at every start.
#include <fmt/format.h>

#include <memory>

#include "cli/options.h"
#include "cli/progress.h"
#include "cli/signals.h"
#include "cli/store.h"
#include "cli/terminal.h"
#include "cli/verb.h"
#include "convert/attach_memory.h"
#include "core/fail.h"

namespace mneme::cli::memory_attach_verb {
namespace {

struct Options {
  CommonOptions common;
  std::string model, pack, out;
};

int run(const Options& options) {
  const InterruptScope interrupt;
  Progress progress("Attaching", Progress::Unit::bytes, !options.common.quiet);
  AttachOptions attach;
  attach.progress = [&](uint64_t done, uint64_t total) {
    require(!interrupt.interrupted(), ErrorCode::cancelled, "interrupted; nothing was written");
    progress.update(done, total);
  };
  const AttachResult result = attach_memory(resolve_model(options.model), options.pack, options.out, attach);
  progress.clear();
  if (options.common.json)
    print_json({{"out", options.out}, {"bytes", result.bytes}, {"layers", result.layers}});
  else
    print(fmt::format("{}: {}, with a memory in layer{} {}; its rows stay in {}\n", options.out,
                      human_bytes(static_cast<double>(result.bytes)), result.layers.size() == 1 ? "" : "s",
                      fmt::join(result.layers, ", "), options.pack));
  return kDone;
}

const VerbRegistration registration(
    {.name = "attach",
     .summary = "Write a model that has a memory for good",
     .group = Group::models,
     .examples = {{"mneme memory attach MODEL facts.engram facts.gguf",
                   "a GGUF file with the pack's modules; the rows stay in facts.engram"},
                  {"mneme run facts.gguf", "needs no --memory; keep the two files side by side"}},
     .parent = "memory",
     .setup = [](CLI::App& app) -> Action {
       auto options = std::make_shared<Options>();
       app.add_option("model", options->model,
                      "A GGUF file, a Hugging Face folder, or a name of `mneme list`")
           ->type_name("MODEL")
           ->required();
       app.add_option("pack", options->pack, "The memory pack (.engram) with modules for this model")
           ->type_name("PACK")
           ->required();
       app.add_option("out", options->out,
                      "The GGUF file to write; it names the pack relative to its own folder")
           ->type_name("OUT")
           ->required();
       add_common_options(app, options->common);
       return [options] { return run(*options); };
     }});

}  // namespace
}  // namespace mneme::cli::memory_attach_verb
