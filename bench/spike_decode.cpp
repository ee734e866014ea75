// Decoding of real text by several variants of a model that take turns: which is faster, and by how much.
//   build/release/bin/spike_decode --text FILE MODEL.gguf=int8 MODEL.gguf=spike:k=16,dead_zone=9
//   CALIBRATED.gguf
// A variant is a file and the activation that is forced on it, or a file whose config says. Every round gives
// each variant the same block of tokens, one by one (with --batch N: N sequences at a time, from places of
// the text far apart), first to last in even rounds, last to first in odd ones. One JSON object: for every
// variant the milliseconds of a step (a token of each sequence) in every round, and what its own neurons do
// with the text:
//   silent       inputs without a spike, weighted by the weights that read them
//   spiking      share of the weights of a pass, without embeddings, that event-driven products could skip
//   union        at batch 1, 2, 4, 8: share of inputs that any of so many sequences fires (`listed`), and
//                share of the products, weighted likewise, that take the event-driven way (`events`)
// With --profile also microseconds of a token by kind of stage, thread 0's, barriers included, and how many
// of them pass before its first product: norm and neurons.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>

#include "engine/session_impl.h"
#include "mneme/error.h"
#include "model/projection_probe.h"
#include "model/stage_parts.h"

namespace {

using namespace mneme;
using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;

constexpr size_t kSequences = 8;  // of the union

struct Options {
  std::vector<std::string> variants;
  std::string text;
  size_t rounds = 10, block = 32, window = 512, batch = 1, density = 128;
  int threads = 0;
  bool profile = false;
};

double microseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

std::shared_ptr<const Model> load_variant(const Options& options, const std::string& variant) {
  LoadOptions load;
  load.threads = options.threads;
  const size_t equals = variant.find('=');
  if (equals != std::string::npos) load.activation = ActivationPolicy::parse(variant.substr(equals + 1));
  return Model::load(variant.substr(0, equals), load);
}

/// Sequences that decode given tokens; their contexts start anew after a window.
class Decoder {
 public:
  Decoder(std::shared_ptr<const Model> model, const Options& options)
      : model_(std::move(model)), options_(options) {}

  /// Milliseconds of a step. Sequence s reads from ids[s * stride + first] on.
  double decode(std::span<const TokenId> ids, size_t first, size_t stride) {
    if (sessions_.empty() || sessions_.front().position() + options_.block > options_.window) restart();
    std::vector<Session*> pointers;
    for (Session& session : sessions_) pointers.push_back(&session);
    std::vector<TokenId> step(sessions_.size());
    double sum = 0;
    for (size_t i = 0; i < options_.block; ++i) {
      for (size_t s = 0; s < step.size(); ++s) step[s] = ids[s * stride + first + i];
      const auto start = Clock::now();
      if (step.size() == 1)
        sessions_.front().append(step);
      else
        Session::append_batch(pointers, step);
      sum += microseconds_since(start);
    }
    return sum / static_cast<double>(options_.block) * 1e-3;
  }

 private:
  void restart() {
    sessions_.clear();
    for (size_t s = 0; s < options_.batch; ++s) sessions_.emplace_back(model_);
  }
  const std::shared_ptr<const Model> model_;
  const Options& options_;
  std::vector<Session> sessions_;
};

/// Which inputs fire, by the model's own neurons: for each of them and each sequence and token a bit a
/// column.
class Density final : public ProjectionObserver {
 public:
  Density(const std::shared_ptr<const Model>& model, size_t tokens)
      : model_(model), tokens_(tokens), sites_(probe_sites(model->impl())) {
    first_.push_back(0);
    for (const ProbeSite& site : sites_) {
      for (const ProbeSite::Reader& reader : site.readers) {
        all_weights_ += static_cast<double>(reader.linear->w.rows * reader.linear->w.cols);
        add(site, *reader.linear);
      }
      first_.push_back(neurons_.size());
    }
    scratch_.resize(static_cast<size_t>(model->threads()));
  }

  void read(std::span<const TokenId> ids, size_t sequence) {
    sequence_ = sequence;
    Session session(model_);
    session.impl().observer = this;
    session.append(ids.first(tokens_));
  }

  void see(size_t site, int thread, int64_t position, std::span<const float> x) override {
    SpikeRows& rows = scratch_[static_cast<size_t>(thread)];
    const auto cols = std::ssize(x);
    const auto token = static_cast<size_t>(position) - size_t{model_->config().sink_tokens};
    for (size_t n = first_[site]; n < first_[site + 1]; ++n) {
      rows.reserve(1, cols, false);
      fire_row(neurons_[n].setting, x.data(), 0, cols, rows);
      std::copy_n(rows.fired.begin(), cols / kBlock, neurons_[n].fired.begin() + at(n, sequence_, token));
    }
  }

  Json report() const {
    Json out{
        {"silent", 1 - listed(1).first}, {"spiking", weights() / all_weights_}, {"union", Json::array()}};
    for (size_t batch = 1; batch <= kSequences; batch *= 2) {
      const auto [columns, events] = listed(batch);
      out["union"].push_back({{"batch", batch}, {"listed", columns}, {"events", events}});
    }
    return out;
  }

 private:
  struct Neuron {
    NeuronSetting setting;
    size_t slot = 0;
    int64_t blocks = 0;
    double weights = 0;           // that read it
    std::vector<uint32_t> fired;  // [sequence][token][blocks]
  };

  void add(const ProbeSite& site, const Linear& linear) {
    if (linear.input != Linear::Input::spikes) return;
    const auto weights = static_cast<double>(linear.w.rows * linear.w.cols);
    for (size_t n = first_.back(); n < neurons_.size(); ++n)
      if (neurons_[n].slot == linear.spike_slot) {
        neurons_[n].weights += weights;
        return;
      }
    const int64_t blocks = site.width / kBlock;
    neurons_.push_back({linear.neuron, linear.spike_slot, blocks, weights, {}});
    neurons_.back().fired.resize(kSequences * tokens_ * static_cast<size_t>(blocks));
  }
  int64_t at(size_t n, size_t sequence, size_t token) const {
    return static_cast<int64_t>(sequence * tokens_ + token) * neurons_[n].blocks;
  }
  double weights() const {
    double sum = 0;
    for (const Neuron& neuron : neurons_) sum += neuron.weights;
    return sum;
  }

  // Shares of the columns that some of `batch` sequences fire and of products that walk their list.
  std::pair<double, double> listed(size_t batch) const {
    double columns_sum = 0, events_sum = 0, weight_sum = 0;
    for (size_t n = 0; n < neurons_.size(); ++n) {
      const Neuron& neuron = neurons_[n];
      const auto width = static_cast<double>(neuron.blocks * kBlock);
      for (size_t group = 0; group < kSequences; group += batch)
        for (size_t token = 0; token < tokens_; ++token) {
          int64_t columns = 0, padded = 0;
          for (int64_t b = 0; b < neuron.blocks; ++b) {
            uint32_t fired = 0;
            for (size_t s = group; s < group + batch; ++s)
              fired |= neuron.fired[static_cast<size_t>(at(n, s, token) + b)];
            columns += std::popcount(fired);
            padded += (std::popcount(fired) + 3) / 4 * 4;
          }
          const double share = event_share(static_cast<int64_t>(batch));
          columns_sum += neuron.weights * static_cast<double>(columns) / width;
          events_sum += static_cast<double>(padded) <= share * width ? neuron.weights : 0;
          weight_sum += neuron.weights;
        }
    }
    return weight_sum > 0 ? std::pair(columns_sum / weight_sum, events_sum / weight_sum)
                          : std::pair(1.0, 0.0);
  }

  const std::shared_ptr<const Model> model_;
  const size_t tokens_;
  const std::vector<ProbeSite> sites_;
  std::vector<Neuron> neurons_;
  std::vector<size_t> first_;  // [site]: its first neuron
  std::vector<SpikeRows> scratch_;
  double all_weights_ = 0;
  size_t sequence_ = 0;
};

/// Walks the decode plan as run_step() does, again and again for the last token of a session, and adds up the
/// time that thread 0 takes from barrier to barrier.
Json profile(const std::shared_ptr<const Model>& model, std::span<const TokenId> ids) {
  constexpr int kRepeats = 40;
  const ModelImpl& impl = model->impl();
  Session session(model);
  session.append(ids);
  Workspace workspace;
  const Slice slice{&session.impl().state, 0, 1, static_cast<int64_t>(ids.size()) - 1,
                    ids.first(ids.size() - 1)};
  const int64_t logit_row = 0;
  std::vector<float> logits(impl.config.vocab);
  Step step{impl, workspace, {&slice, 1}, ids.last(1), {&logit_row, 1}, logits.data(), {}, nullptr};
  run_step(*impl.pool, step);  // sizes the workspace
  const auto& stages = impl.plan.decode;
  std::vector<std::vector<double>> times(stages.size()), begins(stages.size());
  ThreadPool& pool = *impl.pool;
  for (int repeat = 0; repeat < kRepeats; ++repeat)
    pool.run([&](int thread) {
      pool.share_tasks(0, thread, stages.front()->tasks(step));
      pool.barrier(thread);
      for (size_t s = 0; s < stages.size(); ++s) {
        const auto start = Clock::now();
        const int slot = static_cast<int>(s & 1);
        stages[s]->begin(step, thread);
        if (thread == 0) begins[s].push_back(microseconds_since(start));
        for (int64_t task = pool.next_task(slot, thread); task >= 0; task = pool.next_task(slot, thread))
          stages[s]->run(step, thread, task);
        if (s + 1 < stages.size()) pool.share_tasks(slot ^ 1, thread, stages[s + 1]->tasks(step));
        pool.barrier(thread);
        if (thread == 0) times[s].push_back(microseconds_since(start));
      }
    });
  const auto median = [](std::vector<double>& values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
  };
  std::map<std::string, std::array<double, 2>> kinds;
  for (size_t s = 0; s < stages.size(); ++s) {
    const std::string text = stages[s]->describe();
    std::array<double, 2>& kind = kinds[text.substr(0, text.find(' '))];
    kind[0] += median(times[s]);
    kind[1] += median(begins[s]);
  }
  return kinds;
}

int run(const Options& options) {
  std::ifstream file(options.text, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  std::vector<std::shared_ptr<const Model>> models;
  for (const std::string& variant : options.variants) models.push_back(load_variant(options, variant));
  const std::vector<TokenId> ids = models.front()->tokenizer().encode(text);
  const size_t places = std::max(options.batch, kSequences);
  const size_t stride = ids.size() / places;
  const size_t needed = std::max((options.rounds + 1) * options.block, options.density);
  if (stride < needed) {
    std::fprintf(stderr, "spike_decode: %s has %zu tokens; %zu are needed: %zu at each of %zu places\n",
                 options.text.c_str(), ids.size(), places * needed, needed, places);
    return 1;
  }
  Json out{{"batch", options.batch}, {"block", options.block}, {"threads", models.front()->threads()}};
  out["variants"] = Json::array();
  std::vector<Decoder> decoders;
  for (size_t v = 0; v < models.size(); ++v) {
    Density density(models[v], options.density);
    for (size_t s = 0; options.density > 0 && s < kSequences; ++s)
      density.read(std::span(ids).subspan(s * stride), s);
    out["variants"].push_back(
        {{"variant", options.variants[v]}, {"ms", Json::array()}, {"spikes", density.report()}});
    if (options.profile)
      out["variants"][v]["profile_us"] = profile(models[v], std::span(ids).first(options.block));
    decoders.emplace_back(models[v], options);
    decoders.back().decode(ids, 0, stride);  // nobody starts unprepared
  }
  for (size_t round = 0; round < options.rounds; ++round)
    for (size_t i = 0; i < decoders.size(); ++i) {
      const size_t v = round % 2 == 0 ? i : decoders.size() - 1 - i;
      out["variants"][v]["ms"].push_back(decoders[v].decode(ids, (round + 1) * options.block, stride));
    }
  std::printf("%s\n", out.dump().c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Decode speed of variants of a model, in turn, on real text");
  app.add_option("variants", options.variants, "FILE or FILE=ACTIVATION, two or more")->required();
  app.add_option("--text", options.text)->required();
  app.add_option("--rounds", options.rounds)->capture_default_str();
  app.add_option("--block", options.block, "Steps of a round")->capture_default_str();
  app.add_option("--window", options.window, "Tokens after which a context starts anew")
      ->capture_default_str();
  app.add_option("--batch", options.batch, "Sequences decoded together")->capture_default_str();
  app.add_option("--density", options.density, "Tokens of each sequence whose spikes are counted; 0: none")
      ->capture_default_str();
  app.add_option("--threads", options.threads);
  app.add_flag("--profile", options.profile);
  CLI11_PARSE(app, argc, argv);
  try {
    return run(options);
  } catch (const Error& error) {
    std::fprintf(stderr, "spike_decode: %s\n", error.what());
    return 1;
  }
}
