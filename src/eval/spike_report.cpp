#include "eval/spike_report.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "core/checked.h"
#include "core/fail.h"
#include "engine/session_impl.h"
#include "model/projection_probe.h"
#include "simd/spike_product.h"

namespace mneme {
namespace {

bool is_wanted(const std::string& name, const std::vector<std::string>& names) {
  return names.empty() || std::find(names.begin(), names.end(), name) != names.end();
}

void check_recording(const std::vector<ProbeSite>& sites, size_t layers,
                     const SpikeReportOptions::Recording& wanted) {
  require(wanted.layer < layers, ErrorCode::not_found, "there is no layer {}: the model has layers 0 to {}",
          wanted.layer, layers - 1);
  std::vector<std::string> known;
  for (const ProbeSite& site : sites)
    if (site.layer == wanted.layer)
      for (const ProbeSite::Reader& reader : site.readers) known.push_back(reader.name);
  for (const std::string& name : wanted.names)
    require(std::find(known.begin(), known.end(), name) != known.end(), ErrorCode::not_found,
            "layer {} has no projection \"{}\"; it has {}", wanted.layer, name, fmt::join(known, ", "));
}

/// The counts that a pass of the engine would have: its kernel's where the width is one that the kernel
/// takes.
float count_spikes(std::span<const float> x, const SpikeRule& rule, std::span<int32_t> counts) {
  if (x.size() % 32 != 0) return spike_row(x, rule, counts);
  return fire_reference({rule.k, rule.dead_zone}, x.data(), std::ssize(x), counts.data());
}

/// Whether a pass would take the event-driven way: its list holds groups of 4 firing columns within blocks
/// of 32.
bool takes_events(std::span<const int32_t> counts) {
  if (counts.size() % 32 != 0) return false;
  int64_t listed = 0;
  for (size_t at = 0; at < counts.size(); at += 32) {
    const auto block = counts.subspan(at, 32);
    listed += (32 - std::count(block.begin(), block.end(), 0) + 3) / 4 * 4;
  }
  return static_cast<double>(listed) <= event_share(1) * static_cast<double>(counts.size());
}

SpikeRule rule_of(const SpikeReportOptions& options, const Linear& linear) {
  const bool spikes = linear.input == Linear::Input::spikes || linear.input == Linear::Input::spike_floats;
  return options.rule ? *options.rule
         : spikes     ? SpikeRule{linear.neuron.k, linear.neuron.dead_zone}
                      : SpikeRule{};
}

/// One neuron at one site: what the projections that share both are counted as.
struct Neuron {
  size_t site = 0;
  SpikeRule rule = {};
  std::vector<size_t> readers = {};  // of the site
  SpikeRecord* record = nullptr;
};

std::vector<Neuron> neurons_of(const std::vector<ProbeSite>& sites, const SpikeReportOptions& options) {
  std::vector<Neuron> neurons;
  for (size_t s = 0; s < sites.size(); ++s) {
    const size_t first = neurons.size();
    for (size_t r = 0; r < sites[s].readers.size(); ++r) {
      const SpikeRule rule = rule_of(options, *sites[s].readers[r].linear);
      size_t n = first;
      while (n < neurons.size() && !(neurons[n].rule == rule)) ++n;
      if (n == neurons.size()) neurons.push_back({s, rule});
      neurons[n].readers.push_back(r);
    }
  }
  return neurons;
}

/// Counts spikes as the threads of a pass show their inputs. Each thread has histograms of its own.
class Counter final : public ProjectionObserver {
 public:
  Counter(const ModelImpl& model, const std::vector<ProbeSite>& sites, const SpikeReportOptions& options)
      : sites_(sites),
        neurons_(neurons_of(sites, options)),
        sink_tokens_(model.config.sink_tokens),
        threads_(static_cast<size_t>(model.pool->size())) {
    for (Thread& thread : threads_) thread.tallies.resize(neurons_.size());
    first_.assign(sites.size() + 1, neurons_.size());
    for (size_t n = neurons_.size(); n-- > 0;) first_[neurons_[n].site] = n;
    if (options.record) add_records(*options.record);
  }

  void see(size_t site, int thread, int64_t position, std::span<const float> x) override {
    Thread& mine = threads_[static_cast<size_t>(thread)];
    mine.counts.resize(x.size());
    const int64_t token = position - sink_tokens_;
    for (size_t n = first_[site]; n < first_[site + 1]; ++n) {
      const float threshold = count_spikes(x, neurons_[n].rule, mine.counts);
      require(!std::isnan(threshold), ErrorCode::corrupt,
              "layer {}: the input of {} holds NaN or infinite values at token {} of a window",
              sites_[site].layer, sites_[site].readers.front().name, token);
      mine.tallies[n].histogram.add(mine.counts);
      mine.tallies[n].event_tokens += takes_events(mine.counts) ? 1 : 0;
      if (SpikeRecord* record = neurons_[n].record; recording && record != nullptr && token < record->tokens)
        keep(*record, token, x, mine.counts, threshold);
    }
  }

  std::vector<ProjectionSpikes> projections(uint64_t tokens) const {
    std::vector<ProjectionSpikes> all;
    for (size_t s = 0; s < sites_.size(); ++s) {
      std::vector<ProjectionSpikes> here(sites_[s].readers.size());
      for (size_t n = first_[s]; n < first_[s + 1]; ++n) {
        const Tally sum = tally(n);
        const double events = static_cast<double>(sum.event_tokens) / static_cast<double>(tokens);
        const auto histogram = std::make_shared<const SpikeHistogram>(sum.histogram);
        for (const size_t r : neurons_[n].readers) {
          const ProbeSite::Reader& reader = sites_[s].readers[r];
          here[r] = {sites_[s].layer,
                     reader.name,
                     sites_[s].width,
                     reader.linear->w.rows,
                     neurons_[n].rule,
                     histogram,
                     can_stripe(reader.linear->w.type) ? events : 0.0};
        }
      }
      all.insert(all.end(), here.begin(), here.end());
    }
    return all;
  }
  std::vector<SpikeRecord> take_records() { return std::move(records_); }
  bool recording = true;  // in the first window

 private:
  struct Tally {
    SpikeHistogram histogram;
    uint64_t event_tokens = 0;
  };
  struct Thread {
    std::vector<Tally> tallies;  // [neuron]
    std::vector<int32_t> counts;
  };

  Tally tally(size_t neuron) const {
    Tally sum;
    for (const Thread& thread : threads_) {
      sum.histogram.add(thread.tallies[neuron].histogram);
      sum.event_tokens += thread.tallies[neuron].event_tokens;
    }
    return sum;
  }

  void add_records(const SpikeReportOptions::Recording& wanted) {
    std::vector<Neuron*> recorded;
    for (Neuron& neuron : neurons_) {
      const ProbeSite& site = sites_[neuron.site];
      if (site.layer != wanted.layer) continue;
      SpikeRecord record{site.layer, {}, neuron.rule, site.width, wanted.tokens, {}, {}, {}};
      for (const size_t r : neuron.readers)
        if (is_wanted(site.readers[r].name, wanted.names)) record.names.push_back(site.readers[r].name);
      if (record.names.empty()) continue;
      const size_t values =
          checked_mul(static_cast<size_t>(record.width), size_t{wanted.tokens}, "recorded spikes");
      record.inputs.resize(values);
      record.counts.resize(values);
      record.thresholds.resize(wanted.tokens);
      records_.push_back(std::move(record));
      recorded.push_back(&neuron);
    }
    for (size_t i = 0; i < recorded.size(); ++i) recorded[i]->record = &records_[i];
  }
  static void keep(SpikeRecord& record, int64_t token, std::span<const float> x,
                   std::span<const int32_t> counts, float threshold) {
    std::copy(x.begin(), x.end(), record.inputs.begin() + token * record.width);
    std::copy(counts.begin(), counts.end(), record.counts.begin() + token * record.width);
    record.thresholds[static_cast<size_t>(token)] = threshold;
  }

  const std::vector<ProbeSite>& sites_;
  std::vector<Neuron> neurons_;  // in the order of their sites
  std::vector<size_t> first_;    // [site]: its first neuron
  const int64_t sink_tokens_;
  std::vector<Thread> threads_;
  std::vector<SpikeRecord> records_;
};

void read_text(const std::shared_ptr<const Model>& model, std::span<const TokenId> ids,
               const SpikeReportOptions& options, SessionOptions session_options, Counter& counter) {
  const uint32_t context =
      session_options.max_context != 0 ? session_options.max_context : model->config().context;
  const size_t ctx = std::min<size_t>(options.ctx, ids.size());
  require(context == 0 || ctx <= context, ErrorCode::limit,
          "windows of {} tokens do not fit the context of {}", ctx, context);
  session_options.max_rollback = 0;
  for (size_t at = 0; at < ids.size(); at += ctx) {
    const auto piece = ids.subspan(at, std::min(ctx, ids.size() - at));
    std::vector<TokenId> window(piece.begin(), piece.end());
    if (at > 0 && options.bos >= 0) window[0] = options.bos;
    Session session(model, session_options);
    session.impl().observer = &counter;
    AppendOptions append;
    append.cancel = options.cancel;
    append.progress = [&](uint64_t done, uint64_t) {
      if (options.progress) options.progress(at + done, ids.size());
    };
    session.append(window, append);
    counter.recording = false;
  }
}

}  // namespace

double SpikeReport::mean(const std::function<double(const ProjectionSpikes&)>& figure) const {
  double sum = 0, weights = 0;
  for (const ProjectionSpikes& projection : projections) {
    const double weight = static_cast<double>(projection.inputs) * static_cast<double>(projection.outputs);
    sum += weight * figure(projection);
    weights += weight;
  }
  return weights > 0 ? sum / weights : 0;
}

SpikeHistogram SpikeReport::histogram() const {
  SpikeHistogram sum;
  std::set<const SpikeHistogram*> added;
  for (const ProjectionSpikes& projection : projections)
    if (added.insert(projection.histogram.get()).second) sum.add(*projection.histogram);
  return sum;
}

SpikeReport spike_report(const std::shared_ptr<const Model>& model, std::span<const TokenId> ids,
                         const SpikeReportOptions& options, const SessionOptions& session) {
  if (options.rule) check_spike_rule(*options.rule);
  require(!ids.empty(), ErrorCode::invalid_argument, "the text is empty: there is nothing to fire at");
  require(options.ctx >= 1, ErrorCode::invalid_argument, "ctx is 0: a window needs at least 1 token");
  const std::vector<ProbeSite> sites = probe_sites(model->impl());
  if (options.record) {
    check_recording(sites, model->config().layers.size(), *options.record);
    const size_t most = std::min<size_t>(options.ctx, ids.size());
    require(options.record->tokens >= 1 && options.record->tokens <= most, ErrorCode::invalid_argument,
            "cannot record {} tokens of a text with {} in windows of {}", options.record->tokens, ids.size(),
            options.ctx);
  }
  Counter counter(model->impl(), sites, options);
  read_text(model, ids, options, session, counter);

  SpikeReport report;
  report.tokens = ids.size();
  report.projections = counter.projections(report.tokens);
  report.records = counter.take_records();
  return report;
}

}  // namespace mneme
