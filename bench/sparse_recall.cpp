// How much of full attention block-sparse attention keeps: one prefill of a real text with full attention, in
// which a probe looks at some queries of every layer and head. For every block size and top_k it prints
// (JSON) the mean share of the softmax mass on
//
//   chosen       the blocks that the mean keys choose, the own block included
//   with_sinks   the same and the first 64 keys, visible in any case (the mixer's field `sinks`)
//   group_sum    the blocks that all query heads of a kv head choose together by the sum of their scores
//   group_max    ... by the largest of their scores
//   best         the best possible blocks: chosen by the mass itself
//   random       blocks chosen blindly: own block + (top_k - 1) / blocks of the rest
//
// and `overlap`, the share of the best blocks, the own one left out, that the mean keys chose.
// Called by bench/sparse.py:  build/release/bin/sparse_recall MODEL TEXT --tokens 4096
#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <fstream>
#include <mutex>
#include <sstream>

#include "mneme/tokenizer.h"
#include "model/attention_stage.h"
#include "model/load.h"

namespace mneme {
namespace {

struct Setting {
  int64_t block = 0, top_k = 0;
  double chosen = 0, with_sinks = 0, group_sum = 0, group_max = 0, best = 0, overlap = 0, random = 0;
  int64_t queries = 0, overlaps = 0;
};

double mass_of(const std::vector<uint32_t>& blocks, const double* mass) {
  double sum = 0;
  for (const uint32_t b : blocks) sum += mass[b];
  return sum;
}

class Probe final : public AttentionStage {
 public:
  Probe(const ModelImpl& model, size_t mixer, std::vector<int64_t> positions, std::vector<Setting>& settings,
        std::mutex& mutex)
      : AttentionStage(model, mixer, false),
        positions_(std::move(positions)),
        settings_(settings),
        mutex_(mutex) {}
  std::string describe() const override { return "probe"; }
  int64_t tasks(const Step&) const override { return mixer_.kv_heads; }
  void run(Step& step, int, int64_t kv_head) const override {
    const Slice& slice = step.slices.front();
    const KvGeometry& g = slice.state->layout().layers[index_].geometry;
    std::vector<float> keys(static_cast<size_t>(slice.count * g.head_dim)),
        v(static_cast<size_t>(g.head_dim));
    for (int64_t p = 0; p < slice.count; ++p)
      load_kv(g, slice.state->page(index_, p), kv_head, p % kPagePositions, keys.data() + p * g.head_dim,
              v.data());
    std::vector<float> q(static_cast<size_t>(group_ * g.padded_dim()));
    std::vector<double> unit_mass, unit_score;  // [head][units of kAttentionBlock keys]
    for (const int64_t position : positions_) {
      make_queries(step, position, kv_head, g.padded_dim(), q.data());
      measure_units(g, keys, q, position, unit_mass, unit_score);
      const std::lock_guard lock(mutex_);
      for (Setting& setting : settings_) add(setting, position, unit_mass, unit_score);
    }
  }

 private:
  void measure_units(const KvGeometry& g, const std::vector<float>& keys, const std::vector<float>& q,
                     int64_t position, std::vector<double>& mass, std::vector<double>& score) const {
    const int64_t units = position / kAttentionBlock + 1;
    mass.assign(static_cast<size_t>(group_ * units), 0.0);
    score.assign(static_cast<size_t>(group_ * units), 0.0);
    std::vector<double> s(static_cast<size_t>(position + 1));
    for (int64_t h = 0; h < group_; ++h) {
      double top = -1e300, total = 0;
      for (int64_t p = 0; p <= position; ++p) {
        double sum = 0;
        for (int64_t i = 0; i < g.head_dim; ++i)
          sum += double{q[static_cast<size_t>(h * g.padded_dim() + i)]} *
                 keys[static_cast<size_t>(p * g.head_dim + i)];
        s[static_cast<size_t>(p)] = sum;
        top = std::max(top, sum);
        score[static_cast<size_t>(h * units + p / kAttentionBlock)] += sum / kAttentionBlock;
      }
      for (double& x : s) total += x = std::exp(x - top);
      for (int64_t p = 0; p <= position; ++p)
        mass[static_cast<size_t>(h * units + p / kAttentionBlock)] += s[static_cast<size_t>(p)] / total;
    }
  }

  // The mean of q . k over a block is q . the block's mean key.
  void add(Setting& setting, int64_t position, const std::vector<double>& unit_mass,
           const std::vector<double>& unit_score) const {
    const int64_t units = position / kAttentionBlock + 1, per = setting.block / kAttentionBlock;
    const int64_t own = position / setting.block, k = setting.top_k - 1;
    if (own <= k) return;
    std::vector<double> mass(static_cast<size_t>(group_ * (own + 1)), 0.0), score = mass;
    for (int64_t h = 0; h < group_; ++h)
      for (int64_t u = 0; u < units; ++u) {
        mass[static_cast<size_t>(h * (own + 1) + u / per)] += unit_mass[static_cast<size_t>(h * units + u)];
        score[static_cast<size_t>(h * (own + 1) + u / per)] += unit_score[static_cast<size_t>(h * units + u)];
      }
    std::vector<float> sums(static_cast<size_t>(own), 0.0f), tops(static_cast<size_t>(own), -1e30f),
        values(sums);
    for (int64_t h = 0; h < group_; ++h)
      for (int64_t b = 0; b < own; ++b) {
        const auto x = static_cast<float>(score[static_cast<size_t>(h * (own + 1) + b)]);
        sums[static_cast<size_t>(b)] += x;
        tops[static_cast<size_t>(b)] = std::max(tops[static_cast<size_t>(b)], x);
      }
    std::vector<uint32_t> by_sum = best_of(sums, k), by_max = best_of(tops, k);
    for (int64_t h = 0; h < group_; ++h) {
      const double* m = mass.data() + h * (own + 1);
      for (int64_t b = 0; b < own; ++b)
        values[static_cast<size_t>(b)] = static_cast<float>(score[static_cast<size_t>(h * (own + 1) + b)]);
      const auto chosen = best_of(values, k);
      for (int64_t b = 0; b < own; ++b) values[static_cast<size_t>(b)] = static_cast<float>(m[b]);
      const auto best = best_of(values, k);
      setting.chosen += m[own] + mass_of(chosen, m);
      const bool has_first = k > 0 && chosen.front() == 0;
      setting.with_sinks +=
          m[own] + mass_of(chosen, m) + (has_first ? 0 : unit_mass[static_cast<size_t>(h * units)]);
      setting.group_sum += m[own] + mass_of(by_sum, m);
      setting.group_max += m[own] + mass_of(by_max, m);
      setting.best += m[own] + mass_of(best, m);
      setting.random += m[own] + (1 - m[own]) * static_cast<double>(k) / static_cast<double>(own);
      std::vector<uint32_t> both;
      std::set_intersection(chosen.begin(), chosen.end(), best.begin(), best.end(), std::back_inserter(both));
      if (k > 0) {
        setting.overlap += static_cast<double>(both.size()) / static_cast<double>(k);
        ++setting.overlaps;
      }
      ++setting.queries;
    }
  }

  static std::vector<uint32_t> best_of(const std::vector<float>& values, int64_t k) {
    std::vector<uint64_t> scratch;
    std::vector<uint32_t> out;
    top_blocks(values.data(), static_cast<int64_t>(values.size()), k, scratch, out);
    return out;
  }

  const std::vector<int64_t> positions_;
  std::vector<Setting>& settings_;
  std::mutex& mutex_;
};

struct Options {
  std::string model, text, blocks = "64,128,256,512", tops = "1,2,4,8,16,32,64";
  int64_t tokens = 8192, queries = 48;
};

std::vector<int64_t> numbers(const std::string& list) {
  std::vector<int64_t> out;
  std::istringstream stream(list);
  for (std::string item; std::getline(stream, item, ',');) out.push_back(std::stoll(item));
  return out;
}

std::vector<Setting> measure(const Options& options) {
  const auto model = load_model(options.model, {});
  std::ifstream file(options.text);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  text.resize(std::min<size_t>(text.size(), static_cast<size_t>(options.tokens) * 12));
  std::vector<TokenId> ids = model->tokenizer->encode(text);
  require(static_cast<int64_t>(ids.size()) >= options.tokens, ErrorCode::invalid_argument,
          "{} has fewer than {} tokens", options.text, options.tokens);
  ids.resize(static_cast<size_t>(options.tokens));
  std::vector<Setting> settings;
  for (const int64_t block : numbers(options.blocks))
    for (const int64_t top : numbers(options.tops))
      if (block * top < options.tokens) settings.push_back({.block = block, .top_k = top});
  std::vector<int64_t> positions;  // of the second half
  for (int64_t i = 0; i < options.queries; ++i)
    positions.push_back(options.tokens / 2 + (2 * i + 1) * options.tokens / (4 * options.queries));
  std::mutex mutex;
  std::vector<StagePtr> list;
  size_t mixer = 0;
  for (StagePtr& stage : model->plan.prefill) {
    const bool stores = stage->describe().starts_with("rope+store");
    list.push_back(std::move(stage));
    if (stores) list.push_back(std::make_unique<Probe>(*model, mixer++, positions, settings, mutex));
  }
  require(mixer == model->mixers.size(), ErrorCode::internal, "a mixer without a store stage");
  model->plan.prefill = std::move(list);
  SequenceState state(std::make_shared<CacheLayout>(make_cache_layout(model->config, KvFormat::f16, 16)));
  state.reserve(options.tokens);
  const Slice slice{&state, 0, options.tokens, 0};
  Workspace workspace;
  Step step{*model, workspace, {&slice, 1}, ids, {}, nullptr, {}};
  run_step(*model->pool, step);
  return settings;
}

}  // namespace
}  // namespace mneme

int main(int argc, char** argv) {
  mneme::Options options;
  CLI::App app("Recall of block-sparse attention");
  app.add_option("model", options.model)->required();
  app.add_option("text", options.text)->required();
  app.add_option("--tokens", options.tokens);
  app.add_option("--queries", options.queries, "looked at in every layer and head, from the second half");
  app.add_option("--blocks", options.blocks);
  app.add_option("--top", options.tops);
  CLI11_PARSE(app, argc, argv);
  try {
    auto list = nlohmann::json::array();
    for (const auto& s : mneme::measure(options)) {
      const auto n = static_cast<double>(std::max<int64_t>(s.queries, 1));
      list.push_back({{"block", s.block},
                      {"top_k", s.top_k},
                      {"m", s.block * s.top_k},
                      {"chosen", s.chosen / n},
                      {"with_sinks", s.with_sinks / n},
                      {"group_sum", s.group_sum / n},
                      {"group_max", s.group_max / n},
                      {"best", s.best / n},
                      {"random", s.random / n},
                      {"overlap", s.overlap / static_cast<double>(std::max<int64_t>(s.overlaps, 1))},
                      {"queries", s.queries}});
    }
    fmt::print("{}\n", list.dump());
  } catch (const std::exception& error) {
    fmt::print(stderr, "sparse_recall: {}\n", error.what());
    return 1;
  }
}
