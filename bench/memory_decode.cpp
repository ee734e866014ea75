// What a memory costs while decoding real text: two copies of one model in one process, whose packs differ
// only in the number of rows. `--constant` is a pack of the same geometry with a few dozen rows, which never
// leave the first-level cache: everything is computed, hashes and projections too, but a read costs nothing.
// Both decode the same tokens in blocks, in turn (A B, B A, ...); a pair of blocks gives one ratio.
//
//   1. cold: the pack's file is dropped from the system's cache, then the first tokens are decoded
//   2. warm-up: `--warm` tokens of the text go through the model with the real pack
//   3. warm: the next `--decode` tokens, unseen so far
//
// bench/memory_decode.py builds the packs and prints the tables.
#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "mneme/error.h"
#include "mneme/session.h"

namespace {

using namespace mneme;
using Clock = std::chrono::steady_clock;

struct Options {
  std::string model, real, constant, text, placement = "ram";
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

// One model that decodes given tokens one by one; its context starts anew after `window` of them.
class Decoder {
 public:
  Decoder(std::shared_ptr<const Model> model, size_t window) : model_(std::move(model)), window_(window) {
    restart();
  }
  /// Milliseconds a token.
  double decode(std::span<const TokenId> ids) {
    const auto start = Clock::now();
    for (const TokenId& id : ids) session_->append({&id, 1});
    const std::chrono::duration<double, std::milli> taken = Clock::now() - start;
    if (static_cast<size_t>(session_->position()) >= window_) restart();
    return taken.count() / static_cast<double>(ids.size());
  }
  void read(std::span<const TokenId> ids) {
    for (size_t i = 0; i < ids.size(); i += window_) {
      session_->append(ids.subspan(i, std::min(window_, ids.size() - i)));
      restart();
    }
  }
  const Model& model() const { return *model_; }

 private:
  void restart() { session_ = std::make_unique<Session>(model_, SessionOptions{}); }
  std::shared_ptr<const Model> model_;
  std::unique_ptr<Session> session_;
  size_t window_;
};

// Milliseconds a token of each decoder, block by block. Each block's order is the reverse of the one before.
nlohmann::json in_turn(std::vector<Decoder*> decoders, std::span<const TokenId> ids, size_t block) {
  std::vector<std::vector<double>> times(decoders.size());
  for (size_t first = 0, round = 0; first + block <= ids.size(); first += block, ++round)
    for (size_t i = 0; i < decoders.size(); ++i) {
      const size_t who = round % 2 == 0 ? i : decoders.size() - 1 - i;
      times[who].push_back(decoders[who]->decode(ids.subspan(first, block)));
    }
  return times;
}

struct Counts {
  uint64_t hits = 0, misses = 0, rows = 0;
  explicit Counts(const Model& model) {
    for (const MemoryDescription& memory : model.memories()) {
      hits += memory.statistics.hits;
      misses += memory.statistics.misses;
      rows += memory.statistics.rows;
    }
  }
};

nlohmann::json hit_rate(const Counts& before, const Counts& after) {
  const auto hits = static_cast<double>(after.hits - before.hits),
             misses = static_cast<double>(after.misses - before.misses);
  if (hits + misses == 0) return nullptr;
  return hits / (hits + misses);
}

int run(const Options& options) {
  std::ifstream file(options.text, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  Decoder none(load(options, "", "ram", 0), options.window);
  const std::vector<TokenId> ids = none.model().tokenizer().encode(text);
  const std::span all(ids);
  if (ids.size() < options.cold + options.warm + options.decode) {
    std::fprintf(stderr, "memory_decode: %s has %zu tokens, %zu are needed\n", options.text.c_str(),
                 ids.size(), options.cold + options.warm + options.decode);
    return 1;
  }
  drop_from_file_cache(options.real);
  Decoder constant(load(options, options.constant, "ram", 0), options.window);
  Decoder real(load(options, options.real, options.placement, options.budget), options.window);

  nlohmann::json out{{"block", options.block}, {"memory", real.model().memories().front().text}};
  const auto measure = [&](const char* name, std::span<const TokenId> part) {
    const Counts before(real.model());
    out[name] = {{"ms", in_turn({&constant, &real, &none}, part, options.block)},
                 {"order", {"constant", "real", "none"}}};
    out[name]["hit_rate"] = hit_rate(before, Counts(real.model()));
  };
  measure("cold", all.first(options.cold));
  real.read(all.subspan(options.cold, options.warm));
  for (Decoder* decoder : {&constant, &real, &none})
    decoder->decode(all.first(options.block));  // nobody starts unprepared
  measure("warm", all.subspan(options.cold + options.warm, options.decode));
  const Counts total(real.model());
  out["rows_read"] = total.rows;
  std::printf("%s\n", out.dump().c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Decode time with a memory table against the same model with a table of a few rows");
  app.add_option("model", options.model)->required();
  app.add_option("--real", options.real, "Pack to measure")->required();
  app.add_option("--constant", options.constant, "Pack of the same geometry with a few rows")->required();
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
