// How often would a cache of N rows have had the row? The rows that real text asks for, simulated exactly and
// without a table: token ids -> classes -> n-gram hashes -> caches of every size at once.
//
//   cache_rates MODEL TEXT [--warm N] [--measure N]        (run by bench/memory_cache.py)
//
// DeepSeek-V4.1's geometry: orders 2, 3 and 4, 8 heads each, two layers, 264 bytes a row. The 8 heads of an
// order and the two layers reduce the same n-gram by different primes, so apart from collisions (counted)
// they hit and miss together: one head of one layer stands for 16 rows, and a cache of k keys is one of
// 16 k rows with their bookkeeping.
//
// Measured on the tokens after the first `warm`, in caches that the first `warm` tokens have filled:
//   mneme    the policy of the placement `cache` (src/memory/store/row_cache.h), by running it
//   lru      least recently used, exact for every size from one pass (Mattson et al. 1970, stack distances)
//   static   the keys that were most frequent in the warm-up, never changed
//   oracle   the keys most frequent in the measured tokens: no fixed set can do better
// and without a bound (the share of n-grams met before). Prints JSON.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <numeric>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/fail.h"
#include "core/json.h"
#include "memory/engram_hash.h"
#include "memory/store/row_cache.h"
#include "memory/token_map.h"
#include "mneme/error.h"
#include "model/checkpoint.h"
#include "model/load_tokenizer.h"

namespace mneme {
namespace {

constexpr uint32_t kOrders = 3, kRowBytes = 264, kRowsPerKey = 16;  // 8 heads, 2 layers

// Keys are numbered in the order of their first appearance; key k of access i is trace[i]. Access i belongs
// to token i / kOrders and order 2 + i % kOrders.
struct Trace {
  std::vector<uint32_t> keys;
  uint32_t distinct = 0;
};

// For every access the number of other keys since the last access to its key: an LRU cache of more than that
// many keys has it. -1 for a first access. A Fenwick tree over time holds a 1 at the last access of each key.
std::vector<int64_t> stack_distances(const Trace& trace) {
  const auto n = static_cast<int64_t>(trace.keys.size());
  std::vector<int32_t> tree(static_cast<size_t>(n) + 1);
  const auto add = [&](int64_t at, int32_t value) {
    for (++at; at <= n; at += at & -at) tree[static_cast<size_t>(at)] += value;
  };
  const auto sum_before = [&](int64_t at) {
    int64_t sum = 0;
    for (; at > 0; at -= at & -at) sum += tree[static_cast<size_t>(at)];
    return sum;
  };
  std::vector<int64_t> last(trace.distinct, -1), distance(trace.keys.size(), -1);
  for (int64_t i = 0; i < n; ++i) {
    int64_t& before = last[trace.keys[static_cast<size_t>(i)]];
    if (before >= 0) {
      distance[static_cast<size_t>(i)] = sum_before(i) - sum_before(before + 1);
      add(before, -1);
    }
    add(i, 1);
    before = i;
  }
  return distance;
}

// Rank of each key by its count in trace[begin, end): 0 the most frequent; keys that do not occur rank last.
std::vector<uint32_t> ranks_by_count(const Trace& trace, size_t begin, size_t end) {
  std::vector<uint32_t> count(trace.distinct), order(trace.distinct), rank(trace.distinct, UINT32_MAX);
  for (size_t i = begin; i < end; ++i) ++count[trace.keys[i]];
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return count[a] > count[b]; });
  for (uint32_t r = 0; r < trace.distinct && count[order[r]] > 0; ++r) rank[order[r]] = r;
  return rank;
}

// Slope of log count against log rank by least squares, over ranks evenly spaced in log from 10 to the last
// key that occurs ten times: the head is a handful of words, the tail is rounding.
Json zipf(const Trace& trace, uint32_t order) {
  std::vector<uint32_t> count(trace.distinct);
  for (size_t i = order; i < trace.keys.size(); i += kOrders) ++count[trace.keys[i]];
  std::erase(count, 0u);
  std::sort(count.begin(), count.end(), std::greater<>());
  double sx = 0, sy = 0, sxx = 0, sxy = 0, n = 0;
  size_t last = 0;
  for (double at = 10; at <= static_cast<double>(count.size()); at *= 1.1) {
    const auto rank = static_cast<size_t>(at);
    if (rank == last) continue;
    last = rank;
    if (count[rank - 1] < 10) break;
    const double x = std::log(static_cast<double>(rank)), y = std::log(static_cast<double>(count[rank - 1]));
    sx += x, sy += y, sxx += x * x, sxy += x * y, n += 1;
  }
  const uint64_t once = static_cast<uint64_t>(std::count(count.begin(), count.end(), 1u));
  Json curve = Json::array();  // rank and count, evenly spaced in log
  for (double at = 1; at <= static_cast<double>(count.size()); at = std::ceil(at * 1.5))
    curve.push_back({static_cast<size_t>(at), count[static_cast<size_t>(at) - 1]});
  return {{"distinct", count.size()},
          {"seen_once", once},
          {"zipf_exponent", n < 5 ? Json() : Json(-(n * sxy - sx * sy) / (n * sxx - sx * sx))},
          {"rank_count", std::move(curve)}};
}

// Hits of a cache of `size` keys, by order, over the accesses whose rank or distance is below it.
template <class Value>
std::array<double, kOrders> hit_rates(std::span<const Value> below, uint64_t size) {
  std::array<double, kOrders> hits{};
  for (size_t i = 0; i < below.size(); ++i)
    if (below[i] >= 0 && static_cast<uint64_t>(below[i]) < size) ++hits[i % kOrders];
  for (double& h : hits) h /= static_cast<double>(below.size()) / kOrders;
  return hits;
}

Json with_mean(const std::array<double, kOrders>& rates) {
  Json out = Json::array();
  for (const double r : rates) out.push_back(r);
  out.push_back(std::accumulate(rates.begin(), rates.end(), 0.0) / kOrders);
  return out;
}

// A second opinion on the stack distances: an LRU cache of `size` keys as a list, on the whole trace.
uint64_t plain_lru_hits(const Trace& trace, size_t size, size_t begin, size_t end) {
  std::vector<uint32_t> next(trace.distinct + 1), previous(trace.distinct + 1);
  std::vector<bool> inside(trace.distinct);
  const uint32_t root = trace.distinct;  // next[root] is the newest, previous[root] the oldest
  next[root] = previous[root] = root;
  uint64_t hits = 0;
  size_t held = 0;
  const auto unlink = [&](uint32_t key) {
    next[previous[key]] = next[key];
    previous[next[key]] = previous[key];
  };
  for (size_t i = 0; i < end; ++i) {
    const uint32_t key = trace.keys[i];
    if (inside[key]) {
      hits += i >= begin;
      unlink(key);
    } else if (held++ == size) {
      inside[previous[root]] = false;
      unlink(previous[root]);
      --held;
    }
    inside[key] = true;
    next[key] = next[root];
    previous[key] = root;
    previous[next[root]] = key;
    next[root] = key;
  }
  return hits;
}

// Hit rates of Mneme's own cache of `size` keys on the accesses from `begin` on.
std::array<double, kOrders> row_cache_rates(const Trace& trace, uint64_t size, size_t begin, size_t end) {
  constexpr uint32_t kBytes = 8;  // the policy does not look at rows, so short ones do
  RowCache cache(size * RowCache::bytes_per_row(kBytes), kBytes, size);
  std::array<double, kOrders> hits{};
  std::array<std::byte, kBytes> row{};
  for (size_t i = 0; i < end; ++i) {
    const bool hit = cache.get(trace.keys[i], row.data());
    if (!hit) cache.put(trace.keys[i], row.data());
    if (hit && i >= begin) ++hits[i % kOrders];
  }
  for (double& h : hits) h /= static_cast<double>(end - begin) / kOrders;
  return hits;
}

Json measure(const Trace& trace, const std::vector<int64_t>& distances, uint64_t warm, uint64_t tokens) {
  const size_t begin = warm * kOrders, end = (warm + tokens) * kOrders;
  const auto static_rank = ranks_by_count(trace, 0, begin), oracle_rank = ranks_by_count(trace, begin, end);
  std::vector<int64_t> fixed, oracle;
  for (size_t i = begin; i < end; ++i) {
    const auto rank_of = [&](const std::vector<uint32_t>& rank) {
      const uint32_t r = rank[trace.keys[i]];
      return r == UINT32_MAX ? int64_t{-1} : int64_t{r};
    };
    fixed.push_back(rank_of(static_rank));
    oracle.push_back(rank_of(oracle_rank));
  }
  const std::span lru(distances.data() + begin, end - begin);
  Json curve = Json::array();
  for (uint64_t size = 256; size < 2 * uint64_t{trace.distinct}; size *= 2) {
    const auto rates = hit_rates<int64_t>(lru, size);
    curve.push_back({{"bytes", size * kRowsPerKey * RowCache::bytes_per_row(kRowBytes)},
                     {"mneme", with_mean(row_cache_rates(trace, size, begin, end))},
                     {"lru", with_mean(rates)},
                     {"static", with_mean(hit_rates<int64_t>(fixed, size))},
                     {"oracle", with_mean(hit_rates<int64_t>(oracle, size))}});
  }
  constexpr size_t kChecked = 4096;
  const auto by_distance = static_cast<uint64_t>(
      std::count_if(lru.begin(), lru.end(), [](int64_t d) { return d >= 0 && d < int64_t{kChecked}; }));
  require(by_distance == plain_lru_hits(trace, kChecked, begin, end), ErrorCode::invalid_argument,
          "the stack distances and a simulated cache of {} keys disagree", kChecked);
  return {{"warm_tokens", warm},
          {"measured_tokens", tokens},
          {"unbounded", with_mean(hit_rates<int64_t>(lru, UINT64_MAX))},
          {"curve", std::move(curve)}};
}

std::string read_text(const char* path) {
  std::ifstream in(path, std::ios::binary);
  require(in.good(), ErrorCode::not_found, "cannot read {}", path);
  return {std::istreambuf_iterator<char>(in), {}};
}

// One row a token and order: head 0 of layer 1.
Trace trace_of(const EngramHash& hash, std::span<const TokenClass> classes) {
  constexpr size_t kRun = 4096;
  const size_t per_token = hash.config().rows_per_token(), heads = hash.config().heads;
  std::unordered_map<uint64_t, uint32_t> numbers;
  Trace trace;
  for (size_t at = 0; at < classes.size(); at += kRun) {
    const size_t back = std::min(at, hash.look_back());
    const auto rows = hash.rows_of(0, classes.subspan(at - back, back),
                                   classes.subspan(at, std::min(kRun, classes.size() - at)));
    for (size_t i = 0; i < rows.size(); i += per_token)
      for (size_t order = 0; order < kOrders; ++order)
        trace.keys.push_back(
            numbers.try_emplace(rows[i + order * heads], static_cast<uint32_t>(numbers.size()))
                .first->second);
  }
  trace.distinct = static_cast<uint32_t>(numbers.size());
  return trace;
}

// Distinct n-grams of the longest order against the distinct rows they fell on.
uint64_t collisions(std::span<const TokenClass> classes, const EngramTableConfig& config,
                    const Trace& trace) {
  std::vector<uint64_t> grams, rows;
  for (size_t i = 3; i < classes.size(); ++i) {
    uint64_t gram = 0;
    for (size_t k = 0; k < 4; ++k)
      gram = gram * config.compressed_vocab + static_cast<uint64_t>(classes[i - k]);
    grams.push_back(gram);
    rows.push_back(trace.keys[i * kOrders + 2]);
  }
  const auto distinct = [](std::vector<uint64_t>& v) {
    std::sort(v.begin(), v.end());
    return static_cast<uint64_t>(std::unique(v.begin(), v.end()) - v.begin());
  };
  return distinct(grams) - distinct(rows);
}

void run(const char* model, const char* text_path, uint64_t warm, uint64_t measured) {
  const auto checkpoint = open_checkpoint(model);
  const auto tokenizer = load_tokenizer(checkpoint);
  require(tokenizer != nullptr, ErrorCode::not_found, "{} carries no tokenizer", model);
  const TokenMap map = TokenMap::build(*tokenizer);
  EngramTableConfig config;
  config.compressed_vocab = map.classes();
  config.pad_id = 0;
  config.max_ngram = 4;
  config.head_dim = 256;
  config.base_rows = {16'000'000, 16'000'000, 16'000'000};
  config.layer_ids = {1, 14};
  config.format = RowFormat::fp8_e4m3_e8m0;
  const EngramHash hash(config);

  const std::string text = read_text(text_path);
  const auto ids = tokenizer->encode(text, {.add_special = false, .parse_special = false});
  std::vector<TokenClass> classes(ids.size());
  std::transform(ids.begin(), ids.end(), classes.begin(), [&](TokenId id) { return map[id]; });
  require(classes.size() >= warm + measured, ErrorCode::invalid_argument, "{} has {} tokens; {} are needed",
          text_path, classes.size(), warm + measured);
  const Trace trace = trace_of(hash, classes);
  const auto distances = stack_distances(trace);
  Json windows = Json::array();
  // The asked window, and the last tenth of the text with all before as warm-up.
  windows.push_back(measure(trace, distances, warm, measured));
  windows.push_back(measure(trace, distances, classes.size() / 10 * 9, classes.size() / 10));
  Json orders;
  for (uint32_t order = 0; order < kOrders; ++order) orders[std::to_string(order + 2)] = zipf(trace, order);
  const Json out = {{"bytes", text.size()},
                    {"tokens", classes.size()},
                    {"vocabulary", tokenizer->vocab_size()},
                    {"classes", map.classes()},
                    {"colliding_4_grams", collisions(classes, config, trace)},
                    {"orders", orders},
                    {"windows", windows}};
  fmt::print("{}\n", out.dump());
}

}  // namespace
}  // namespace mneme

int main(int argc, char** argv) {
  try {
    uint64_t warm = 100'000, measured = 10'000;
    for (int i = 3; i + 1 < argc; i += 2)
      (std::string(argv[i]) == "--warm" ? warm : measured) = std::stoull(argv[i + 1]);
    mneme::require(argc >= 3 && argc % 2 == 1, mneme::ErrorCode::invalid_argument,
                   "usage: cache_rates MODEL TEXT [--warm N] [--measure N]");
    mneme::run(argv[1], argv[2], warm, measured);
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "cache_rates: {}\n", error.what());
    return 1;
  }
}
