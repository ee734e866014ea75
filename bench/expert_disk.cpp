// Decoding of a mixture whose experts do not all stay in memory: speed, reads and hit rates.
//   build/release/bin/expert_disk MODEL.gguf --zipf 0,0.5,1 --experts direct --budget 1000000000
//
// A model of random weights chooses its experts evenly. To make some more popular, every router gets a bias,
// found by iteration, so that a share of tokens chooses the expert of rank r that top-k draws without
// replacement from p ~ 1 / r^s would; ranks are shuffled anew in every layer. What is chosen still depends on
// the token, as in a real model. --zipf own leaves the routers as they are.
//
// For each exponent one JSON line: milliseconds of a token (median of rounds), hits, misses and bytes read of
// a token, and how many experts were read ahead and were then wanted. With --policies, of choices of the same
// routers the hit rates of other policies with as many slots: LRU, S3-FIFO, LRFU with
// several half-lives, and the best that is possible (Belady: what is wanted latest leaves).
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <deque>
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
  std::string model, experts = "ram";
  std::vector<std::string> zipf{"0", "0.5", "1"};
  uint64_t budget = 0;
  uint32_t slots = 0;  // of the simulated policies; 0: the model's
  size_t warm = 64, tokens = 64, rounds = 5;
  int threads = 0;
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

Trace record(const std::shared_ptr<const Model>& model, const std::vector<TokenId>& ids) {
  Session session(model);
  Recorder recorder(model->config());
  session.impl().routes = &recorder;
  for (const TokenId id : ids) session.append(std::span(&id, 1));
  return std::move(recorder.trace);
}

// The share of draws in which each rank is among the first k, drawn without replacement from p ~ 1 / rank^s.
std::vector<double> inclusion(uint32_t experts, uint32_t k, double s) {
  constexpr int kDraws = 40000;
  Pcg64 random(11);
  std::vector<double> out(experts, 0);
  std::vector<std::pair<double, uint32_t>> keys(experts);
  for (int draw = 0; draw < kDraws; ++draw) {
    for (uint32_t e = 0; e < experts; ++e)  // exponential clocks: the k that ring first
      keys[e] = {-std::log1p(-random.uniform()) * std::pow(e + 1.0, s), e};
    std::partial_sort(keys.begin(), keys.begin() + k, keys.end());
    for (uint32_t i = 0; i < k; ++i) out[keys[i].second] += 1.0 / kDraws;
  }
  return out;
}

// Gives the routers their bias. The model was loaded for this program alone.
double make_popular(const std::shared_ptr<const Model>& model, double s, uint64_t seed) {
  auto& impl = const_cast<ModelImpl&>(model->impl());
  Pcg64 random(seed);
  std::vector<std::vector<double>> wanted(impl.layers.size());
  for (size_t i = 0; i < impl.layers.size(); ++i) {
    if (!impl.layers[i].moe) continue;
    const FfnConfig& ffn = impl.config.layers[i].ffn;
    wanted[i] = inclusion(ffn.experts, ffn.top_k, s);
    for (size_t e = wanted[i].size(); e > 1; --e) std::swap(wanted[i][e - 1], wanted[i][random.below(e)]);
    impl.layers[i].moe->router.bias.assign(ffn.choices(), 0);
  }
  constexpr size_t kTokens = 192;
  const auto ids = some_ids(kTokens, model->config().vocab, seed + 1);
  double error = 0;
  for (int pass = 0; pass < 12; ++pass) {
    const Trace trace = record(model, ids);
    std::vector<double> share(trace.experts, 0);
    for (const auto& choice : trace.choices)
      for (const uint32_t expert : choice) share[expert] += 1.0 / kTokens;
    error = 0;
    for (size_t i = 0; i < wanted.size(); ++i)
      for (size_t e = 0; e < wanted[i].size(); ++e) {
        const double got = share[trace.first[i] + e];
        error += std::abs(got - wanted[i][e]) / std::max<size_t>(1, wanted[i].size() * wanted.size());
        const auto odds = [](double p) { return std::log((p + 0.003) / (1.003 - p)); };
        impl.layers[i].moe->router.bias[e] +=
            static_cast<float>((pass < 8 ? 0.5 : 0.2) * (odds(wanted[i][e]) - odds(got)));
      }
  }
  return error;
}

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
  Lru(uint32_t experts, uint32_t slots) : at_(experts), slots_(slots) {}
  bool use(uint32_t expert) override {
    const bool hit = at_[expert].has_value();
    if (hit) order_.erase(*at_[expert]);
    order_.push_front(expert);
    at_[expert] = order_.begin();
    if (order_.size() > slots_) {
      at_[order_.back()].reset();
      order_.pop_back();
    }
    return hit;
  }

 private:
  std::vector<std::optional<std::list<uint32_t>::iterator>> at_;
  std::list<uint32_t> order_;
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

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

Json measure(const std::shared_ptr<const Model>& model, const Options& options) {
  const uint32_t vocab = model->config().vocab;
  Session session(model);
  const auto decode = [&](const std::vector<TokenId>& ids) {
    const auto start = Clock::now();
    for (const TokenId id : ids) session.append(std::span(&id, 1));
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count() /
           static_cast<double>(ids.size());
  };
  decode(some_ids(options.warm, vocab, 3));
  const auto before = model->experts();
  std::vector<double> ms;
  for (size_t round = 0; round < options.rounds; ++round)
    ms.push_back(decode(some_ids(options.tokens, vocab, 100 + round)));
  Json out{{"ms", median(ms)},
           {"ms_min", *std::min_element(ms.begin(), ms.end())},
           {"ms_max", *std::max_element(ms.begin(), ms.end())}};
  out["ms_mean"] = std::accumulate(ms.begin(), ms.end(), 0.0) / static_cast<double>(ms.size());
  const auto after = model->experts();
  if (!before || !after) return out;
  const double tokens = static_cast<double>(options.rounds * options.tokens);
  const auto each = [&](uint64_t ExpertStatistics::*what) {
    return static_cast<double>((*after).*what - (*before).*what) / tokens;
  };
  out["slots"] = after->slots;
  out["experts"] = after->experts;
  out["expert_bytes"] = after->expert_bytes;
  out["path"] = after->path;
  for (const auto& [name, what] : {std::pair("hits", &ExpertStatistics::hits),
                                   {"misses", &ExpertStatistics::misses},
                                   {"bytes", &ExpertStatistics::bytes_read},
                                   {"ahead", &ExpertStatistics::ahead},
                                   {"ahead_used", &ExpertStatistics::ahead_used}})
    out[name] = each(what);
  return out;
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
    if (zipf != "own") line["share_error"] = make_popular(model, std::stod(zipf), 5);
    line.update(measure(model, options));
    if (options.policies) {
      const size_t tokens = options.warm + options.rounds * options.tokens;
      const Trace trace = record(model, some_ids(tokens, model->config().vocab, 9));
      const uint32_t slots = options.slots > 0  ? options.slots
                             : model->experts() ? static_cast<uint32_t>(model->experts()->slots)
                                                : trace.experts / 2;
      line["simulated_slots"] = slots;
      line["hit_rates"] = policies(trace, slots, tokens / 2);
    }
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
  app.add_option("--slots", options.slots, "Experts that the simulated policies keep");
  app.add_option("--warm", options.warm, "Tokens before the clock runs");
  app.add_option("--tokens", options.tokens, "Tokens of a round");
  app.add_option("--rounds", options.rounds, "Rounds");
  app.add_option("--threads", options.threads, "Threads");
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
