#include "eval/spike_report.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "core/checked.h"
#include "core/fail.h"
#include "engine/session_impl.h"
#include "model/projection_probe.h"

namespace mneme {
namespace {

bool any_reader(const ProbeSite& site, const std::vector<std::string>& names) {
  return names.empty() ||
         std::any_of(site.readers.begin(), site.readers.end(), [&](const ProbeSite::Reader& reader) {
           return std::find(names.begin(), names.end(), reader.name) != names.end();
         });
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

/// Counts spikes as the threads of a pass show their inputs. Each thread has histograms of its own.
class Counter final : public ProjectionObserver {
 public:
  Counter(const ModelImpl& model, const std::vector<ProbeSite>& sites, const SpikeReportOptions& options)
      : sites_(sites),
        rule_(options.rule),
        sink_tokens_(model.config.sink_tokens),
        threads_(model.pool->size()) {
    for (Thread& thread : threads_) thread.histograms.resize(sites.size());
    record_of_.assign(sites.size(), nullptr);
    if (!options.record) return;
    for (size_t s = 0; s < sites.size(); ++s)
      if (sites[s].layer == options.record->layer && any_reader(sites[s], options.record->names))
        add_record(s, *options.record);
    for (size_t i = 0; i < records_.size(); ++i) record_of_[record_sites_[i]] = &records_[i];
  }

  void see(size_t site, int thread, int64_t position, std::span<const float> x) override {
    Thread& mine = threads_[static_cast<size_t>(thread)];
    mine.counts.resize(x.size());
    const float threshold = spike_row(x, rule_, mine.counts);
    require(!std::isnan(threshold), ErrorCode::corrupt,
            "layer {}: the input of {} holds NaN or infinite values at token {} of a window",
            sites_[site].layer, sites_[site].readers.front().name, position - sink_tokens_);
    mine.histograms[site].add(mine.counts);
    const int64_t token = position - sink_tokens_;
    if (SpikeRecord* record = record_of_[site]; recording && record != nullptr && token < record->tokens) {
      std::copy(x.begin(), x.end(), record->inputs.begin() + token * record->width);
      std::copy(mine.counts.begin(), mine.counts.end(), record->counts.begin() + token * record->width);
      record->thresholds[static_cast<size_t>(token)] = threshold;
    }
  }

  SpikeHistogram histogram(size_t site) const {
    SpikeHistogram sum;
    for (const Thread& thread : threads_) sum.add(thread.histograms[site]);
    return sum;
  }
  std::vector<SpikeRecord> take_records() { return std::move(records_); }
  bool recording = true;  // in the first window

 private:
  struct Thread {
    std::vector<SpikeHistogram> histograms;  // [site]
    std::vector<int32_t> counts;
  };
  void add_record(size_t s, const SpikeReportOptions::Recording& wanted) {
    SpikeRecord record{sites_[s].layer, {}, sites_[s].width, wanted.tokens, {}, {}, {}};
    for (const ProbeSite::Reader& reader : sites_[s].readers)
      if (wanted.names.empty() ||
          std::find(wanted.names.begin(), wanted.names.end(), reader.name) != wanted.names.end())
        record.names.push_back(reader.name);
    const size_t values =
        checked_mul(static_cast<size_t>(record.width), size_t{wanted.tokens}, "recorded spikes");
    record.inputs.resize(values);
    record.counts.resize(values);
    record.thresholds.resize(wanted.tokens);
    records_.push_back(std::move(record));
    record_sites_.push_back(s);
  }

  const std::vector<ProbeSite>& sites_;
  const SpikeRule rule_;
  const int64_t sink_tokens_;
  std::vector<Thread> threads_;
  std::vector<SpikeRecord> records_;
  std::vector<size_t> record_sites_;
  std::vector<SpikeRecord*> record_of_;  // [site]
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
  check_spike_rule(options.rule);
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
  for (size_t s = 0; s < sites.size(); ++s) {
    const auto histogram = std::make_shared<const SpikeHistogram>(counter.histogram(s));
    for (const ProbeSite::Reader& reader : sites[s].readers)
      report.projections.push_back(
          {sites[s].layer, reader.name, sites[s].width, reader.linear->w.rows, histogram});
  }
  report.records = counter.take_records();
  return report;
}

}  // namespace mneme
