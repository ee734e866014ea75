// Decoding of a mixture whose experts do not all stay in memory: speed, reads and hit rates.
//   build/release/bin/expert_disk MODEL.gguf --zipf 0,0.5,1 --experts direct --budget 1000000000
//
// The routers of a file of random weights choose the same for every token. So before each token they get a
// bias that makes them choose what a trace says: in every layer top_k experts, drawn without replacement from
// p ~ 1 / rank^s, ranks shuffled anew in each layer, tokens independent of each other. No such token says
// anything of the next, but the biased router of the next layer would tell all: reading ahead foresees such
// a trace perfectly, which no model's routing allows. `--no-read-ahead` foresees nothing. The truth of a
// model lies between; --zipf own leaves the routers of a trained model alone and reads --text.
//
// For each exponent one JSON line: milliseconds of a token (median of rounds), hits, misses and bytes read of
// a token, how many experts were read ahead and were then wanted. With --policies, of the same choices the
// hit rates of other policies with as many slots: LRU, S3-FIFO, LRFU with several half-lives, and the best
// that is possible (Belady: what is wanted latest leaves); for `own` also the share of the misses of an LRU
// cache that the choice of the token before foresees.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <deque>
#include <fstream>
#include <iterator>
#include <list>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <set>

#include "core/random.h"
#include "engine/session_impl.h"
#include "mneme/error.h"
#include "model/expert_store.h"

namespace {

using namespace mneme;
using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;

struct Options {
  std::string model, experts = "ram", text;
  std::vector<std::string> zipf{"0", "0.5", "1"};
  uint64_t budget = 0;
  uint32_t slots = 0;  // of the simulated policies; 0: the model's
  size_t warm = 64, tokens = 64, rounds = 5;
  int threads = 0;
  size_t simulate = 0;
  bool no_read_ahead = false, policies = false;
};

/// What routers chose: [token][layer], experts of a layer numbered from `first`.
struct Trace {
  std::vector<uint32_t> first;                 // [layer of the model]
  std::vector<std::vector<uint32_t>> choices;  // [token * with_experts + layer of those]
  uint32_t experts = 0;
  size_t with_experts = 0;  // layers
};

class Recorder final : public RouteObserver {
 public:
  explicit Recorder(const ModelConfig& config) {
    for (const LayerConfig& layer : config.layers) {
      trace.first.push_back(trace.experts);
      trace.experts += layer.ffn.moe() ? layer.ffn.experts : 0;
      trace.with_experts += layer.ffn.moe();
      experts_.push_back(layer.ffn.experts);
    }
  }
  void see(size_t layer, int, int64_t, std::span<const Route> routes, std::span<const float>) override {
    std::vector<uint32_t>& out = trace.choices.emplace_back();
    for (const Route& route : routes)
      if (route.expert >= 0 && static_cast<uint32_t>(route.expert) < experts_[layer])
        out.push_back(trace.first[layer] + static_cast<uint32_t>(route.expert));
  }
  Trace trace;

 private:
  std::vector<uint32_t> experts_;
};

std::vector<TokenId> some_ids(size_t count, uint32_t vocab, uint64_t seed) {
  Pcg64 random(seed);
  std::vector<TokenId> ids(count);
  for (TokenId& id : ids) id = static_cast<TokenId>(random.below(vocab));
  return ids;
}

// Makes the routers choose what was drawn. The model was loaded for this program alone, and biases change
// only between passes.
class ZipfTrace {
 public:
  ZipfTrace(const std::shared_ptr<const Model>& model, double exponent)
      : impl_(const_cast<ModelImpl&>(model->impl())), recorder_(model->config()), random_(5) {
    for (size_t i = 0; i < impl_.layers.size(); ++i) {
      ranks_.emplace_back(impl_.layers[i].moe ? impl_.config.layers[i].ffn.experts : 0);
      std::vector<double>& ranks = ranks_.back();
      for (size_t r = 0; r < ranks.size(); ++r) ranks[r] = std::pow(static_cast<double>(r + 1), exponent);
      for (size_t e = ranks.size(); e > 1; --e) std::swap(ranks[e - 1], ranks[random_.below(e)]);
    }
  }
  void next() {
    constexpr float kCertain = 200;  // e^-200 is 0
    for (size_t i = 0; i < ranks_.size(); ++i) {
      auto& moe = impl_.layers[i].moe;
      if (!moe) continue;
      const FfnConfig& ffn = impl_.config.layers[i].ffn;
      std::vector<float>& bias = moe->router.bias;
      bias.assign(static_cast<size_t>(ffn.choices()), 0);
      std::vector<uint32_t>& out = recorder_.trace.choices.emplace_back();
      for (const uint32_t expert : draw(ranks_[i], ffn.top_k)) {
        bias[expert] = kCertain;
        out.push_back(recorder_.trace.first[i] + expert);
      }
    }
  }
  const Trace& trace() const { return recorder_.trace; }

 private:
  // Exponential clocks with rates 1 / rank^s: the first k that ring.
  std::vector<uint32_t> draw(const std::vector<double>& ranks, uint32_t k) {
    std::vector<std::pair<double, uint32_t>> clocks(ranks.size());
    for (uint32_t e = 0; e < ranks.size(); ++e) clocks[e] = {-std::log1p(-random_.uniform()) * ranks[e], e};
    std::partial_sort(clocks.begin(), clocks.begin() + k, clocks.end());
    std::vector<uint32_t> out;
    for (uint32_t i = 0; i < k; ++i) out.push_back(clocks[i].second);
    return out;
  }

  ModelImpl& impl_;
  Recorder recorder_;  // for the numbers of experts
  Pcg64 random_;
  std::vector<std::vector<double>> ranks_;  // [layer][expert]: rank^s
};

// ---- other policies on the same choices; the hit rate of uses after the first `warm` tokens

class Policy {
 public:
  virtual ~Policy() = default;
  virtual void tick() {}
  /// Whether it was there; it is afterwards.
  virtual bool use(uint32_t expert) = 0;
};

class Lru final : public Policy {
 public:
  Lru(uint32_t experts, uint32_t slots) : at_(experts), here_(experts, false), slots_(slots) {}
  bool use(uint32_t expert) override {
    const bool hit = here_[expert];
    if (hit) order_.erase(at_[expert]);
    order_.push_front(expert);
    at_[expert] = order_.begin();
    here_[expert] = true;
    if (order_.size() > slots_) {
      here_[order_.back()] = false;
      order_.pop_back();
    }
    return hit;
  }

 private:
  std::list<uint32_t> order_;
  std::vector<std::list<uint32_t>::iterator> at_;
  std::vector<bool> here_;
  const size_t slots_;
};

class S3Fifo final : public Policy {
 public:
  S3Fifo(uint32_t experts, uint32_t slots)
      : slots_(slots), small_(std::max(1u, slots / 10)), hits_(experts, -1) {}
  bool use(uint32_t expert) override {
    if (hits_[expert] >= 0) {
      hits_[expert] = std::min(hits_[expert] + 1, 3);
      return true;
    }
    if (young_.size() + main_.size() == slots_) evict();
    hits_[expert] = 0;
    const auto ghost = std::find(ghosts_.begin(), ghosts_.end(), expert);
    if (ghost != ghosts_.end()) ghosts_.erase(ghost);
    (ghost != ghosts_.end() ? main_ : young_).push_back(expert);
    return false;
  }

 private:
  void evict() {
    for (;;) {
      const bool from_young = young_.size() >= small_ || main_.empty();
      std::deque<uint32_t>& queue = from_young ? young_ : main_;
      const uint32_t expert = queue.front();
      queue.pop_front();
      if (hits_[expert] > 0) {
        hits_[expert] = from_young ? 0 : hits_[expert] - 1;
        main_.push_back(expert);
        continue;
      }
      hits_[expert] = -1;
      if (!from_young) return;
      ghosts_.push_back(expert);
      if (ghosts_.size() > slots_) ghosts_.pop_front();
      return;
    }
  }
  const size_t slots_, small_;
  std::deque<uint32_t> young_, main_, ghosts_;
  std::vector<int> hits_;  // -1: not here
};

class Lrfu final : public Policy {
 public:
  Lrfu(uint32_t experts, uint32_t slots, double half_life) : cache_(experts, slots, half_life) {}
  void tick() override { cache_.tick(); }
  bool use(uint32_t expert) override {
    cache_.use(expert);
    if (cache_.slot_of(expert) >= 0) return true;
    int32_t left = -1;
    cache_.insert(
        expert, [](uint32_t) { return true; }, left);
    return false;
  }

 private:
  ExpertCache cache_;
};

double hit_rate(Policy& policy, const Trace& trace, size_t warm) {
  size_t hits = 0, uses = 0;
  const size_t layers = trace.with_experts;
  for (size_t i = 0; i < trace.choices.size(); ++i) {
    if (i % layers == 0) policy.tick();
    for (const uint32_t expert : trace.choices[i]) {
      const bool hit = policy.use(expert);
      if (i < warm * layers) continue;
      hits += hit;
      ++uses;
    }
  }
  return static_cast<double>(hits) / static_cast<double>(std::max<size_t>(uses, 1));
}

// Belady: of those here, the one whose next use is farthest leaves.
double best_rate(const Trace& trace, uint32_t slots, size_t warm) {
  std::vector<uint32_t> uses;
  size_t warm_uses = 0;
  for (size_t i = 0; i < trace.choices.size(); ++i) {
    if (i == warm * trace.with_experts) warm_uses = uses.size();
    uses.insert(uses.end(), trace.choices[i].begin(), trace.choices[i].end());
  }
  std::vector<size_t> next(uses.size()), last(trace.experts, uses.size());
  for (size_t i = uses.size(); i > 0; --i) {
    next[i - 1] = last[uses[i - 1]];
    last[uses[i - 1]] = i - 1;
  }
  std::set<std::pair<size_t, uint32_t>> here;  // by next use
  std::vector<size_t> key(trace.experts, 0);
  std::vector<bool> in(trace.experts, false);
  size_t hits = 0;
  for (size_t i = 0; i < uses.size(); ++i) {
    const uint32_t expert = uses[i];
    if (in[expert]) {
      here.erase({key[expert], expert});
      hits += i >= warm_uses;
    } else if (here.size() == slots) {
      in[here.rbegin()->second] = false;
      here.erase(std::prev(here.end()));
    }
    in[expert] = true;
    key[expert] = next[i];
    here.insert({next[i], expert});
  }
  return static_cast<double>(hits) / static_cast<double>(std::max<size_t>(uses.size() - warm_uses, 1));
}

Json policies(const Trace& trace, uint32_t slots, size_t warm) {
  Json out;
  Lru lru(trace.experts, slots);
  out["lru"] = hit_rate(lru, trace, warm);
  S3Fifo fifo(trace.experts, slots);
  out["s3fifo"] = hit_rate(fifo, trace, warm);
  for (const double half_life : {2.0, 8.0, 32.0, 128.0, 512.0, 4096.0}) {
    Lrfu lrfu(trace.experts, slots, half_life);
    out[fmt::format("lrfu_{:g}", half_life)] = hit_rate(lrfu, trace, warm);
  }
  out["best"] = best_rate(trace, slots, warm);
  return out;
}

// Of what an LRU cache misses, the share that the same layer chose for the token before.
double foreseen_by_last_token(const Trace& trace, uint32_t slots) {
  Lru lru(trace.experts, slots);
  size_t misses = 0, foreseen = 0;
  for (size_t i = 0; i < trace.choices.size(); ++i)
    for (const uint32_t expert : trace.choices[i]) {
      if (lru.use(expert) || i < trace.with_experts) continue;
      const auto& last = trace.choices[i - trace.with_experts];
      ++misses;
      foreseen += std::find(last.begin(), last.end(), expert) != last.end();
    }
  return static_cast<double>(foreseen) / static_cast<double>(std::max<size_t>(misses, 1));
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Decodes tokens one after the other, with the trace's choices or the model's own.
class Decoder {
 public:
  Decoder(const std::shared_ptr<const Model>& model, const Options& options, const std::string& zipf)
      : session_(model), recorder_(model->config()) {
    if (zipf == "own") {
      std::string text(std::istreambuf_iterator<char>(std::ifstream(options.text, std::ios::binary).rdbuf()),
                       {});
      ids_ = model->tokenizer().encode(text);
      session_.impl().routes = &recorder_;
    } else {
      trace_.emplace(model, std::stod(zipf));
      ids_ = some_ids(4096, model->config().vocab, 3);
    }
  }
  /// Milliseconds of a token.
  double decode(size_t count) {
    double seconds = 0;
    for (size_t i = 0; i < count; ++i) {
      if (trace_) trace_->next();
      const auto start = Clock::now();
      session_.append(std::span(&ids_[next_++ % ids_.size()], 1));
      seconds += std::chrono::duration<double>(Clock::now() - start).count();
    }
    return 1e3 * seconds / static_cast<double>(count);
  }
  const Trace& trace() const { return trace_ ? trace_->trace() : recorder_.trace; }

 private:
  Session session_;
  Recorder recorder_;
  std::optional<ZipfTrace> trace_;
  std::vector<TokenId> ids_;
  size_t next_ = 0;
};

Json measure(const std::shared_ptr<const Model>& model, const Options& options, const std::string& zipf) {
  Decoder decoder(model, options, zipf);
  if (options.warm > 0) decoder.decode(options.warm);
  const auto before = model->experts();
  std::vector<double> ms;
  for (size_t round = 0; round < options.rounds; ++round) ms.push_back(decoder.decode(options.tokens));
  Json out{{"ms", median(ms)},
           {"ms_min", *std::min_element(ms.begin(), ms.end())},
           {"ms_max", *std::max_element(ms.begin(), ms.end())}};
  out["ms_mean"] = std::accumulate(ms.begin(), ms.end(), 0.0) / static_cast<double>(ms.size());
  const auto after = model->experts();
  if (options.policies) {
    const Trace& trace = decoder.trace();
    const uint32_t slots = options.slots > 0 ? options.slots
                           : after           ? static_cast<uint32_t>(after->slots)
                                             : trace.experts / 2;
    out["simulated_slots"] = slots;
    out["hit_rates"] = policies(trace, slots, trace.choices.size() / trace.with_experts / 2);
    out["foreseen_by_last_token"] = foreseen_by_last_token(trace, slots);
  }
  if (!before || !after) return out;
  const double tokens = static_cast<double>(options.rounds * options.tokens);
  const ExpertStatistics then = *before, now = *after;
  const auto each = [&](uint64_t ExpertStatistics::*what) {
    return static_cast<double>(now.*what - then.*what) / tokens;
  };
  out["slots"] = now.slots;
  out["experts"] = now.experts;
  out["expert_bytes"] = now.expert_bytes;
  out["path"] = now.path;
  for (const auto& [name, what] : {std::pair("hits", &ExpertStatistics::hits),
                                   {"misses", &ExpertStatistics::misses},
                                   {"bytes", &ExpertStatistics::bytes_read},
                                   {"ahead", &ExpertStatistics::ahead},
                                   {"ahead_used", &ExpertStatistics::ahead_used}})
    out[name] = each(what);
  return out;
}

// Policies on a trace that no model decodes.
Json simulate(const std::shared_ptr<const Model>& model, const Options& options, const std::string& zipf) {
  ZipfTrace draws(model, std::stod(zipf));
  for (size_t i = 0; i < options.simulate; ++i) draws.next();
  const uint32_t slots = options.slots > 0 ? options.slots : draws.trace().experts / 2;
  return {{"simulated_slots", slots},
          {"tokens", options.simulate},
          {"hit_rates", policies(draws.trace(), slots, options.simulate / 2)},
          {"foreseen_by_last_token", foreseen_by_last_token(draws.trace(), slots)}};
}

void run(const Options& options) {
  LoadOptions load;
  load.threads = options.threads;
  load.experts = placement_from(options.experts);
  load.experts_budget = options.budget;
  load.experts_read_ahead = !options.no_read_ahead;
  const auto model = Model::load(options.model, load);
  for (const std::string& zipf : options.zipf) {
    Json line{{"zipf", zipf}, {"placement", options.experts}};
    line.update(options.simulate > 0 ? simulate(model, options, zipf) : measure(model, options, zipf));
    fmt::print("{}\n", line.dump());
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Decoding with experts on disk");
  app.add_option("model", options.model, "A mixture of random weights")->required();
  app.add_option("--zipf", options.zipf, "Exponents of the experts' popularity, or own")->delimiter(',');
  app.add_option("--experts", options.experts, "ram, mmap or direct");
  app.add_option("--budget", options.budget, "Bytes of memory for experts");
  app.add_option("--text", options.text, "What `own` reads");
  app.add_option("--slots", options.slots, "Experts that the simulated policies keep");
  app.add_option("--warm", options.warm, "Tokens before the clock runs");
  app.add_option("--tokens", options.tokens, "Tokens of a round");
  app.add_option("--rounds", options.rounds, "Rounds");
  app.add_option("--threads", options.threads, "Threads");
  app.add_option("--simulate", options.simulate, "Only the policies, on a trace of so many tokens");
  app.add_flag("--no-read-ahead", options.no_read_ahead, "Read only what is wanted now");
  app.add_flag("--policies", options.policies, "Also simulate other policies");
  CLI11_PARSE(app, argc, argv);
  try {
    run(options);
  } catch (const Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
  return 0;
}
