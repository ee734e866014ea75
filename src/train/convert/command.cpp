#include "train/convert/command.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <thread>

#include "core/fail.h"
#include "train/convert/conversion.h"

namespace mneme::train {
namespace {

using Clock = std::chrono::steady_clock;

std::string duration(double seconds) {
  if (seconds < 90) return fmt::format("{:.0f} s", seconds);
  if (seconds < 5400) return fmt::format("{:.0f} min", seconds / 60);
  return fmt::format("{:.1f} h", seconds / 3600);
}

/// One line that is written over on a terminal, a new line every half minute elsewhere.
class ProgressLine {
 public:
  explicit ProgressLine(bool enabled) : enabled_(enabled), terminal_(::isatty(STDERR_FILENO) == 1) {}
  ~ProgressLine() { clear(); }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  void update(const ConversionProgress& progress) {
    if (!enabled_) return;
    const auto now = Clock::now();
    if (progress.what != what_ || progress.stage != stage_) {
      what_ = progress.what;
      stage_ = progress.stage;
      start_ = now;
      first_ = progress.done;
      last_ = {};
    }
    const double pause = terminal_ ? 0.5 : 30.0, since = std::chrono::duration<double>(now - last_).count();
    if (last_ != Clock::time_point{} && since < pause) return;
    last_ = now;
    const double seconds = std::chrono::duration<double>(now - start_).count();
    const auto units = static_cast<double>(progress.done - std::min(first_, progress.done));
    std::string line = fmt::format("stage {}/{}: {} {}/{}", std::min(progress.stage + 1, progress.stages),
                                   progress.stages, progress.what, progress.done, progress.of);
    if (!progress.figures.empty()) line += ", " + progress.figures;
    if (units > 0 && seconds > 0) {
      if (progress.tokens > 0)
        line += fmt::format(", {:.0f} tokens/s", units * static_cast<double>(progress.tokens) / seconds);
      line += fmt::format(", {} left",
                          duration(seconds / units *
                                   static_cast<double>(progress.of - std::min(progress.done, progress.of))));
    }
    if (terminal_)
      fmt::print(stderr, "\r\033[K{}", line);
    else
      fmt::print(stderr, "{}\n", line);
    std::fflush(stderr);
  }
  void clear() const {
    if (enabled_ && terminal_) fmt::print(stderr, "\r\033[K");
  }

 private:
  bool enabled_, terminal_;
  std::string what_;
  size_t stage_ = 0;
  uint64_t first_ = 0;
  Clock::time_point start_, last_;
};

struct Options {
  std::string in, out, recipe, snapshot;
  int threads = 0;
  bool restart = false, json = false, quiet = false;
};

std::string summary_text(const Json& summary, const std::string& out) {
  std::string text;
  const auto ppl = [](const Json& of, const char* field) {
    return of.contains(field) ? fmt::format("{:.4f}", of[field].get<double>()) : std::string("not measured");
  };
  text += fmt::format("original: perplexity {}\n", ppl(summary["original"], "ppl"));
  for (const Json& stage : summary["stages"]) {
    text += fmt::format("{}: perplexity {} -> {}, ", stage["kind"].get<std::string>(),
                        ppl(stage, "ppl_before"), ppl(stage, "ppl_after"));
    if (stage.contains("activity"))
      text += fmt::format("silent {:.1f} %, ", 100 * stage["activity"]["silent"].get<double>());
    text += duration(stage["seconds"].get<double>()) + "\n";
  }
  return text + fmt::format("{}: {} tokens trained on, {}\n", out, summary["tokens"].get<uint64_t>(),
                            duration(summary["seconds"].get<double>()));
}

}  // namespace

int run_convert_command(int argc, char** argv, const std::function<bool()>& interrupted) {
  CLI::App app("Change a model's architecture by a recipe", "mneme-train convert");
  Options options;
  app.add_option("in", options.in, "GGUF file or Hugging Face folder")->required();
  app.add_option("out", options.out, "Folder to write")->required();
  app.add_option("--recipe", options.recipe, "The stages (docs/conversion.md)")->required();
  app.add_option("--threads", options.threads, "Threads; 0: one per core")->check(CLI::Range(0, 1024));
  app.add_option("--snapshot", options.snapshot, "Write the model as last saved there, and do nothing else");
  app.add_flag("--restart", options.restart, "Begin anew instead of going on")->excludes("--snapshot");
  app.add_flag("--json", options.json, "Print the summary as JSON");
  app.add_flag("--quiet", options.quiet, "Print no progress");
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    fmt::print("{}", app.help());
    return 0;
  } catch (const CLI::ParseError& error) {
    fmt::print(stderr, "mneme convert: error: {}; see mneme convert -h\n", error.what());
    return 2;
  }
  ProgressLine line(!options.quiet);
  ConversionOptions conversion;
  conversion.in = options.in;
  conversion.out = options.out;
  conversion.recipe = Recipe::load(options.recipe);
  conversion.threads = options.threads > 0
                           ? options.threads
                           : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  conversion.restart = options.restart;
  conversion.snapshot = options.snapshot;
  conversion.stop = interrupted;
  conversion.progress = [&](const ConversionProgress& progress) { line.update(progress); };
  try {
    const Json summary = convert_model(conversion);
    line.clear();
    fmt::print("{}", options.json
                         ? summary.dump() + "\n"
                         : summary_text(summary, options.snapshot.empty() ? options.out : options.snapshot));
    return 0;
  } catch (const Error& error) {
    if (error.code() != ErrorCode::cancelled) throw;
    line.clear();
    fmt::print(stderr, "mneme convert: {}\n", error.what());
    return 130;
  }
}

}  // namespace mneme::train
