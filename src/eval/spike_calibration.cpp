#include "eval/spike_calibration.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <optional>

#include "core/fail.h"
#include "engine/session_impl.h"
#include "engine/session_sequence.h"
#include "eval/input_sizes.h"
#include "eval/perplexity.h"
#include "eval/soft_targets.h"
#include "model/config_limits.h"
#include "model/config_names.h"
#include "model/projection_probe.h"
#include "model/tunable_model.h"
#include "simd/stripes.h"

namespace mneme {
namespace {

constexpr double kProbeSilence = 0.4;       // of the inputs, where sensitivity is first asked for
constexpr double kLeastSensitivity = 0.02;  // of the median: below it a measured one is noise

/// A place where projections of a unit read.
struct UnitPart {
  size_t site = 0;
  double bytes = 0;
  std::vector<float> weights;  // [width]: squared norms of the columns of all its projections together
};
struct PlannedUnit {
  size_t layer = 0;
  std::vector<Projection> projections;
  std::vector<UnitPart> parts;
  double bytes() const {
    double sum = 0;
    for (const UnitPart& part : parts) sum += part.bytes;
    return sum;
  }
};

std::optional<Projection> projection_of(const LayerWeights& layer, const Linear* linear) {
  for (const MixerWeights& mixer : layer.mixers) {
    if (linear == &mixer.q) return Projection::q;
    if (linear == &mixer.k) return Projection::k;
    if (linear == &mixer.v) return Projection::v;
    if (linear == &mixer.o) return Projection::o;
  }
  if (linear == &layer.gate) return Projection::gate;
  if (linear == &layer.up) return Projection::up;
  if (linear == &layer.down) return Projection::down;
  if (layer.moe) {  // all experts have the neuron of expert 0, which is the one that a site names
    const MoeWeights& moe = *layer.moe;
    if (linear == &moe.experts.front().gate || linear == &moe.shared.gate) return Projection::gate;
    if (linear == &moe.experts.front().up || linear == &moe.shared.up) return Projection::up;
  }
  return std::nullopt;
}

/// The matrices that a reader of a site stands for: itself, or those of all experts, of which a token reads
/// top_k.
struct ReadMatrices {
  std::vector<const PackedMatrix*> matrices;
  double read = 1;  // of them, by a token
};
ReadMatrices matrices_of(const ModelImpl& model, size_t layer, const Linear* linear) {
  const std::optional<MoeWeights>& moe = model.layers[layer].moe;
  for (Linear ExpertWeights::*part : {&ExpertWeights::gate, &ExpertWeights::up}) {
    if (!moe || linear != &(moe->experts.front().*part)) continue;
    ReadMatrices all{{}, static_cast<double>(model.config.layers[layer].ffn.top_k)};
    for (const ExpertWeights& expert : moe->experts) all.matrices.push_back(&(expert.*part).w);
    return all;
  }
  return {{&linear->w}, 1};
}

void check_skippable(size_t layer, const ProbeSite::Reader& reader) {
  const Linear& linear = *reader.linear;
  require(
      linear.input != Linear::Input::spikes && linear.input != Linear::Input::spike_floats,
      ErrorCode::unsupported,
      "{} of layer {} spikes already; calibrate the model without spikes, or leave it out of \"projections\"",
      reader.name, layer);
  require(
      can_stripe(linear.w.type), ErrorCode::unsupported,
      "{} of layer {} has weights of type {}, of which silent inputs leave nothing unread; `mneme quantize "
      "MODEL OUT.gguf --type q8_0` makes such that do (q8_0, q4_0, q4_1)",
      reader.name, layer, packed_layout(linear.w.type).name);
}

void add_column_norms(const PackedMatrix& w, double share, std::vector<float>& norms) {
  std::vector<double> sums(norms.begin(), norms.end());
  std::vector<float> row(norms.size());
  for (int64_t r = 0; r < w.rows; ++r) {
    unpack_row(w, r, 0, w.cols, row.data());
    for (size_t c = 0; c < row.size(); ++c) sums[c] += share * static_cast<double>(row[c]) * row[c];
  }
  std::copy(sums.begin(), sums.end(), norms.begin());
}

std::vector<PlannedUnit> plan_units(const ModelImpl& model, const std::vector<ProbeSite>& sites,
                                    const CalibrationOptions& options) {
  require(model.expert_store == nullptr, ErrorCode::unsupported,
          "calibration looks at the weights of all experts; load them into memory (--experts ram)");
  std::vector<PlannedUnit> units;
  std::map<std::pair<size_t, size_t>, size_t> known;  // by layer, and by input or projection
  const bool mixture =
      std::ranges::any_of(model.layers, [](const LayerWeights& w) { return w.moe.has_value(); });
  for (size_t s = 0; s < sites.size(); ++s)
    for (const ProbeSite::Reader& reader : sites[s].readers) {
      const auto projection = projection_of(model.layers[sites[s].layer], reader.linear);
      if (!projection || !std::ranges::count(options.projections, *projection)) continue;
      // What goes into down is another row for every expert, which no site shows; and a projection has one
      // kind of activation in all layers.
      if (mixture && *projection == Projection::down) continue;
      check_skippable(sites[s].layer, reader);
      const auto what =
          options.share ? static_cast<size_t>(sites[s].input) : static_cast<size_t>(*projection);
      const auto [at, is_new] = known.try_emplace({sites[s].layer, what}, units.size());
      if (is_new) units.push_back({sites[s].layer, {}, {}});
      PlannedUnit& unit = units[at->second];
      if (!std::ranges::count(unit.projections, *projection)) unit.projections.push_back(*projection);
      if (unit.parts.empty() || unit.parts.back().site != s)
        unit.parts.push_back({s, 0, std::vector<float>(static_cast<size_t>(sites[s].width))});
      unit.parts.back().bytes += static_cast<double>(matrix_bytes(reader.linear->w)) *
                                 matrices_of(model, sites[s].layer, reader.linear).read;
    }
  require(!units.empty(), ErrorCode::invalid_argument, "the model has none of the projections to calibrate");
  model.pool->for_each(std::ssize(units), [&](int64_t u) {
    for (UnitPart& part : units[static_cast<size_t>(u)].parts)
      for (const ProbeSite::Reader& reader : sites[part.site].readers) {
        const auto projection = projection_of(model.layers[sites[part.site].layer], reader.linear);
        if (!projection || !std::ranges::count(units[static_cast<size_t>(u)].projections, *projection))
          continue;
        const ReadMatrices read = matrices_of(model, sites[part.site].layer, reader.linear);
        for (const PackedMatrix* w : read.matrices)
          add_column_norms(*w, read.read / static_cast<double>(read.matrices.size()), part.weights);
      }
  });
  return units;
}

/// Sorts what projections read by size. Each thread has sums of its own.
class SizeObserver final : public ProjectionObserver {
 public:
  SizeObserver(const std::vector<PlannedUnit>& units, const std::vector<ProbeSite>& sites, int threads)
      : sites_(sites), parts_of_(sites.size()) {
    for (const PlannedUnit& unit : units)
      for (const UnitPart& part : unit.parts) {
        parts_of_[part.site].push_back(parts_.size());
        parts_.push_back(&part);
      }
    threads_.assign(static_cast<size_t>(threads), std::vector<InputSizes>(parts_.size()));
  }
  void see(size_t site, int thread, int64_t position, std::span<const float> x) override {
    for (const size_t part : parts_of_[site])
      require(threads_[static_cast<size_t>(thread)][part].add(x, parts_[part]->weights), ErrorCode::corrupt,
              "layer {}: the input of {} holds NaN or infinite values at position {} of a window",
              sites_[site].layer, sites_[site].readers.front().name, position);
  }
  /// In the order of units and their parts.
  std::vector<InputSizes> sizes() const {
    std::vector<InputSizes> out(parts_.size());
    for (const auto& thread : threads_)
      for (size_t part = 0; part < out.size(); ++part) out[part].add(thread[part]);
    return out;
  }

 private:
  const std::vector<ProbeSite>& sites_;
  std::vector<const UnitPart*> parts_;
  std::vector<std::vector<size_t>> parts_of_;  // [site]
  std::vector<std::vector<InputSizes>> threads_;
};

std::vector<NeuronCandidate> candidates_of(const PlannedUnit& unit, std::span<const InputSizes> sizes,
                                           const std::vector<double>& ks) {
  std::vector<NeuronCandidate> all;
  const double bytes = unit.bytes();
  for (const double k : ks)
    for (const double ratio : silent_ratios()) {
      const double dead_zone = std::round(ratio * k * 1000) / 1000;
      if (ratio > 0 && dead_zone <= 0.5) continue;  // as without
      NeuronCandidate sum{k, dead_zone};
      for (size_t p = 0; p < unit.parts.size(); ++p) {
        const NeuronCandidate one = sizes[p].candidate(k, dead_zone);
        const double share = unit.parts[p].bytes / bytes;
        sum.silent += share * one.silent;
        sum.extra += share * one.extra;
        sum.error += share * one.error;
      }
      all.push_back(sum);
    }
  return useful_candidates(std::move(all));
}

class Calibrator {
 public:
  Calibrator(const std::string& path, const LoadOptions& load, std::span<const TokenId> ids,
             const CalibrationOptions& options, SessionOptions session)
      : path_(path), load_(load), ids_(ids), options_(options), session_(session) {
    session_.max_context = options.ctx;
    session_.max_rollback = 0;
  }

  Calibration run() {
    read_as_it_is();
    tuned_ = std::make_unique<TunableModel>(path_, load_, policies(NeuronChoice(units_.size(), 0)));
    measure_sensitivities();
    const BudgetResult fitted = fit();
    Calibration out;
    out.layers = policies(fitted.best.choice);
    out.ppl_before = before_.ppl;
    out.ppl_after = before_.ppl * std::exp(fitted.best.measured);
    out.scored = before_.tokens;
    for (size_t u = 0; u < units_.size(); ++u)
      out.units.push_back({planned_[u].layer, planned_[u].projections, units_[u].bytes, units_[u].sensitivity,
                           units_[u].candidates[fitted.best.choice[u]]});
    double bytes = 0;
    for (const SpikeUnit& unit : units_) bytes += unit.bytes;
    for (const MeasuredChoice& point : fitted.curve) {
      const double silent = silent_bytes(units_, point.choice);
      out.curve.push_back({silent, silent * bytes / model_bytes_, before_.ppl * std::exp(point.measured),
                           std::expm1(point.measured)});
    }
    return out;
  }

 private:
  void progress(const char* what, uint64_t done, uint64_t total) const {
    if (options_.progress) options_.progress(what, done, total);
  }

  PerplexityResult score(const std::shared_ptr<const Model>& model, const char* what, uint64_t first,
                         uint64_t total) const {
    SessionRunner runner(model, session_);
    PerplexityOptions request;
    request.ctx = options_.ctx;
    request.cancel = options_.cancel;
    request.progress = [&](uint64_t done, uint64_t, double) { progress(what, first + done, total); };
    return perplexity(runner, stream_ids(ids_, options_.bos), request);
  }

  /// The model without spikes: perplexity, policies, units and their candidates.
  void read_as_it_is() {
    const auto model = Model::load(path_, load_);
    const uint32_t context = model->config().context;
    require(context == 0 || options_.ctx <= context, ErrorCode::limit,
            "windows of {} tokens do not fit the context of {}", options_.ctx, context);
    for (const LayerConfig& layer : model->config().layers) own_.push_back(layer.activation);
    model_bytes_ = static_cast<double>(model->bytes_per_token());
    const std::vector<ProbeSite> sites = probe_sites(model->impl());
    planned_ = plan_units(model->impl(), sites, options_);
    before_ = score(model, "reading", 0, 2 * ids_.size());
    SizeObserver observer(planned_, sites, model->threads());
    for (size_t at = 0; at + options_.ctx <= ids_.size(); at += options_.ctx) {
      Session session(model, session_);
      session.impl().observer = &observer;
      AppendOptions append;
      append.cancel = options_.cancel;
      session.append(window(at), append);
      progress("reading", ids_.size() + at + options_.ctx, 2 * ids_.size());
    }
    const std::vector<InputSizes> sizes = observer.sizes();
    size_t part = 0;
    for (const PlannedUnit& unit : planned_) {
      const auto of_unit = std::span(sizes).subspan(part, unit.parts.size());
      units_.push_back({unit.bytes(), 0, candidates_of(unit, of_unit, options_.ks)});
      part += unit.parts.size();
    }
  }

  std::vector<TokenId> window(size_t at) const {
    const auto ids = ids_.subspan(at, options_.ctx);
    std::vector<TokenId> out(ids.begin(), ids.end());
    if (options_.bos >= 0) out[0] = options_.bos;
    return out;
  }

  std::vector<ActivationPolicy> policies(const NeuronChoice& choice) const {
    std::vector<ActivationPolicy> out = own_;
    for (size_t u = 0; u < planned_.size(); ++u) {
      const NeuronCandidate& neuron = units_[u].candidates[choice[u]];
      for (const Projection projection : planned_[u].projections)
        out[planned_[u].layer][projection] = {Activation::spike, neuron.k, neuron.dead_zone};
    }
    return out;
  }

  /// Windows spread evenly over the text.
  std::vector<std::vector<TokenId>> probe_windows() const {
    const size_t there = ids_.size() / options_.ctx;
    const size_t wanted =
        std::clamp<size_t>((options_.probe_tokens + options_.ctx - 1) / options_.ctx, 1, there);
    std::vector<std::vector<TokenId>> out;
    for (size_t i = 0; i < wanted; ++i) out.push_back(window(i * there / wanted * options_.ctx));
    return out;
  }

  void measure_sensitivities() {
    const SoftTargets targets(tuned_->model(), probe_windows(), session_, options_.cancel);
    const auto loss = [&](const NeuronChoice& choice) {
      tuned_->set(policies(choice));
      return targets.cross_entropy(tuned_->model(), session_, options_.cancel);
    };
    const uint64_t total = uint64_t{options_.rounds} * units_.size();
    uint64_t done = 0;
    for (uint32_t round = 0; round < options_.rounds; ++round) {
      const NeuronChoice base =
          round == 0 ? NeuronChoice(units_.size(), 0) : choose_for_loss(units_, std::log1p(options_.budget));
      const double base_loss = loss(base);
      std::vector<double> found(units_.size());
      for (size_t u = 0; u < units_.size(); ++u) {
        NeuronChoice other = base;
        other[u] = round == 0 ? probe_candidate(units_[u]) : 0;
        const std::vector<NeuronCandidate>& candidates = units_[u].candidates;
        const double error = candidates[other[u]].error - candidates[base[u]].error;
        found[u] = error != 0 ? (loss(other) - base_loss) / error : units_[u].sensitivity;
        progress("probing", ++done, total);
      }
      keep_sensitivities(std::move(found));
    }
  }

  void keep_sensitivities(std::vector<double> found) {
    std::vector<double> sorted = found;
    std::ranges::sort(sorted);
    const double median = sorted[sorted.size() / 2];
    const double least = std::max(median * kLeastSensitivity, 1e-9);
    for (size_t u = 0; u < units_.size(); ++u) units_[u].sensitivity = std::max(found[u], least);
  }

  /// The candidate whose silence is nearest to kProbeSilence; of equals the most exact, which comes first.
  static size_t probe_candidate(const SpikeUnit& unit) {
    size_t best = 0;
    for (size_t c = 0; c < unit.candidates.size(); ++c)
      if (std::fabs(unit.candidates[c].silent - kProbeSilence) <
          std::fabs(unit.candidates[best].silent - kProbeSilence))
        best = c;
    return best;
  }

  BudgetResult fit() {
    BudgetSearch search;
    search.budget = std::log1p(options_.budget);
    for (const double more : options_.curve) search.beyond.push_back(std::log1p(more));
    const uint64_t total =
        ids_.size() * (1 + static_cast<uint64_t>(search.measurements) + search.beyond.size());
    uint64_t done = 0;
    return fit_budget(units_, search, [&](const NeuronChoice& choice) {
      tuned_->set(policies(choice));
      const double loss = score(tuned_->model(), "fitting", done, total).nll - before_.nll;
      done += ids_.size();
      return loss;
    });
  }

  const std::string& path_;
  const LoadOptions& load_;
  const std::span<const TokenId> ids_;
  const CalibrationOptions& options_;
  SessionOptions session_;
  std::vector<ActivationPolicy> own_;  // [layer]
  std::vector<PlannedUnit> planned_;
  std::vector<SpikeUnit> units_;
  PerplexityResult before_;
  double model_bytes_ = 0;
  std::unique_ptr<TunableModel> tuned_;
};

void check_calibration(const LoadOptions& load, std::span<const TokenId> ids,
                       const CalibrationOptions& options) {
  require(!load.activation, ErrorCode::invalid_argument,
          "calibration finds the activations itself; none may be forced");
  require(std::isfinite(options.budget) && options.budget > 0 && options.budget <= 10,
          ErrorCode::invalid_argument,
          "the budget is {}, but must be above 0 and at most 10: 0.02 allows 2 % more perplexity",
          options.budget);
  for (const double more : options.curve)
    require(std::isfinite(more) && more > 0 && more <= 10, ErrorCode::invalid_argument,
            "the curve has a budget of {}, but budgets are above 0 and at most 10", more);
  require(options.rounds >= 1 && options.rounds <= 8, ErrorCode::invalid_argument,
          "rounds is {}, but must be 1 to 8", options.rounds);
  require(options.ctx >= 4, ErrorCode::invalid_argument, "ctx is {}: a window needs at least 4 tokens",
          options.ctx);
  require(!options.ks.empty(), ErrorCode::invalid_argument, "there is no k to choose from");
  for (const double k : options.ks)
    require(k >= config_limits::kMinFiringK && k <= config_limits::kMaxFiringK, ErrorCode::invalid_argument,
            "a k of {} is outside {} to {}", k, config_limits::kMinFiringK, config_limits::kMaxFiringK);
  for (const Projection projection : options.projections)
    require(projection != Projection::recurrence && projection != Projection::memory,
            ErrorCode::invalid_argument,
            "the projection {} cannot be calibrated; q, k, v, o, gate, up and down can",
            config_names::word(config_names::kProjectionNames, projection));
  require(ids.size() >= 2 * uint64_t{options.ctx}, ErrorCode::invalid_argument,
          "the text has {} tokens, but calibration needs two windows of {} at least; take a longer text or "
          "shorter windows",
          ids.size(), options.ctx);
}

}  // namespace

Calibration calibrate_spikes(const std::string& path, const LoadOptions& load, std::span<const TokenId> ids,
                             const CalibrationOptions& options, const SessionOptions& session) {
  check_calibration(load, ids, options);
  const auto whole_windows = ids.size() / options.ctx * options.ctx;
  return Calibrator(path, load, ids.first(whole_windows), options, session).run();
}

}  // namespace mneme
