// `mneme bench`: speed of reading a prompt (pp) and of decoding (tg) at several depths, with the spread, and
// the share of memory bandwidth that decoding reaches.
//
// A test runs `--repeat` times after one run that warms up, from one session at the depth of the test.
// Token ids are pseudo-random, and others in every run, so that a memory table is asked for new rows;
// sampling is not part of the time. With --bandwidth, passes over a large buffer are timed between the runs,
// so that bandwidth and speed come from the same minutes; without it the figure of `mneme doctor` is used and
// called an estimate. With --synthetic the context before a test is random keys and values instead of tokens
// that were read, for depths that would take hours to reach; the result says so.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <memory>
#include <optional>

#include "cli/input.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "cli/signals.h"
#include "cli/terminal.h"
#include "cli/verb.h"
#include "core/fail.h"
#include "cost/bandwidth.h"
#include "cost/decode_timer.h"
#include "cost/machine.h"
#include "cost/traffic.h"
#include "cost/work.h"
#include "engine/synthetic.h"

namespace mneme::cli::bench_verb {
namespace {

struct Options {
  CommonOptions common;
  ModelOptions model;
  SessionFlags session;
  std::string prompt = "512", gen = "128", depth = "0", output = "table";
  int repeat = 5;
  bool bandwidth = false;
  bool no_warmup = false;
  bool synthetic = false;
};

struct Test {
  bool decode = false;
  uint64_t tokens = 0;
  uint64_t depth = 0;
  std::string name() const { return fmt::format("{}{}", decode ? "tg" : "pp", tokens); }
};

struct Result {
  Test test;
  double median = 0, mean = 0, sd = 0;  // tokens per second
  double bytes_per_token = 0;
  std::optional<double> gbps;  // of memory
  bool gbps_measured = false;
  uint64_t rss = 0;
  std::optional<ExpertStatistics> experts;  // of the timed runs
  std::optional<double> fraction() const {
    if (!gbps) return std::nullopt;
    return bytes_per_token * median / (*gbps * 1e9);
  }
};

double sd_of(const std::vector<double>& values, double mean) {
  double squares = 0;
  for (const double v : values) squares += (v - mean) * (v - mean);
  return values.size() > 1 ? std::sqrt(squares / static_cast<double>(values.size() - 1)) : 0;
}

uint64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  uint64_t total = 0, resident = 0;
  file >> total >> resident;
  return resident * 4096;
}

std::vector<Test> tests_of(const Options& options) {
  constexpr uint64_t kMost = uint64_t{1} << 24;
  const auto prompts = number_list(options.prompt, "--prompt", 0, kMost);
  const auto gens = number_list(options.gen, "--gen", 0, kMost);
  const auto depths = number_list(options.depth, "--depth", 0, kMost);
  std::vector<Test> tests;
  for (const uint64_t depth : depths) {
    for (const uint64_t n : prompts)
      if (n > 0) tests.push_back({false, n, depth});
    for (const uint64_t n : gens)
      if (n > 0) tests.push_back({true, n, depth});
  }
  if (tests.empty()) throw UsageError("nothing to measure: --prompt and --gen are both 0");
  return tests;
}

/// Runs tests on one model and keeps the session of the last depth.
class Bench {
 public:
  Bench(const Options& options, std::shared_ptr<const Model> model, const std::vector<Test>& tests,
        const CancelToken& cancel)
      : options_(options),
        model_(std::move(model)),
        cancel_(cancel),
        bar_("Measuring", Progress::Unit::tokens, !options.common.quiet) {
    session_options_ = session_options(options.session);
    uint64_t positions = 0;
    for (const Test& test : tests) {
      positions = std::max(positions, test.depth + test.tokens);
      if (test.decode) longest_ = std::max(longest_, test.tokens);
    }
    const uint64_t context =
        session_options_.max_context > 0 ? session_options_.max_context : model_->config().context;
    if (positions > context) session_options_.max_context = static_cast<uint32_t>(positions);
    session_options_.max_rollback = static_cast<uint32_t>(longest_);
    if (options.bandwidth) {
      probe_ = std::make_unique<ReadBandwidth>(bandwidth_buffer_bytes(uint64_t{2} << 30));
      probe_threads_ = probe_->best(thread_counts_up_to(machine_facts().threads), 3).threads;
    } else {
      machine_ = cached_machine();
    }
  }

  Result run(const Test& test) {
    if (!session_ || depth_ != test.depth) go_to(test.depth);
    std::vector<double> rates, gbps;
    if (!options_.no_warmup) run_once(test);
    const auto before = model_->experts();
    const int passes = (10 + options_.repeat - 1) / options_.repeat;
    for (int i = 0; i < options_.repeat; ++i) {
      rates.push_back(run_once(test));
      for (int pass = 0; probe_ && pass < passes; ++pass) gbps.push_back(probe_->pass(probe_threads_));
    }
    Result result;
    result.test = test;
    result.median = median_of(rates);
    for (const double rate : rates) result.mean += rate / static_cast<double>(rates.size());
    result.sd = sd_of(rates, result.mean);
    uint64_t weights = model_->bytes_per_token();
    if (!test.decode) {  // of experts an estimate: more than one token's
      const auto rows = static_cast<double>(std::min<uint64_t>(test.tokens, session_options_.chunk));
      weights += static_cast<uint64_t>(shape_of(*model_).further_expert_bytes(rows));
    }
    result.bytes_per_token =
        test.decode
            ? decode_bytes_per_token(model_->config(), session_options_.kv, weights, test.depth, test.tokens)
            : prefill_bytes_per_token(model_->config(), session_options_.kv, weights, test.depth, test.tokens,
                                      session_options_.chunk);
    if (probe_) {
      result.gbps = median_of(gbps);
      result.gbps_measured = true;
    } else if (machine_) {
      result.gbps = machine_->read_gbps;
    }
    result.experts = model_->experts();
    if (before && result.experts) {
      result.experts->hits -= before->hits;
      result.experts->misses -= before->misses;
      result.experts->bytes_read -= before->bytes_read;
      result.experts->ahead -= before->ahead;
      result.experts->ahead_used -= before->ahead_used;
    }
    result.rss = resident_bytes() - (probe_ ? probe_->bytes() : 0);
    bar_.clear();
    return result;
  }

 private:
  void go_to(uint64_t depth) {
    session_.reset();  // before the next one: at great depths two would not fit
    session_ = std::make_unique<Session>(model_, session_options_);
    depth_ = depth;
    if (options_.synthetic) {
      const auto progress = [&](uint64_t done, uint64_t total) {
        if (cancel_.cancelled()) fail(ErrorCode::cancelled, "stopped while filling the cache");
        bar_.update(done, total);
      };
      return fill_synthetic(*session_, depth, 1, progress);
    }
    const auto ids = random_ids(depth, model_->config().vocab, 1);
    for (uint64_t done = 0; done < depth;) {
      const uint64_t n = std::min<uint64_t>(session_options_.chunk, depth - done);
      append(*session_, std::span(ids).subspan(done, n));
      done += n;
      bar_.update(done, depth);
    }
  }

  // Decoding runs on the session and is rolled back; a prompt is read by a fork, so that the reach of
  // rollbacks (which costs memory in windows and recurrences) need not be as long as a prompt.
  double run_once(const Test& test) {
    const auto ids = random_ids(test.tokens, model_->config().vocab, 2 + runs_++);
    std::unique_ptr<Session> reader;
    if (!test.decode) reader = std::make_unique<Session>(session_->fork());
    const auto start = std::chrono::steady_clock::now();
    if (test.decode) {
      for (const TokenId& id : ids) append(*session_, {&id, 1});
    } else {
      append(*reader, ids);
    }
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (test.decode) session_->rollback(test.tokens);
    return static_cast<double>(test.tokens) / seconds;
  }

  void append(Session& session, std::span<const TokenId> ids) {
    AppendOptions append;
    append.cancel = &cancel_;
    session.append(ids, append);
  }

  const Options& options_;
  std::shared_ptr<const Model> model_;
  const CancelToken& cancel_;
  Progress bar_;
  SessionOptions session_options_;
  uint64_t longest_ = 1;  // decode test, tokens
  uint64_t runs_ = 0;
  std::unique_ptr<ReadBandwidth> probe_;
  int probe_threads_ = 1;
  std::optional<MachineFigures> machine_;
  std::unique_ptr<Session> session_;
  uint64_t depth_ = 0;
};

Json to_json(const Result& result, const Options& options, const Model& model) {
  const auto fraction = result.fraction();
  Json json{{"test", result.test.name()},
            {"depth", result.test.depth},
            {"depth_filled", options.synthetic ? "synthetic" : "read"},
            {"tokens_per_second", result.median},
            {"mean", result.mean},
            {"sd", result.sd},
            {"repeat", options.repeat},
            {"bytes_per_token", result.bytes_per_token},
            {"bandwidth_fraction", fraction ? Json(*fraction) : Json()},
            {"read_gbps", result.gbps ? Json(*result.gbps) : Json()},
            {"bandwidth_source", !result.gbps           ? Json()
                                 : result.gbps_measured ? Json("measured in this run")
                                                        : Json("estimate of mneme doctor")},
            {"rss_bytes", result.rss},
            {"threads", model.threads()},
            {"isa", model.isa()},
            {"kv", options.session.kv}};
  if (result.experts) json["experts"] = experts_json(*result.experts);
  return json;
}

const std::vector<std::string>& headings() {
  static const std::vector<std::string> names{"test",     "depth",     "tokens/s", "sd",
                                              "MB/token", "bandwidth", "RSS MB"};
  return names;
}

std::vector<std::string> cells(const Result& result) {
  const auto fraction = result.fraction();
  return {result.test.name(),
          std::to_string(result.test.depth),
          fmt::format("{:.2f}", result.median),
          fmt::format("{:.2f}", result.sd),
          fmt::format("{:.2f}", result.bytes_per_token / 1e6),
          fraction ? fmt::format("{:.1f} %", *fraction * 100) : "-",
          fmt::format("{:.0f}", static_cast<double>(result.rss) / 1e6)};
}

void print_text(const std::vector<Result>& results, const Options& options) {
  const bool md = options.output == "md";
  if (options.output == "table") {
    std::vector<std::vector<std::string>> rows{headings()};
    for (const Result& result : results) rows.push_back(cells(result));
    print(table(rows));
  } else {
    const auto line = [&](const std::vector<std::string>& row) {
      print(md ? fmt::format("| {} |\n", fmt::join(row, " | ")) : fmt::format("{}\n", fmt::join(row, ",")));
    };
    line(headings());
    if (md) line({"---", "---:", "---:", "---:", "---:", "---:", "---:"});
    for (const Result& result : results) line(cells(result));
  }
  if (options.common.quiet || options.output == "csv") return;
  if (options.synthetic) print("\ncontext before the tests: synthetic keys and values, no text was read\n");
  const Result& last = results.back();
  if (!last.gbps) {
    print("\nbandwidth: unknown; --bandwidth measures it in this run, `mneme doctor` keeps an estimate\n");
  } else if (last.gbps_measured) {
    print(fmt::format("\nbandwidth: share of {:.2f} GB/s, measured between the runs\n", *last.gbps));
  } else {
    print(fmt::format("\nbandwidth: share of {:.2f} GB/s, an estimate of an earlier `mneme doctor`\n",
                      *last.gbps));
  }
}

int run(const Options& options) {
  const std::vector<Test> tests = tests_of(options);
  const auto model = load_model(options.model, options.common);
  const InterruptScope interrupt;
  if (!options.common.quiet) print_start(*model);
  Bench bench(options, model, tests, interrupt.token());
  std::vector<Result> results;
  results.reserve(tests.size());
  for (const Test& test : tests) results.push_back(bench.run(test));
  if (options.common.json) {
    Json json = Json::array();
    for (const Result& result : results) json.push_back(to_json(result, options, *model));
    print_json(json);
  } else {
    print_text(results, options);
  }
  return kDone;
}

const VerbRegistration registration(
    {.name = "bench",
     .summary = "Measure reading a prompt (pp) and decoding (tg)",
     .group = Group::measure,
     .examples = {{"mneme bench MODEL", "512 prompt tokens, 128 decoded, five times each"},
                  {"mneme bench MODEL --depth 0,4096,16384 --prompt 0", "decoding only, at three depths"},
                  {"mneme bench MODEL --bandwidth -o md",
                   "with memory bandwidth from the same run, as Markdown"}},
     .setup = [](CLI::App& app) -> Action {
       auto options = std::make_shared<Options>();
       add_model_options(app, options->model);
       const auto list = [&app](const char* name, std::string& value, const char* text) {
         app.add_option(name, value, text)->type_name("N[,N...]");
       };
       list("--prompt", options->prompt, "Prompt lengths; 0: none");
       list("--gen", options->gen, "Numbers of tokens to decode; 0: none");
       list("--depth", options->depth, "Tokens of context before the test");
       app.add_option("--repeat", options->repeat, "Runs of each test")
           ->type_name("N")
           ->check(CLI::Range(1, 1000).description(""));
       app.add_flag("--bandwidth", options->bandwidth,
                    "Measure memory bandwidth between the runs (needs up to 2 GB)");
       app.add_flag("--synthetic", options->synthetic,
                    "Fill the context of --depth with random keys and values instead of reading tokens");
       app.add_flag("--no-warmup", options->no_warmup, "No run before the measured ones");
       app.add_option("-o,--output", options->output, "Form of the result")
           ->check(CLI::IsMember({"table", "md", "csv"}));
       add_session_options(app, options->session);
       add_common_options(app, options->common);
       return [options] { return run(*options); };
     }});

}  // namespace
}  // namespace mneme::cli::bench_verb
