// `mneme memory bench`: how fast a pack's rows come, from where, and how many of them are in memory already.
//
// A token asks for the rows of all layers, orders and heads, as a model does; rows are touched, so that a
// placement that only hands out addresses pays for the pages behind them. Ids are
//   uniform   every row equally likely: nothing to cache, the worst case
//   zipf      n-grams by rank, p ~ 1 / rank^s, each hashed to one row in every head, as real n-grams are
//   text      the n-grams of a text, with the pack's token map and a model's tokenizer
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>

#include "cli/input.h"
#include "cli/options.h"
#include "cli/sizes.h"
#include "cli/store.h"
#include "cli/terminal.h"
#include "cli/verb.h"
#include "core/fail.h"
#include "core/random.h"
#include "memory/engram_hash.h"
#include "memory/pack.h"
#include "memory/token_map.h"
#include "model/checkpoint.h"
#include "model/load_tokenizer.h"

namespace mneme::cli::memory_bench_verb {
namespace {

struct Options {
  CommonOptions common;
  std::string file, placement = "auto", budget, ids = "zipf", model, text;
  std::vector<std::string> overlays;
  uint64_t tokens = 2048, batch = 1, warm = 0, seed = 1;
  uint32_t depth = 128, gap = 0;
  double exponent = 1.0;
  bool cold = false, dedupe = false;
};

/// Makes the row ids of one token after the other.
class Ids {
 public:
  virtual ~Ids() = default;
  virtual void append(std::vector<uint64_t>& ids) = 0;
};

class UniformIds final : public Ids {
 public:
  UniformIds(const EngramHash& hash, uint64_t seed) : hash_(hash), random_(seed) {}
  void append(std::vector<uint64_t>& ids) override {
    for (size_t layer = 0; layer < hash_.layers(); ++layer)
      for (size_t i = 0; i < hash_.offsets(layer).size(); ++i)
        ids.push_back(hash_.offsets(layer)[i] + random_.below(hash_.primes(layer)[i]));
  }

 private:
  const EngramHash& hash_;
  Pcg64 random_;
};

// Ranks by inversion of the continuous law on [1, kRanks + 1): close to Zipf's, and exact in its tail
// exponent.
class ZipfIds final : public Ids {
 public:
  ZipfIds(const EngramHash& hash, uint64_t seed, double exponent)
      : hash_(hash), random_(seed), s_(exponent) {}
  void append(std::vector<uint64_t>& ids) override {
    const size_t orders = hash_.look_back(), heads = hash_.config().heads;
    ngrams_.resize(orders);
    for (size_t order = 0; order < orders; ++order) ngrams_[order] = mixed(rank() * orders + order);
    for (size_t layer = 0; layer < hash_.layers(); ++layer)
      for (size_t i = 0; i < orders * heads; ++i)
        ids.push_back(hash_.offsets(layer)[i] + mixed(ngrams_[i / heads] + layer) % hash_.primes(layer)[i]);
  }

 private:
  static constexpr double kRanks = 1e8;
  static uint64_t mixed(uint64_t z) {
    z += 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    return z ^ (z >> 31);
  }
  uint64_t rank() {
    const double u = random_.uniform();
    if (std::abs(s_ - 1) < 1e-9) return static_cast<uint64_t>(std::pow(kRanks, u));
    return static_cast<uint64_t>(std::pow(1 + u * (std::pow(kRanks, 1 - s_) - 1), 1 / (1 - s_)));
  }
  const EngramHash& hash_;
  Pcg64 random_;
  double s_;
  std::vector<uint64_t> ngrams_;
};

class TextIds final : public Ids {
 public:
  TextIds(const EngramHash& hash, const Pack& pack, const Options& options) : hash_(hash) {
    const Checkpoint checkpoint = open_checkpoint(resolve_model(options.model));
    const auto tokenizer = load_tokenizer(checkpoint);
    require(tokenizer != nullptr, ErrorCode::not_found, "{} has no tokenizer", options.model);
    const auto tokens = tokenizer->encode(text_argument(options.text));
    std::vector<TokenClass> classes(tokens.begin(), tokens.end());
    if (!pack.token_map().empty()) {
      const TokenMap map = TokenMap::parse(pack.token_map(), pack.path().string());
      map.check_tokenizer(*tokenizer, pack.path().string());
      for (size_t i = 0; i < tokens.size(); ++i) classes[i] = map[tokens[i]];
    }
    count_ = classes.size();
    for (size_t layer = 0; layer < hash.layers(); ++layer) rows_.push_back(hash.rows_of(layer, {}, classes));
  }
  uint64_t tokens() const { return count_; }
  void append(std::vector<uint64_t>& ids) override {
    require(next_ < count_, ErrorCode::invalid_argument,
            "the text has {} tokens; ask for fewer with --tokens and --warm", count_);
    const auto width = static_cast<ptrdiff_t>(hash_.config().rows_per_token());
    for (const auto& rows : rows_) {
      const auto first = rows.begin() + static_cast<ptrdiff_t>(next_) * width;
      ids.insert(ids.end(), first, first + width);
    }
    ++next_;
  }

 private:
  const EngramHash& hash_;
  std::vector<std::vector<uint64_t>> rows_;
  uint64_t count_ = 0, next_ = 0;
};

std::unique_ptr<Ids> make_ids(const EngramHash& hash, const Pack& pack, const Options& options) {
  if (options.ids == "uniform") return std::make_unique<UniformIds>(hash, options.seed);
  if (options.ids == "zipf") return std::make_unique<ZipfIds>(hash, options.seed, options.exponent);
  if (options.model.empty() || options.text.empty())
    throw UsageError("--ids text needs --model MODEL, for its tokenizer, and --text @FILE");
  return std::make_unique<TextIds>(hash, pack, options);
}

// Clean pages of the file leave the cache; what others hold dirty or mapped stays, and resident_fraction
// shows it.
void drop_from_cache(const fs::path& path) {
  const FileHandle file(path);
  ::fsync(file.fd());
  ::posix_fadvise(file.fd(), 0, 0, POSIX_FADV_DONTNEED);
}

// As a dequantizing kernel would: one load for each cache line.
uint64_t touch(std::span<const std::byte* const> rows, uint32_t row_bytes) {
  uint64_t sum = 0;
  for (const std::byte* const row : rows)
    for (uint32_t i = 0; i < row_bytes; i += 64) sum += static_cast<uint64_t>(row[i]);
  return sum;
}

struct Measured {
  double seconds = 0;
  uint64_t touched = 0;
};

Measured read_tokens(const MemoryTable& table, Ids& source, uint64_t tokens, const Options& options,
                     RowBatch& batch) {
  Measured out;
  std::vector<uint64_t> ids;
  for (uint64_t done = 0; done < tokens;) {
    ids.clear();
    const uint64_t end = std::min(tokens, done + options.batch);
    for (; done < end; ++done) source.append(ids);
    if (options.dedupe) {
      std::sort(ids.begin(), ids.end());
      ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
    }
    const auto start = std::chrono::steady_clock::now();
    table.start(ids, batch);
    table.wait(batch);
    out.touched += touch(batch.rows(), table.row_bytes());
    out.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  return out;
}

int run(const Options& options) {
  const auto pack = Pack::open(options.file);
  const EngramHash hash(pack->description().table);
  const auto ids = make_ids(hash, *pack, options);
  MemoryOptions memory;
  memory.placement = placement_from(options.placement);
  memory.budget_bytes = size_argument(options.budget, "--memory-budget");
  memory.queue_depth = options.depth;
  memory.gap_pages = options.gap;
  memory.batch_ids =
      memory.budget_bytes > 0 ? options.batch * hash.config().rows_per_token() * hash.layers() : 0;
  memory.overlays.assign(options.overlays.begin(), options.overlays.end());
  const auto table = MemoryTable::open_pack(options.file, memory);
  if (!options.common.quiet) fmt::print(stderr, "{}\n", table->describe());
  RowBatch batch;
  if (options.warm > 0) {
    Options warm = options;
    warm.batch = std::max<uint64_t>(options.batch, 1);
    read_tokens(*table, *ids, options.warm, warm, batch);
  }
  if (options.cold) drop_from_cache(options.file);
  const double resident = table->resident_fraction();
  table->reset_statistics();
  const Measured measured = read_tokens(*table, *ids, options.tokens, options, batch);
  const MemoryStatistics s = table->statistics();
  const auto tokens = static_cast<double>(options.tokens);
  const Json json{{"placement", to_string(table->placement())},
                  {"rows_per_s", static_cast<double>(s.rows) / measured.seconds},
                  {"bytes_per_token", static_cast<double>(s.bytes) / tokens},
                  {"hit_rate", s.hit_rate()},
                  {"latency_us", {{"p50", s.batch.p50}, {"p99", s.batch.p99}}},
                  {"resident_fraction", resident},
                  {"rows", s.rows},
                  {"distinct", s.distinct},
                  {"seconds", measured.seconds},
                  {"disk_reads", s.disk_reads},
                  {"disk_bytes_per_token", static_cast<double>(s.disk_bytes) / tokens},
                  {"disk_latency_us", {{"p50", s.disk.p50}, {"p99", s.disk.p99}}},
                  {"table_bytes", table->bytes()},
                  {"resident_bytes", table->resident_bytes() + batch.buffer_bytes()}};
  if (options.common.json) {
    print_json(json);
    return kDone;
  }
  print(fmt::format("{:.0f} rows/s, {:.1f} us a row; {} a token, of which {} from the disk\n",
                    static_cast<double>(s.rows) / measured.seconds,
                    1e6 * measured.seconds / static_cast<double>(s.rows),
                    human_bytes(static_cast<double>(s.bytes) / tokens),
                    human_bytes(static_cast<double>(s.disk_bytes) / tokens)));
  if (s.hits + s.misses > 0)
    print(fmt::format("{:.1f} % of distinct rows were in memory\n", 100 * s.hit_rate()));
  print(fmt::format("a batch of {} token{} took {:.0f} us in the middle, {:.0f} us at the 99th percentile\n",
                    options.batch, options.batch == 1 ? "" : "s", s.batch.p50, s.batch.p99));
  if (s.disk_reads > 0)
    print(fmt::format(
        "{} reads from the disk, {:.0f}/s: {:.0f} us in the middle, {:.0f} us at the 99th percentile\n",
        s.disk_reads, static_cast<double>(s.disk_reads) / measured.seconds, s.disk.p50, s.disk.p99));
  print(fmt::format("{:.1f} % of the file was in the file cache\n", 100 * resident));
  return kDone;
}

const VerbRegistration registration(
    {.name = "bench",
     .summary = "Time the rows of a memory pack",
     .group = Group::models,
     .examples = {{"mneme memory bench facts.engram --placement cache --memory-budget 512M --warm 100000",
                   "decoding with a warm cache"},
                  {"mneme memory bench facts.engram --placement direct --batch 2048 --ids uniform --cold",
                   "one cold chunk"}},
     .parent = "memory",
     .setup = [](CLI::App& app) -> Action {
       auto options = std::make_shared<Options>();
       app.add_option("file", options->file, "Memory pack (.engram)")->required()->type_name("FILE");
       app.add_option("--placement", options->placement, "auto, ram, mmap, direct or cache")
           ->capture_default_str();
       app.add_option("--memory-budget", options->budget, "Most memory for rows, e.g. 512M")
           ->type_name("BYTES");
       app.add_option("--tokens", options->tokens, "Tokens to read the rows of")
           ->capture_default_str()
           ->check(CLI::Range(uint64_t{1}, uint64_t{1} << 32));
       app.add_option("--batch", options->batch, "Tokens in a batch: 1 is decoding, more a chunk")
           ->capture_default_str()
           ->check(CLI::Range(uint64_t{1}, uint64_t{1} << 20));
       app.add_option("--warm", options->warm, "Tokens read before the clock starts")->capture_default_str();
       app.add_option("--queue-depth", options->depth, "Reads in flight")->capture_default_str();
       app.add_option("--gap-pages", options->gap, "Unwanted pages read along to join two reads")
           ->capture_default_str();
       app.add_option("--ids", options->ids, "uniform, zipf or text")
           ->capture_default_str()
           ->check(CLI::IsMember({"uniform", "zipf", "text"}));
       app.add_option("--zipf", options->exponent, "Exponent of zipf")
           ->capture_default_str()
           ->check(CLI::Range(0.1, 4.0));
       app.add_option("--model", options->model, "text: the model whose tokenizer is used")
           ->type_name("MODEL");
       app.add_option("--text", options->text, "text: the text, or @FILE")->type_name("TEXT");
       app.add_option("--overlay", options->overlays, "Overlay of changed rows (repeatable)")
           ->type_name("FILE");
       app.add_option("--seed", options->seed, "Of uniform and zipf")->capture_default_str();
       app.add_flag("--cold", options->cold, "Drop the file from the file cache first");
       app.add_flag("--dedupe", options->dedupe, "Sort and deduplicate ids before they are asked for");
       add_common_options(app, options->common);
       return [options] { return run(*options); };
     }});

}  // namespace
}  // namespace mneme::cli::memory_bench_verb
