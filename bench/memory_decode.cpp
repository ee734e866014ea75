// What the rows of a memory cost while decoding real text. One model decodes two sequences in blocks, in turn
// (A B, B A, ...): A is the text; B is one token again and again, whose rows are therefore the same at each
// step and lie in the first-level cache. Both compute everything, hashes, gates and projections; only B's
// reads cost nothing. A pair of blocks gives one ratio. (Two copies of the model with packs of different
// sizes are no fair pair: two equal copies already differ by 1 to 4 %, because of where their weights happen
// to lie.)
//
//   1. cold: the pack's file is dropped from the system's cache, then the first tokens are decoded
//   2. warm-up: `--warm` tokens of the text go through the model
//   3. warm: the next `--decode` tokens, unseen so far
//   4. the same tokens without any memory, for the cost of projections and gates
//
// bench/memory_decode.py builds the pack and prints the table.
#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "mneme/error.h"
#include "mneme/session.h"
#include "model/model_impl.h"

namespace {

using namespace mneme;
using Clock = std::chrono::steady_clock;

struct Options {
  std::string model, real, text, placement = "ram";
  uint64_t budget = 0;
  size_t cold = 512, warm = 100000, decode = 10000, block = 64, window = 512;
  int threads = 0;
};

std::shared_ptr<const Model> load(const Options& options, const std::string& pack,
                                  const std::string& placement, uint64_t budget) {
  LoadOptions load;
  load.threads = options.threads;
  load.memory_budget = budget;
  if (!pack.empty()) load.memory.push_back({.path = pack, .placement = placement_from(placement)});
  return Model::load(options.model, load);
}

void drop_from_file_cache(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return;
  ::fdatasync(file);
  ::posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
  ::close(file);
}

// One sequence that decodes given tokens one by one; its context starts anew after `window` of them.
class Decoder {
 public:
  Decoder(std::shared_ptr<const Model> model, size_t window) : model_(std::move(model)), window_(window) {
    restart();
  }
  /// Milliseconds a token.
  double decode(std::span<const TokenId> ids) {
    if (static_cast<size_t>(session_->position()) >= window_) restart();
    double sum = 0;
    for (const TokenId& id : ids) {
      const auto start = Clock::now();
      session_->append({&id, 1});
      const std::chrono::duration<double, std::milli> taken = Clock::now() - start;
      token_ms.push_back(taken.count());
      sum += taken.count();
    }
    return sum / static_cast<double>(ids.size());
  }
  std::vector<double> token_ms;  // of each token that decode() took

  void read(std::span<const TokenId> ids) {
    for (size_t i = 0; i < ids.size(); i += window_) {
      session_->append(ids.subspan(i, std::min(window_, ids.size() - i)));
      restart();
    }
  }

 private:
  void restart() { session_ = std::make_unique<Session>(model_, SessionOptions{}); }
  std::shared_ptr<const Model> model_;
  std::unique_ptr<Session> session_;
  size_t window_;
};

// Median and 99th percentile.
nlohmann::json percentiles(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const auto at = [&](double share) {
    return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1))];
  };
  return {{"p50", at(0.5)}, {"p99", at(0.99)}};
}

// Milliseconds a token of text and of one repeated token, block by block; and of the text its hit rate and
// the time of its reads: the repeated token finds all of its rows, so whatever is read is the text's.
nlohmann::json in_turn(const std::shared_ptr<const Model>& model, std::span<const TokenId> ids,
                       const Options& options) {
  Decoder text(model, options.window), constant(model, options.window);
  const std::vector<TokenId> same(options.block, ids.front());
  text.decode(ids.first(options.block));  // nobody starts unprepared
  constant.decode(same);
  text.token_ms.clear();
  constant.token_ms.clear();
  for (const LoadedTable& table : model->impl().memory_tables) table.rows->reset_statistics();
  std::vector<double> text_ms, constant_ms;
  uint64_t hits = 0, misses = 0, reads = 0;
  const auto count = [&](uint64_t sign) {
    for (const LoadedTable& table : model->impl().memory_tables) {
      const MemoryStatistics now = table.rows->statistics();
      hits += sign * now.hits;
      misses += sign * now.misses;
      reads += sign * now.disk_reads;
    }
  };
  for (size_t first = options.block, round = 0; first + options.block <= ids.size();
       first += options.block, ++round) {
    if (round % 2 == 0) constant_ms.push_back(constant.decode(same));
    count(~uint64_t{0});  // minus
    text_ms.push_back(text.decode(ids.subspan(first, options.block)));
    count(1);
    if (round % 2 == 1) constant_ms.push_back(constant.decode(same));
  }
  nlohmann::json out{{"text_ms", text_ms},
                     {"constant_ms", constant_ms},
                     {"text_token_ms", percentiles(text.token_ms)},
                     {"constant_token_ms", percentiles(constant.token_ms)},
                     {"hit_rate", nullptr}};
  if (hits + misses == 0) return out;
  const Latency disk = model->impl().memory_tables.front().rows->statistics().disk;
  out["hit_rate"] = static_cast<double>(hits) / static_cast<double>(hits + misses);
  out["reads_per_token"] = static_cast<double>(reads) / static_cast<double>(text.token_ms.size());
  out["read_us"] = {{"p50", disk.p50}, {"p99", disk.p99}};
  return out;
}

int run(const Options& options) {
  std::ifstream file(options.text, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  auto none = load(options, "", "ram", 0);
  const std::vector<TokenId> ids = none->tokenizer().encode(text);
  const std::span all(ids);
  if (ids.size() < options.cold + options.warm + options.decode) {
    std::fprintf(stderr, "memory_decode: %s has %zu tokens, %zu are needed\n", options.text.c_str(),
                 ids.size(), options.cold + options.warm + options.decode);
    return 1;
  }
  drop_from_file_cache(options.real);
  const auto model = load(options, options.real, options.placement, options.budget);
  nlohmann::json out{{"block", options.block}, {"memory", model->memories().front().text}};
  out["cold"] = in_turn(model, all.first(options.cold), options);
  Decoder(model, options.window).read(all.subspan(options.cold, options.warm));
  const auto unseen = all.subspan(options.cold + options.warm, options.decode);
  out["warm"] = in_turn(model, unseen, options);
  out["none"] = in_turn(none, unseen.first(std::min<size_t>(unseen.size(), 2000)), options);
  std::printf("%s\n", out.dump().c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Decode time with a memory table against the same model with a table of a few rows");
  app.add_option("model", options.model)->required();
  app.add_option("--real", options.real, "Pack to measure")->required();
  app.add_option("--text", options.text, "File of real text")->required();
  app.add_option("--placement", options.placement)->capture_default_str();
  app.add_option("--budget", options.budget, "Bytes for the rows of --real; 0 = no bound");
  app.add_option("--cold", options.cold)->capture_default_str();
  app.add_option("--warm", options.warm)->capture_default_str();
  app.add_option("--decode", options.decode)->capture_default_str();
  app.add_option("--block", options.block, "Tokens of one measurement")->capture_default_str();
  app.add_option("--threads", options.threads);
  CLI11_PARSE(app, argc, argv);
  try {
    return run(options);
  } catch (const Error& error) {
    std::fprintf(stderr, "memory_decode: %s\n", error.what());
    return 1;
  }
}
