// `mneme cost`: what a model costs before anyone runs it, counted from a config or a model's tensors, beside
// the time that this machine's rates predict and, with --measure, the time that it takes. docs/cost.md says
// what is counted and what a prediction is made of.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <memory>

#include "cli/cost_picture.h"
#include "cli/cost_report.h"
#include "cli/cost_source.h"
#include "cli/options.h"
#include "cli/output_check.h"
#include "cli/progress.h"
#include "cli/signals.h"
#include "cli/sizes.h"
#include "cli/suggest.h"
#include "cli/terminal.h"
#include "cli/verb.h"
#include "core/fail.h"
#include "core/file.h"
#include "core/json.h"
#include "core/thread_pool.h"
#include "cost/traffic.h"
#include "memory/engram_config.h"
#include "model/config_limits.h"

namespace mneme::cli::cost_verb {
namespace {

constexpr uint64_t kMostPositions = config_limits::kMaxContext;
constexpr size_t kMostPoints = 4096;

struct Options {
  CommonOptions common;
  ModelOptions model;
  SessionFlags session;
  std::string context, prompt, attended, experts, spikes, routing, against, plot, output = "table";
  std::string machine = "auto";
  std::optional<double> alpha, activity, per_hour, per_kwh, watts;
  std::vector<std::string> sweeps;
  bool measure = false;
  uint64_t tokens = 32;
  int repeat = 9;
};

// ---- what was asked for, checked

/// A number of positions, experts or rows: "4096", "32Ki", "1M".
uint64_t count_argument(const std::string& text, std::string_view option, uint64_t most) {
  const uint64_t value = size_argument(text, option);
  if (value < 1 || value > most)
    throw UsageError(
        fmt::format("{} is \"{}\"; it is a number from 1 to {}, such as 4096 or 32Ki", option, text, most));
  return value;
}

void check_number(const std::optional<double>& value, const char* option, double least, double most) {
  if (value && !(*value >= least && *value <= most))
    throw UsageError(fmt::format("{} is {}; it is a number from {} to {}", option, *value, least, most));
}

void check_numbers(const Options& options) {
  check_number(options.alpha, "--alpha", 0, 1);
  check_number(options.activity, "--activity", 0, 1);
  check_number(options.per_hour, "--per-hour", 0, 1e9);
  check_number(options.per_kwh, "--per-kwh", 0, 1e9);
  check_number(options.watts, "--watts", 0, 1e9);
  if (options.activity && !options.spikes.empty())
    throw UsageError("--activity and --spikes both say how many inputs fire; give one of them");
  if (!options.experts.empty() && !options.routing.empty())
    throw UsageError(
        "--active-experts and --routing both say how many experts a token wakes; give one of them");
  if (options.watts && !options.per_kwh) throw UsageError("--watts is of no use without --per-kwh");
  if (!options.against.empty() && !options.measure) throw UsageError("--against needs --measure");
  check_picture_file("--plot", options.plot);
}

/// "2/64": experts that a token wakes, of how many.
std::optional<std::pair<double, double>> experts_argument(const std::string& text) {
  if (text.empty()) return std::nullopt;
  const size_t slash = text.find('/');
  double active = 0, all = 0;
  const auto read = [&](const char* begin, const char* end, double& value) {
    const auto [rest, error] = std::from_chars(begin, end, value);
    return error == std::errc() && rest == end;
  };
  const char* const at = text.data();
  const bool good = slash != std::string::npos && read(at, at + slash, active) &&
                    read(at + slash + 1, at + text.size(), all) && active >= 0 && all >= 1 && active <= all &&
                    all <= 1e9;
  if (!good)
    throw UsageError(fmt::format("--active-experts is \"{}\"; write active/all, such as 2/64", text));
  return std::pair(active, all);
}

struct Sweep {
  std::string key;
  std::vector<double> values;
};

const std::vector<std::string>& sweep_keys() {
  static const std::vector<std::string> keys{"context", "density", "experts", "active", "rows"};
  return keys;
}

std::vector<Sweep> sweeps_of(const Options& options) {
  std::vector<Sweep> sweeps;
  size_t points = 1;
  for (const std::string& text : options.sweeps) {
    const size_t equals = text.find('=');
    const std::string key = text.substr(0, equals);
    const auto& keys = sweep_keys();
    if (std::find(keys.begin(), keys.end(), key) == keys.end())
      throw UsageError(fmt::format("--sweep {}: there is no \"{}\" to sweep; there are {}{}", text, key,
                                   fmt::join(keys, ", "), did_you_mean(key, keys)));
    if (std::any_of(sweeps.begin(), sweeps.end(), [&](const Sweep& other) { return other.key == key; }))
      throw UsageError(fmt::format(
          "--sweep {} is given twice; write all its values into one, such as {}=1,2,4", key, key));
    Sweep sweep{key, {}};
    for (size_t at = equals; at < text.size();) {
      const size_t comma = std::min(text.find(',', at + 1), text.size());
      const std::string value = text.substr(at + 1, comma - at - 1);
      at = comma;
      if (key == "density") {
        double share = -1;
        const auto [rest, error] = std::from_chars(value.data(), value.data() + value.size(), share);
        if (error != std::errc() || rest != value.data() + value.size() || !(share >= 0 && share <= 1))
          throw UsageError(
              fmt::format("--sweep density: \"{}\" is no share of firing inputs from 0 to 1", value));
        sweep.values.push_back(share);
      } else {
        const uint64_t most = key == "rows" ? engram_limits::kMaxBaseRows : kMostPositions;
        sweep.values.push_back(static_cast<double>(count_argument(value, "--sweep " + key, most)));
      }
    }
    if (sweep.values.empty())
      throw UsageError(fmt::format("--sweep {}: values are wanted, such as {}=1,2,4", text, key));
    points *= sweep.values.size();
    if (points > kMostPoints)
      throw UsageError(fmt::format("the sweeps have more than {} points together", kMostPoints));
    if (key == "context" && !options.context.empty())
      throw UsageError("--context and --sweep context both say what a token sees; give one of them");
    if (options.measure && key != "context")
      throw UsageError(fmt::format("--measure runs the model as it is: sweep context, not {}", key));
    sweeps.push_back(std::move(sweep));
  }
  if (!options.plot.empty()) check_bars(points);
  return sweeps;
}

// ---- one point

/// What a point of a sweep changes.
struct Change {
  ModelConfig config;
  uint64_t context = 0;
  std::optional<double> density;
};

/// The config with another number of experts, or of those that a token wakes, in each of its mixtures; it is
/// changed as JSON, whose reader checks the numbers against each other. Throws Error(invalid_argument).
ModelConfig with_experts(const ModelConfig& config, const std::string& key, uint64_t value) {
  OrderedJson json = parse_ordered_json(config.to_json(), "config");
  bool found = false;
  const auto change = [&](OrderedJson& holder) {
    if (!holder.contains("ffn") || !holder["ffn"].contains("experts")) return;
    holder["ffn"][key == "experts" ? "experts" : "top_k"] = value;
    found = true;
  };
  if (json.contains("defaults")) change(json["defaults"]);
  for (OrderedJson& layer : json["layers"]) change(layer);
  require(found, ErrorCode::invalid_argument, "--sweep {}: no layer of the model has experts", key);
  return ModelConfig::from_json(json.dump());
}

void apply(const std::string& key, double value, Change& change) {
  if (key == "context") {
    change.context = static_cast<uint64_t>(value);
  } else if (key == "density") {
    change.density = value;
  } else if (key == "rows") {
    require(!change.config.tables.empty(), ErrorCode::invalid_argument,
            "--sweep rows: the model has no memory table");
    // Not a structured binding: clang-tidy 16 crashes on it (bugprone-unchecked-optional-access).
    for (auto& named : change.config.tables) {
      std::vector<uint64_t>& rows = named.second.base_rows;
      std::fill(rows.begin(), rows.end(), static_cast<uint64_t>(value));
    }
  } else {
    change.config = with_experts(change.config, key, static_cast<uint64_t>(value));
  }
}

class Costs {
 public:
  Costs(const Options& options, CostSource source, const CancelToken& cancel)
      : options_(options),
        source_(std::move(source)),
        session_(session_options(options.session)),
        cancel_(cancel) {
    threads_ = options.common.threads > 0 ? options.common.threads : available_cores();
    if (!options.spikes.empty())
      report_ =
          firing_report(parse_json(read_text_file(options.spikes, uint64_t{256} << 20), options.spikes));
    if (!options.routing.empty())
      routing_ =
          routing_figures(parse_json(read_text_file(options.routing, uint64_t{256} << 20), options.routing));
    if (options.machine != "none") {
      const FigureSource from = options.machine == "measure"  ? FigureSource::measure
                                : options.machine == "cached" ? FigureSource::cached
                                                              : FigureSource::automatic;
      times_ = std::make_unique<KernelTimes>(threads_, from, [this](std::string_view step) {
        stop_if_cancelled();
        if (shows_steps()) fmt::print(stderr, "\rmeasuring {} ...\033[K", step);
      });
    }
    if (!options.against.empty()) {
      ModelOptions dense = options.model;
      dense.model = options.against;
      dense.memory.clear();
      against_ = load_model(dense, options.common);
    }
  }
  ~Costs() { clear_step(); }
  Costs(const Costs&) = delete;
  Costs& operator=(const Costs&) = delete;

  uint64_t default_context() const {
    const uint32_t own = source_.config.context;
    return own == 0 ? 4096 : std::min<uint64_t>(own, 4096);
  }

  CostPoint point(const std::vector<std::pair<std::string, double>>& swept) {
    stop_if_cancelled();
    Change change{source_.config, 0, options_.activity};
    change.context = options_.context.empty() ? default_context()
                                              : count_argument(options_.context, "--context", kMostPositions);
    for (const auto& [key, value] : swept) apply(key, value, change);
    change.config.validate();
    CostPoint point;
    point.swept = swept;
    point.context = change.context;
    point.prompt = options_.prompt.empty() ? change.context
                                           : count_argument(options_.prompt, "--prompt", kMostPositions);
    point.kv = options_.session.kv;
    point.threads = threads_;
    point.rates = {options_.per_hour.value_or(0), options_.per_kwh.value_or(0), options_.watts.value_or(0)};
    const ModelShape& shape = point.shape.emplace(fired_shape(change, point));
    count(shape, point);
    predict(shape, point);
    if (options_.measure) measure(point);
    return point;
  }

  /// Keeps the rates for the next run. Where that cannot be, this run has its results all the same.
  void keep_rates() const {
    if (!times_) return;
    clear_step();
    try {
      times_->save();
    } catch (const Error& error) {
      if (!options_.common.quiet)
        fmt::print(stderr, "note: the measured rates are not kept: {}\n", error.what());
    }
  }

 private:
  bool shows_steps() const { return !options_.common.quiet && stderr_is_terminal(); }
  void clear_step() const {
    if (times_ && shows_steps()) fmt::print(stderr, "\r\033[K");
  }
  void stop_if_cancelled() const { require(!cancel_.cancelled(), ErrorCode::cancelled, "interrupted"); }

  ModelShape fired_shape(const Change& change, CostPoint& point) {
    ModelShape shape = source_.shape(change.config, source_.activation);
    const bool told = change.density || report_;
    if (told && !fires(shape)) {
      shape = source_.shape(change.config, ActivationPolicy(Activation::spike));
      point.notes.emplace_back(
          "no projection of the model spikes: counted as if all did (--activation spike)");
    }
    if (change.density)
      set_firing(shape, *change.density);
    else if (report_)
      set_firing(shape, *report_);
    if (report_ && !change.density) point.popcount = report_->popcount;
    if (routing_) {
      set_routing(shape, *routing_);
      point.sourced.k = "measured: " + options_.routing;
    }
    point.sourced.a = change.density ? "given"
                      : report_      ? "measured: " + options_.spikes
                      : fires(shape) ? "no report of spikes: every input counts as firing"
                                     : "counted: no projection spikes";
    if (source_.is_config() && source_.type)
      point.notes.push_back(fmt::format("a config has no weights: they are counted as {} (--type)",
                                        dtype_info(*source_.type).name));
    return shape;
  }

  void count(const ModelShape& shape, CostPoint& point) const {
    const KvType kv = session_.kv;
    point.decode = decode_cost(shape, kv, point.context);
    point.reading = prompt_cost(shape, kv, point.prompt, session_.chunk);
    point.kv_bytes = kv_bytes_held(shape.config, kv, point.context);
    point.recurrent_bytes = state_bytes(shape.config);
    point.counted = counted_ratio(shape, kv, point.context);
    SourcedRatio& sourced = point.sourced;
    sourced.ratio = point.counted.formula;
    if (options_.alpha) {
      sourced.ratio.alpha = *options_.alpha;
      sourced.alpha = "given";
    }
    if (!options_.attended.empty()) {
      const uint64_t m = count_argument(options_.attended, "--attended", point.context);
      sourced.ratio.m_over_n = static_cast<double>(m) / static_cast<double>(point.context);
      sourced.m = "given";
    }
    if (const auto experts = experts_argument(options_.experts)) {
      sourced.ratio.k_over_m = experts->first / experts->second;
      sourced.k = "given";
    }
  }

  void predict(const ModelShape& shape, CostPoint& point) {
    if (!times_) {
      point.figures = "no time is predicted: --machine none";
      return;
    }
    point.predicted = predict_decode(shape, session_.kv, point.context, *times_);
    point.predicted_prompt = predict_prompt(shape, session_.kv, point.prompt, session_.chunk, *times_);
    point.predicted_dense = predict_decode(dense_counterpart(shape), session_.kv, point.context, *times_);
    point.figures = !times_->cached()    ? "measured in this run"
                    : times_->measured() ? "partly measured in this run, partly an estimate of an earlier one"
                                         : "estimate of an earlier run (--machine measure renews it)";
  }

  void measure(CostPoint& point) const {
    Progress bar("Measuring", Progress::Unit::tokens, !options_.common.quiet);
    TimerOptions timer{session_, options_.tokens, options_.repeat, &cancel_, {}};
    timer.progress = [&](uint64_t done, uint64_t total) {
      stop_if_cancelled();
      bar.update(done, total);
    };
    point.measured = time_decode(source_.model, point.context, timer);
    if (against_) point.measured_against = time_decode(against_, point.context, timer);
    if (!options_.prompt.empty()) {
      timer.repeat = std::min(options_.repeat, 3);
      point.measured_prompt = time_prompt(source_.model, point.prompt, timer);
    }
    point.notes.emplace_back("the context of a measured time is synthetic: no text was read");
  }

  const Options& options_;
  CostSource source_;
  SessionOptions session_;
  const CancelToken& cancel_;
  int threads_ = 1;
  std::optional<FiringReport> report_;
  std::optional<RoutingFigures> routing_;
  std::unique_ptr<KernelTimes> times_;
  std::shared_ptr<const Model> against_;
};

// ---- the formula alone

CostPoint formula_only(const Options& options) {
  const auto experts = experts_argument(options.experts);
  if (!options.alpha || options.attended.empty() || options.context.empty() || !options.activity || !experts)
    throw UsageError(
        "name a config or a model, or give all terms of R: --alpha, --context n, --attended m, --activity a "
        "and --active-experts k/M");
  constexpr uint64_t kMost = uint64_t{1} << 53;
  CostPoint point;
  point.context = count_argument(options.context, "--context", kMost);
  SparsityRatio& r = point.sourced.ratio;
  r.n = static_cast<double>(point.context);
  r.m_over_n = static_cast<double>(count_argument(options.attended, "--attended", point.context)) / r.n;
  r.alpha = *options.alpha;
  r.a = *options.activity;
  r.k_over_m = experts->first / experts->second;
  check_ratio(r);
  point.sourced.alpha = point.sourced.m = point.sourced.a = point.sourced.k = "given";
  return point;
}

// ---- output

void print_markdown(const std::vector<std::vector<std::string>>& rows) {
  print(fmt::format("| {} |\n|{}\n", fmt::join(rows[0], " | "), [&] {
    std::string line;
    for (size_t i = 0; i < rows[0].size(); ++i) line += "---:|";
    return line;
  }()));
  for (size_t i = 1; i < rows.size(); ++i) print(fmt::format("| {} |\n", fmt::join(rows[i], " | ")));
}

void print_points(const Options& options, const std::vector<CostPoint>& points, bool sweeping) {
  if (options.common.json) {
    if (!sweeping) return print_json(to_json(points.front()));
    Json all = Json::array();
    for (const CostPoint& point : points) all.push_back(to_json(point));
    return print_json(all);
  }
  if (!sweeping && options.output == "table") return print(describe(points.front()));
  if (!points.front().shape) throw UsageError("-o is for a config or a model");
  const auto rows = sweep_rows(points);
  if (options.output == "table")
    print(table(rows));
  else if (options.output == "md")
    print_markdown(rows);
  else
    for (const auto& row : rows) print(fmt::format("{}\n", fmt::join(row, ",")));
  if (options.common.quiet || options.output == "csv") return;
  print(fmt::format("\nrates: {}\n", points.front().figures));
  for (const std::string& note : points.front().notes) print("note: " + note + "\n");
}

std::vector<CostPoint> sweep_points(Costs& costs, const std::vector<Sweep>& sweeps) {
  std::vector<CostPoint> points;
  std::vector<size_t> at(sweeps.size(), 0);
  for (bool more = true; more;) {
    std::vector<std::pair<std::string, double>> swept;
    for (size_t i = 0; i < sweeps.size(); ++i) swept.emplace_back(sweeps[i].key, sweeps[i].values[at[i]]);
    points.push_back(costs.point(swept));
    more = false;
    for (size_t i = sweeps.size(); i-- > 0 && !more;) {
      at[i] = (at[i] + 1) % sweeps[i].values.size();
      more = at[i] != 0;
    }
  }
  return points;
}

int run(const Options& options) {
  check_numbers(options);
  const std::vector<Sweep> sweeps = sweeps_of(options);
  std::vector<CostPoint> points;
  if (options.model.model.empty()) {
    if (!sweeps.empty() || options.measure)
      throw UsageError("--sweep and --measure need a config or a model");
    points.push_back(formula_only(options));
  } else {
    const InterruptScope interrupt;
    Costs costs(options, open_cost_source(options.model, options.common, options.measure), interrupt.token());
    points = sweep_points(costs, sweeps);
    costs.keep_rates();
  }
  if (!options.plot.empty()) {
    const std::optional<ModelShape>& shape = points.front().shape;
    if (!shape) throw UsageError("--plot is for a config or a model");
    draw_cost(points, model_name(shape->config, options.model.model), options.plot);
  }
  print_points(options, points, !sweeps.empty());
  flush_output();
  return kDone;
}

void add_ratio_options(CLI::App& app, Options& options) {
  constexpr const char* kGroup = "Ratio";
  app.add_option("--alpha", options.alpha, "Share of attention in R, instead of the counted one")
      ->type_name("A")
      ->group(kGroup);
  app.add_option("--attended", options.attended,
                 "Positions m that a token attends to, instead of the counted ones")
      ->type_name("M")
      ->group(kGroup);
  app.add_option("--activity", options.activity, "Share a of the inputs that fire")
      ->type_name("A")
      ->group(kGroup);
  app.add_option("--spikes", options.spikes, "A report of `mneme spikes --json` that says which inputs fire")
      ->type_name("FILE")
      ->group(kGroup);
  app.add_option("--routing", options.routing,
                 "A report of `mneme experts --json` that says how many experts a token wakes")
      ->type_name("FILE")
      ->group(kGroup);
  app.add_option("--active-experts", options.experts,
                 "Experts that a token wakes, of all, in R, such as 2/64")
      ->type_name("K/M")
      ->group(kGroup);
}

Action set_up(CLI::App& app) {
  auto options = std::make_shared<Options>();
  app.add_option("model", options->model.model,
                 "A config (.json), a GGUF file, a Hugging Face folder, or a name of `mneme list`")
      ->type_name("CONFIG|MODEL");
  app.add_option("--context", options->context,
                 "Positions that the token sees; default: what the model was made for, at most 4096")
      ->type_name("N");
  app.add_option("--prompt", options->prompt, "Tokens of the prompt; default: as --context")->type_name("N");
  app.add_option("--sweep", options->sweeps,
                 "Several values of context, density (inputs that fire), experts, active (experts) or rows "
                 "(of a table's heads); may be repeated")
      ->type_name("KEY=V[,V...]")
      ->allow_extra_args(false);
  app.add_option("--plot", options->plot, "Draw the points to FILE.svg or FILE.png")->type_name("FILE");
  app.add_option("-o,--output", options->output, "Form of the result")
      ->check(CLI::IsMember({"table", "md", "csv"}));
  app.add_flag("--measure", options->measure, "Run the model too, and print predicted over measured time");
  app.add_option("--tokens", options->tokens, "Tokens of a measured run")
      ->type_name("N")
      ->check(CLI::Range(1, 1 << 16).description(""));
  app.add_option("--repeat", options->repeat,
                 "Measured runs, more while they are disturbed; the time is the second fastest")
      ->type_name("N")
      ->check(CLI::Range(1, 1000).description(""));
  app.add_option("--against", options->against, "Measure this dense parent, too, at the same context")
      ->type_name("MODEL");
  app.add_option("--machine", options->machine,
                 "This machine's rates: auto (kept ones, else measured), measure, cached, or none")
      ->check(CLI::IsMember({"auto", "measure", "cached", "none"}));
  add_ratio_options(app, *options);
  app.add_option("--per-hour", options->per_hour, "What an hour of the machine costs, for a price")
      ->type_name("X")
      ->group("Price");
  app.add_option("--per-kwh", options->per_kwh, "What a kWh costs")->type_name("X")->group("Price");
  app.add_option("--watts", options->watts, "What the machine draws")->type_name("W")->group("Price");
  add_model_options(app, options->model, false);
  add_session_options(app, options->session, false);
  add_common_options(app, options->common);
  return [options] { return run(*options); };
}

const VerbRegistration registration(
    {.name = "cost",
     .summary = "Count what a model costs before it runs, and predict its time",
     .group = Group::measure,
     .examples =
         {{"mneme cost MODEL", "multiply-adds, bytes, memory, time of a token and of a prompt"},
          {"mneme cost config.json --type q4_0 --context 128Ki", "of a model that nobody has made yet"},
          {"mneme cost MODEL --sweep context=1Ki,16Ki,256Ki --plot cost.svg", "a picture of what grows"},
          {"mneme cost MODEL --measure --machine measure", "predicted beside measured time"},
          {"mneme cost MODEL --per-hour 0.40", "the price of a million tokens"},
          {"mneme cost --alpha 0.8 --context 4Mi --attended 32Ki --activity 0.31 --active-experts 2/64",
           "the published ratio alone"}},
     .setup = set_up});

}  // namespace
}  // namespace mneme::cli::cost_verb
