// `mneme train`: hands over to mneme-train, a program of its own, because libtorch alone takes half a second
// to load. The process itself becomes the trainer (exec), so that terminal, signals and exit code are its
// own.
#include <memory>
#include <string>
#include <vector>

#include "cli/options.h"
#include "cli/train_program.h"
#include "cli/verb.h"

namespace mneme::cli::train_verb {
namespace {

struct Options {
  CommonOptions common;
  std::string config, out, device;
  uint64_t steps = 0;
  bool resume = false;
  std::string hosts;
  int processes = 1, rank = -1, port = 0, join_timeout = 0, lost_after = 0;  // docs/training-hosts.md
};

std::vector<std::string> arguments_of(const Options& options) {
  std::vector<std::string> out{options.config};
  const auto add = [&](const char* name, const std::string& value) {
    out.emplace_back(name);
    out.push_back(value);
  };
  if (options.resume) out.emplace_back("--resume");
  if (!options.out.empty()) add("--out", options.out);
  if (options.steps > 0) add("--steps", std::to_string(options.steps));
  if (options.common.threads > 0) add("--threads", std::to_string(options.common.threads));
  if (!options.device.empty()) add("--device", options.device);
  if (options.processes != 1) add("--processes", std::to_string(options.processes));
  if (!options.hosts.empty()) add("--hosts", options.hosts);
  if (options.rank >= 0) add("--rank", std::to_string(options.rank));
  if (options.port > 0) add("--port", std::to_string(options.port));
  if (options.join_timeout > 0) add("--join-timeout", std::to_string(options.join_timeout));
  if (options.lost_after > 0) add("--lost-after", std::to_string(options.lost_after));
  if (options.common.json) out.emplace_back("--json");
  if (options.common.quiet) out.emplace_back("--quiet");
  return out;
}

/// docs/training-hosts.md
void add_process_options(CLI::App& app, Options& options) {
  const auto number = [&](const char* name, int& value, int least, int most, const char* what) {
    app.add_option(name, value, what)->type_name("N")->check(CLI::Range(least, most).description(""));
  };
  number("--processes", options.processes, 1, 1024, "Processes on this machine that train together (1)");
  app.add_option("--hosts", options.hosts, "Where process 0, 1, ... of the run are started, one by one")
      ->type_name("HOST,HOST,...");
  number("--rank", options.rank, 0, 1023, "Which of --hosts this process is, from 0");
  number("--port", options.port, 1, 65535, "Where process 0 of --hosts listens (29500)");
  number("--join-timeout", options.join_timeout, 1, 86400, "Seconds until all must be there (120)");
  number("--lost-after", options.lost_after, 1, 86400,
         "Seconds without a sign of life after which a process counts as lost (20)");
}

int run(const Options& options) {
  become_train_program(arguments_of(options));
}

void setup_options(CLI::App& app, Options& options) {
  add_common_options(app, options.common);
  app.add_option("config", options.config, "The run's config, JSON (docs/training.md)")->required();
  app.add_flag("--resume", options.resume, "Go on from the newest checkpoint of OUT, if there is one");
  app.add_option("--out", options.out, "Folder of checkpoints, log and curves, instead of the config's")
      ->type_name("FOLDER");
  app.add_option("--steps", options.steps, "Steps in all, instead of the config's")
      ->type_name("N")
      ->check(CLI::PositiveNumber.description(""));
  app.add_option("--device", options.device, "cpu, or cuda where libtorch has it, instead of the config's")
      ->type_name("D");
  add_process_options(app, options);
}

const VerbRegistration registration(
    {.name = "train",
     .summary = "Train a model on texts, with checkpoints that resume to the bit",
     .group = Group::models,
     .examples = {{"mneme train run.json", "train as the config says"},
                  {"mneme train run.json --resume", "go on where a run was stopped, interrupted or killed"},
                  {"mneme train run.json --processes 2",
                   "in two processes, each with its share of every step"},
                  {"mneme generate OUT/step-00001000 -p 'Once'", "use a checkpoint"}},
     .setup = [](CLI::App& app) {
       auto options = std::make_shared<Options>();
       setup_options(app, *options);
       return [options] { return run(*options); };
     }});

}  // namespace
}  // namespace mneme::cli::train_verb
