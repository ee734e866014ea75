// mneme-train: what `mneme train` runs. A program of its own, because libtorch takes half a second to load.
// Exit codes are mneme's: 0 done, 1 failed (one line says what), 2 wrong usage, 130 interrupted (and saved).
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <new>

#include "core/fail.h"
#include "core/file.h"
#include "train/convert/command.h"
#include "train/hosts/launch.h"
#include "train/interrupts.h"
#include "train/run/loop.h"
#include "train/run/together.h"

namespace mneme::train {
namespace {

enum ExitCode : int { kDone = 0, kFailed = 1, kUsage = 2, kInterrupted = 130 };

std::string one_line(std::string text) {
  // libtorch adds a trace of its own code after the first line.
  text = text.substr(0, text.find('\n'));
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 0x20) c = ' ';
  return text;
}

constexpr std::string_view kOutOfMemory =
    "out of memory; use a smaller batch.sequences, or \"checkpoint_layers\": true, or a smaller model";

/// libtorch has no type for it, and says it in one way or the other.
bool is_out_of_memory(const std::exception& error) {
  const std::string_view what = error.what();
  return dynamic_cast<const std::bad_alloc*>(&error) != nullptr ||
         what.find("can't allocate memory") != std::string_view::npos ||
         what.find("not enough memory") != std::string_view::npos ||
         what.find("CUDA out of memory") != std::string_view::npos;
}

int complain(const std::string& message, int code) {
  std::fputs(("mneme-train: error: " + one_line(message) + "\n").c_str(), stderr);  // nothing that throws
  return code;
}

struct Options {
  std::string config, out, device;
  uint64_t steps = 0;
  int threads = -1;
  TrainOptions train;
  LaunchOptions launch;
};

/// docs/training-hosts.md
void add_launch_options(CLI::App& app, LaunchOptions& options) {
  app.add_option("--processes", options.processes, "Processes on this machine, started by this one");
  app.add_option_function<std::string>(
      "--hosts", [&options](const std::string& list) { options.hosts = split_hosts(list); },
      "Where process 0, 1, ... of the run are started: HOST,HOST,...");
  app.add_option("--rank", options.rank, "Which of --hosts this process is, from 0");
  app.add_option("--port", options.port, "Where process 0 listens (29500)");
  app.add_option_function<uint32_t>(
         "--join-timeout", [&options](uint32_t s) { options.join_timeout = std::chrono::seconds(s); },
         "Seconds until all processes must be there (120)")
      ->check(CLI::Range(1, 86400));
  app.add_option_function<uint32_t>(
         "--lost-after", [&options](uint32_t s) { options.silence_timeout = std::chrono::seconds(s); },
         "Seconds without a sign of life after which a process counts as lost (20)")
      ->check(CLI::Range(1, 86400));
}

void add_options(CLI::App& app, Options& options) {
  app.add_option("config", options.config, "The run's config (docs/training.md)")->required();
  app.add_flag("--resume", options.train.resume, "Go on from the newest checkpoint of OUT, if there is one");
  app.add_option("--out", options.out, "Folder of checkpoints, log and curves, instead of the config's");
  app.add_option("--steps", options.steps, "Steps in all, instead of the config's")
      ->check(CLI::PositiveNumber);
  app.add_option("--threads", options.threads, "Threads; 0: one per core")->check(CLI::Range(0, 1024));
  app.add_option("--device", options.device, "Device, instead of the config's");
  add_launch_options(app, options.launch);
  app.add_flag("--json", options.train.json, "Print the log's JSON lines on standard output");
  app.add_flag("--quiet", options.train.quiet, "Print nothing for people");
}

RunConfig read_config(const Options& options) {
  Json instead = Json::object();
  if (!options.out.empty()) instead["out"] = fs::absolute(options.out).string();
  if (!options.device.empty()) instead["device"] = options.device;
  if (options.steps > 0) instead["steps"] = options.steps;
  if (options.threads >= 0) instead["threads"] = options.threads;
  return RunConfig::load(options.config, instead);
}

/// As one process, or as one of several that meet first.
Ending train_together(RunConfig config, const Options& options, const std::vector<std::string>& arguments) {
  Launch launch(options.launch, arguments);
  if (launch.place().on_this_machine > 1) config.threads = launch.threads(config.threads);
  const std::unique_ptr<ProcessGroup> group = launch.join(run_identity(config));
  try {
    return train(config, options.train, *group);
  } catch (const std::exception& error) {
    group->give_up(is_out_of_memory(error) ? "out of memory" : one_line(error.what()));
    throw;
  }
}

int run(int argc, char** argv) {
  if (argc > 1 && std::string_view(argv[1]) == "convert")
    return run_convert_command(argc - 1, argv + 1, interrupted);
  CLI::App app("Train a model", "mneme-train");
  Options options;
  add_options(app, options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    fmt::print("{}", app.help());
    return kDone;
  } catch (const CLI::ParseError& error) {
    return complain(std::string(error.what()) + "; see mneme-train --help", kUsage);
  }
  options.train.interrupted = interrupted;
  // Ctrl-C ends a `tee` that reads the progress, too; this process must live to save.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);  // `ulimit -f` is a full disk: the write fails, and says so
  const Ending ending = train_together(read_config(options), options, {argv, argv + argc});
  return ending == Ending::interrupted ? kInterrupted : kDone;
}

int guarded(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const Error& error) {
    if (error.code() == ErrorCode::cancelled)
      return complain("interrupted before the first step", kInterrupted);
    return complain(error.what(), kFailed);
  } catch (const fs::filesystem_error& error) {
    return complain(error.what(), kFailed);
  } catch (const std::exception& error) {  // libtorch's own, among others
    if (is_out_of_memory(error)) return complain(std::string(kOutOfMemory), kFailed);
    return complain(one_line(error.what()) + " (this is a bug in Mneme)", kFailed);
  }
}

}  // namespace
}  // namespace mneme::train

int main(int argc, char** argv) {
  mneme::train::receive_interrupts();
  return mneme::train::guarded(argc, argv);
}
