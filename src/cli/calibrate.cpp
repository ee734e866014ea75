#include "cli/calibrate.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <memory>

#include "cli/progress.h"
#include "cli/signals.h"
#include "cli/store.h"
#include "cli/terminal.h"
#include "cli/verb.h"
#include "convert/quantize.h"
#include "core/dtype.h"
#include "core/fail.h"
#include "engine/session_sequence.h"
#include "eval/perplexity.h"
#include "eval/spike_calibration.h"
#include "eval/spike_report.h"
#include "model/config_names.h"
#include "model/tunable_model.h"

namespace mneme::cli {
namespace {

constexpr uint64_t kReportTokens = 4096;  // of held-out text in which spikes are counted

/// A bar for each part of the work, one after the other.
class PartProgress {
 public:
  explicit PartProgress(bool enabled) : enabled_(enabled) {}
  void update(const std::string& title, Progress::Unit unit, uint64_t done, uint64_t total) {
    if (bar_ == nullptr || title != title_) {
      bar_ = std::make_unique<Progress>(title, unit, enabled_);
      title_ = title;
    }
    bar_->update(done, total);
  }
  void clear() {
    if (bar_ != nullptr) bar_->clear();
  }

 private:
  const bool enabled_;
  std::string title_;
  std::unique_ptr<Progress> bar_;
};

/// The first `most` tokens of some files, one after the other.
std::vector<TokenId> tokens_of(const Tokenizer& tokenizer, const std::vector<fs::path>& files,
                               uint64_t most) {
  std::vector<TokenId> ids;
  for (const fs::path& file : files) {
    const TokenStream stream = stream_file(tokenizer, file);
    for (bool more = true; more && ids.size() < most;) more = stream.next(ids);
    if (ids.size() >= most) break;
  }
  if (ids.size() > most) ids.resize(most);
  return ids;
}

struct Texts {
  std::vector<TokenId> train, held_out;
  TokenId bos = -1;
};

Texts read_texts(const Model& model, const CalibrationRecipe& recipe) {
  const Tokenizer& tokenizer = model.tokenizer();
  const uint64_t ctx = recipe.context;
  Texts out;
  out.bos = opening_bos(tokenizer);
  const bool apart = !recipe.validation.empty();
  out.train = tokens_of(tokenizer, recipe.train, apart ? recipe.tokens : recipe.tokens + recipe.held_out);
  const auto fewest = apart ? 2 * ctx : 3 * ctx;
  require(out.train.size() >= fewest, ErrorCode::invalid_argument,
          "{} {} {} tokens; a calibration with windows of {} needs {} at least{}: take a longer text, or a "
          "smaller data.context",
          recipe.train.front().string(), recipe.train.size() == 1 ? "has" : "and the texts after it have",
          out.train.size(), ctx, fewest, apart ? "" : ", the last window of them held out");
  if (apart) {
    out.held_out = tokens_of(tokenizer, recipe.validation, recipe.held_out);
  } else {  // of a short text two thirds are for calibration, in whole windows
    const uint64_t two_thirds = std::max(2 * ctx, out.train.size() * 2 / 3 / ctx * ctx);
    const auto cut = static_cast<std::ptrdiff_t>(std::min(recipe.tokens / ctx * ctx, two_thirds));
    out.held_out.assign(out.train.begin() + cut, out.train.end());
    out.train.resize(static_cast<size_t>(cut));
  }
  require(out.held_out.size() >= ctx, ErrorCode::invalid_argument,
          "{} has {} tokens, fewer than one window of {}; take a longer text, or a smaller data.context",
          (apart ? recipe.validation : recipe.train).front().string(), out.held_out.size(), ctx);
  return out;
}

/// What was measured on text that the calibration did not see.
struct HeldOut {
  PerplexityResult before, after;
  SpikeReport spikes;
};

class CalibrationRun {
 public:
  CalibrationRun(const std::string& in, const std::string& out, const CalibrationRecipe& recipe,
                 const CommonOptions& common)
      : in_(resolve_model(in).string()), out_(out), recipe_(recipe), common_(common), bars_(!common.quiet) {
    load_.threads = common.threads;
    load_.type = recipe.weights;
    session_.max_context = recipe.context;
    session_.max_rollback = 0;
    const bool folder = !fs::path(out).has_filename() || fs::is_directory(out);
    writing_.type = folder ? std::string() : recipe.weights;
    writing_.threads = common.threads;
  }

  int run() {
    const auto start = std::chrono::steady_clock::now();
    check_quantize(in_, out_, writing_);
    {
      const auto model = load();
      check_weights(*model);
      model_bytes_ = model->bytes_per_token();
      texts_ = read_texts(*model, recipe_);
      held_out_.before = score(model);
    }
    const Calibration found = calibrate_spikes(in_, load_, texts_.train, options(), session_);
    bars_.clear();
    {
      const TunableModel tuned(in_, load_, found.layers);
      held_out_.after = score(tuned.model());
      held_out_.spikes = count(tuned.model());
    }
    write(found.layers);
    bars_.clear();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (common_.json)
      print_json(as_json(found, seconds));
    else
      print_tables(found, seconds);
    flush_output();
    return kDone;
  }

 private:
  void check_weights(const Model& model) const {
    if (recipe_.weights.empty()) return;
    for (const TensorDescription& tensor : model.tensors()) {
      const auto type = dtype_from_name(tensor.type);
      require(!type || !dtype_info(*type).quantized, ErrorCode::invalid_argument,
              "\"weights\" is for checkpoints in floating point, but {} of {} has {}; leave it out",
              tensor.name, in_, tensor.type);
    }
  }

  std::shared_ptr<const Model> load() {
    LoadOptions options = load_;
    options.progress = [this](uint64_t done, uint64_t total) {
      bars_.update("Loading", Progress::Unit::bytes, done, total);
    };
    return Model::load(in_, options);
  }

  CalibrationOptions options() {
    CalibrationOptions out;
    out.budget = recipe_.budget;
    out.ctx = recipe_.context;
    out.probe_tokens = recipe_.probe_tokens;
    out.rounds = recipe_.rounds;
    out.share = recipe_.share;
    if (!recipe_.projections.empty()) out.projections = recipe_.projections;
    if (!recipe_.ks.empty()) out.ks = recipe_.ks;
    out.curve = recipe_.curve;
    out.bos = texts_.bos;
    out.cancel = &interrupt_.token();
    out.progress = [this](std::string_view what, uint64_t done, uint64_t total) {
      const bool probing = what == "probing";
      const char* title = what == "reading" ? "Reading" : probing ? "Probing projections" : "Fitting";
      bars_.update(title, probing ? Progress::Unit::items : Progress::Unit::tokens, done, total);
    };
    return out;
  }

  PerplexityResult score(const std::shared_ptr<const Model>& model) {
    SessionRunner runner(model, session_);
    PerplexityOptions request;
    request.ctx = recipe_.context;
    request.cancel = &interrupt_.token();
    request.progress = [this](uint64_t done, uint64_t, double) {
      bars_.update("Scoring held-out text", Progress::Unit::tokens, done, texts_.held_out.size());
    };
    return perplexity(runner, stream_ids(texts_.held_out, texts_.bos), request);
  }

  SpikeReport count(const std::shared_ptr<const Model>& model) {
    SpikeReportOptions request;
    request.ctx = recipe_.context;
    request.bos = texts_.bos;
    request.cancel = &interrupt_.token();
    const size_t tokens = std::min<size_t>(texts_.held_out.size(), kReportTokens);
    request.progress = [this, tokens](uint64_t done, uint64_t) {
      bars_.update("Counting spikes", Progress::Unit::tokens, done, tokens);
    };
    return spike_report(model, std::span(texts_.held_out).first(tokens), request, session_);
  }

  void write(const std::vector<ActivationPolicy>& layers) {
    writing_.activation = layers;
    writing_.progress = [this](uint64_t done, uint64_t total) {
      require(!interrupt_.interrupted(), ErrorCode::cancelled, "interrupted; nothing was written");
      bars_.update("Writing", Progress::Unit::bytes, done, total);
    };
    quantize_model(in_, out_, writing_);
  }

  // ---- results

  struct Row {
    size_t layer = 0;
    std::string names;
    double bytes = 0, sensitivity = 0;
    NeuronCandidate neuron;
    double silent = 0;  // measured on held-out text
  };
  std::vector<Row> rows(const Calibration& found) const {
    std::map<std::pair<size_t, std::string>, double> measured;
    for (const ProjectionSpikes& p : held_out_.spikes.projections)
      measured[{p.layer, p.name}] = p.histogram->silent();
    std::vector<Row> out;
    for (const CalibratedUnit& unit : found.units) {
      Row row{unit.layer, {}, unit.bytes, unit.sensitivity, unit.neuron, unit.neuron.silent};
      for (const Projection projection : unit.projections) {
        const std::string name(config_names::word(config_names::kProjectionNames, projection));
        row.names += (row.names.empty() ? "" : ", ") + name;
        if (const auto at = measured.find({unit.layer, name}); at != measured.end()) row.silent = at->second;
      }
      out.push_back(row);
    }
    return out;
  }
  struct Totals {
    double bytes = 0, silent = 0;
    double share() const { return bytes > 0 ? silent / bytes : 0; }
  };
  static Totals totals(const std::vector<Row>& rows) {
    Totals out;
    for (const Row& row : rows) {
      out.bytes += row.bytes;
      out.silent += row.bytes * row.silent;
    }
    return out;
  }
  double model_share(const Totals& sums) const { return sums.silent / static_cast<double>(model_bytes_); }

  static double more(double after, double before) { return after / before - 1; }

  Json as_json(const Calibration& found, double seconds) const {
    const std::vector<Row> lines = rows(found);
    const Totals sums = totals(lines);
    Json projections = Json::array(), curve = Json::array();
    for (const Row& row : lines)
      projections.push_back({{"layer", row.layer},
                             {"name", row.names},
                             {"k", row.neuron.k},
                             {"dead_zone", row.neuron.dead_zone},
                             {"silent", row.silent},
                             {"bytes", row.bytes},
                             {"skipped", row.silent * row.bytes / static_cast<double>(model_bytes_)},
                             {"sensitivity", row.sensitivity}});
    for (const SilencePoint& point : found.curve)
      curve.push_back({{"silent", point.silent},
                       {"model_silent", point.model_silent},
                       {"ppl", point.ppl},
                       {"more", point.more}});
    return {{"out", out_},
            {"budget", recipe_.budget},
            {"ppl_before", found.ppl_before},
            {"ppl_after", found.ppl_after},
            {"tokens", found.scored},
            {"held_out",
             {{"ppl_before", held_out_.before.ppl},
              {"ppl_after", held_out_.after.ppl},
              {"tokens", held_out_.after.tokens}}},
            {"silent", sums.share()},
            {"model_silent", model_share(sums)},
            {"projections", projections},
            {"curve", curve},
            {"seconds", seconds}};
  }

  void print_tables(const Calibration& found, double seconds) const {
    const std::vector<Row> lines = rows(found);
    std::vector<std::vector<std::string>> cells{
        {"layer", "projections", "k", "dead zone", "silent %", "of all bytes %"}};
    std::map<std::string, Totals> kinds;
    std::vector<std::string> order;
    for (const Row& row : lines) {
      cells.push_back(
          {std::to_string(row.layer), row.names, fmt::format("{:g}", row.neuron.k),
           fmt::format("{:g}", row.neuron.dead_zone), fmt::format("{:.1f}", 100 * row.silent),
           fmt::format("{:.2f}", 100 * row.silent * row.bytes / static_cast<double>(model_bytes_))});
      if (!kinds.contains(row.names)) order.push_back(row.names);
      Totals& kind = kinds[row.names];
      kind.bytes += row.bytes;
      kind.silent += row.bytes * row.silent;
    }
    for (const std::string& name : order)
      cells.push_back({"all", name, "", "", fmt::format("{:.1f}", 100 * kinds[name].share()),
                       fmt::format("{:.2f}", 100 * model_share(kinds[name]))});
    print(table(cells));
    if (found.curve.size() > 1) print_curve(found);
    const Totals sums = totals(lines);
    print(fmt::format(
        "\nsilent: {:.1f} % of the bytes of these projections, {:.1f} % of all that a token reads\n",
        100 * sums.share(), 100 * model_share(sums)));
    print_perplexity("calibration text", found.ppl_before, found.ppl_after, found.scored);
    print_perplexity("held-out text", held_out_.before.ppl, held_out_.after.ppl, held_out_.after.tokens);
    print(fmt::format("{}: {}\n", out_, human_seconds(seconds)));
  }
  static void print_perplexity(const char* text, double before, double after, uint64_t tokens) {
    print(fmt::format("{}: perplexity {:.4f} -> {:.4f}, {:+.2f} % ({} tokens scored)\n", text, before, after,
                      100 * more(after, before), tokens));
  }
  static void print_curve(const Calibration& found) {
    std::vector<std::vector<std::string>> cells{{"silent %", "of all bytes %", "perplexity", "more %"}};
    for (const SilencePoint& point : found.curve)
      cells.push_back({fmt::format("{:.1f}", 100 * point.silent),
                       fmt::format("{:.1f}", 100 * point.model_silent), fmt::format("{:.4f}", point.ppl),
                       fmt::format("{:.2f}", 100 * point.more)});
    print("\n" + table(cells));
  }

  const std::string in_, out_;
  const CalibrationRecipe& recipe_;
  const CommonOptions& common_;
  const InterruptScope interrupt_;
  PartProgress bars_;
  LoadOptions load_;
  SessionOptions session_;
  QuantizeOptions writing_;
  Texts texts_;
  HeldOut held_out_;
  uint64_t model_bytes_ = 1;
};

}  // namespace

int run_calibration(const std::string& in, const std::string& out, const CalibrationRecipe& recipe,
                    const CommonOptions& common) {
  return CalibrationRun(in, out, recipe, common).run();
}

}  // namespace mneme::cli
