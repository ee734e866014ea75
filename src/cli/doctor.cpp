// `mneme doctor`: measures what this machine can do and keeps the result for later estimates.
#include <fmt/chrono.h>
#include <fmt/format.h>

#include <cstdio>
#include <filesystem>
#include <memory>

#include "cli/options.h"
#include "cli/terminal.h"
#include "cli/verb.h"
#include "core/fail.h"
#include "core/paths.h"
#include "cost/machine.h"

namespace mneme::cli::doctor_verb {
namespace {

struct Options {
  CommonOptions common;
  bool quick = false;
  bool cached = false;
  std::string folder;
};

std::string disk_text(const MachineFigures& figures) {
  std::string all;
  for (const RandomReadRate& rate : figures.random_reads)
    all += fmt::format("{}{}: {:.0f}", all.empty() ? "" : ", ", rate.threads, rate.iops);
  return fmt::format("{:.0f} reads/s of 4 KiB at {} threads{} in {} (threads: reads/s = {})",
                     figures.random_read_iops, figures.random_read_threads,
                     figures.direct_reads ? "" : ", cached by the file system", figures.folder, all);
}

void print_text(const MachineFigures& figures) {
  const auto line = [](std::string_view name, const std::string& value) {
    print(fmt::format("{:<18}{}\n", name, value));
  };
  line("CPU", fmt::format("{}, {} cores available", figures.cpu, figures.threads));
  line("Instruction set", figures.isa);
  line("RAM", human_bytes(static_cast<double>(figures.ram_bytes)));
  line("Memory reads",
       fmt::format("{:.2f} GB/s ± {:.2f} with {} thread{} ({} on {} pages)", figures.read_gbps,
                   figures.read_gbps_sd, figures.read_threads, figures.read_threads == 1 ? "" : "s",
                   human_bytes(static_cast<double>(figures.read_bytes)),
                   figures.huge_pages ? "huge" : "small"));
  line("int8 arithmetic", fmt::format("{:.0f} GMAC/s with {} thread{}", figures.int8_gmacs,
                                      figures.int8_threads, figures.int8_threads == 1 ? "" : "s"));
  line("Disk", disk_text(figures));
  line("Model store", models_folder().string());
  std::error_code error;
  const auto space = std::filesystem::space(figures.folder, error);
  if (!error) line("Free there", human_bytes(static_cast<double>(space.available)));
  line("Measured", fmt::format("{:%Y-%m-%d %H:%M}{}", fmt::localtime(figures.measured_at),
                               figures.quick ? ", in short (--quick)" : ""));
}

int run(const Options& options) {
  std::optional<MachineFigures> figures = cached_machine();
  if (options.cached) {
    require(figures.has_value(), ErrorCode::not_found,
            "no measured figures of this machine in {}; run `mneme doctor`", machine_cache_path().string());
  } else {
    const bool keep_old = options.quick && figures && !figures->quick;
    MeasureOptions measure;
    measure.quick = options.quick;
    measure.folder = options.folder.empty() ? models_folder() : std::filesystem::path(options.folder);
    if (!options.common.quiet)
      measure.on_step = [](std::string_view step) { fmt::print(stderr, "measuring {} ...\n", step); };
    figures = measure_machine(measure);
    if (!keep_old) save_machine(*figures);  // a thorough result is worth more than a quick one
  }
  if (options.common.json) {
    Json json = to_json(*figures);
    json["cached"] = options.cached;
    print_json(json);
  } else {
    print_text(*figures);
  }
  return kDone;
}

const VerbRegistration registration(
    {.name = "doctor",
     .summary = "Measure this machine: memory bandwidth, arithmetic, disk; kept for estimates",
     .group = Group::measure,
     .examples = {{"mneme doctor", "everything, in about ten seconds"},
                  {"mneme doctor --quick --json", "less exact, in about two seconds, as JSON"},
                  {"mneme doctor --cached", "what was measured last"}},
     .setup = [](CLI::App& app) -> Action {
       auto options = std::make_shared<Options>();
       app.add_flag("--quick", options->quick, "Shorter measurements");
       app.add_flag("--cached", options->cached, "Show the last result, measure nothing");
       app.add_option("--folder", options->folder,
                      "Measure the disk of this folder instead of the model store's")
           ->type_name("FOLDER");
       add_common_options(app, options->common);
       return [options] { return run(*options); };
     }});

}  // namespace
}  // namespace mneme::cli::doctor_verb
