// `mneme memory rows`: which rows of a table some tokens select. Needs no table and no model, only the
// description; it is how another implementation checks itself against this one.
#include <fmt/format.h>

#include <memory>

#include "cli/input.h"
#include "cli/options.h"
#include "cli/terminal.h"
#include "cli/verb.h"
#include "core/fail.h"
#include "core/file.h"
#include "memory/engram_config.h"
#include "memory/engram_hash.h"

namespace mneme::cli::memory_rows_verb {
namespace {

struct Options {
  CommonOptions common;
  std::string config, ids;
};

constexpr uint64_t kMaxConfigBytes = uint64_t{1} << 20;

// Beyond 2^53 a JSON number loses digits in many readers.
Json strings(std::span<const uint64_t> numbers) {
  Json out = Json::array();
  for (const uint64_t number : numbers) out.push_back(std::to_string(number));
  return out;
}

// A table's row ids of one position, counted from the first row of each head.
std::vector<uint64_t> head_local(const EngramHash& hash, size_t layer, std::span<const uint64_t> rows) {
  std::vector<uint64_t> out(rows.begin(), rows.end());
  for (size_t i = 0; i < out.size(); ++i) out[i] -= hash.offsets(layer)[i];
  return out;
}

void print_layer(const EngramHash& hash, size_t layer, const std::vector<uint64_t>& rows) {
  const size_t width = hash.config().rows_per_token(), heads = hash.config().heads;
  print(fmt::format("layer {}\n  multipliers {}\n", hash.config().layer_ids[layer],
                    fmt::join(hash.multipliers(layer), " ")));
  for (size_t order = 0; order < hash.look_back(); ++order)
    print(fmt::format("  {}-gram primes {}\n", order + 2,
                      fmt::join(hash.primes(layer).subspan(order * heads, heads), " ")));
  for (size_t t = 0; t * width < rows.size(); ++t) {
    const auto local = head_local(hash, layer, std::span(rows).subspan(t * width, width));
    for (size_t order = 0; order < hash.look_back(); ++order)
      print(fmt::format("  position {} {}-gram {}\n", t, order + 2,
                        fmt::join(std::span(local).subspan(order * heads, heads), " ")));
  }
}

int run(const Options& options) {
  const auto ids = ids_argument(options.ids);
  const EngramTableConfig config =
      engram_table_from_json(read_text_file(options.config, kMaxConfigBytes), options.config);
  const EngramHash hash(config);
  const size_t width = config.rows_per_token();
  Json layers = Json::array(), multipliers = Json::array(), primes = Json::array(), all = Json::array();
  for (size_t layer = 0; layer < hash.layers(); ++layer) {
    const std::vector<uint64_t> rows = hash.rows_of(layer, {}, ids);
    if (!options.common.json) {
      print_layer(hash, layer, rows);
      continue;
    }
    layers.push_back(config.layer_ids[layer]);
    multipliers.push_back(strings(hash.multipliers(layer)));
    primes.push_back(strings(hash.primes(layer)));
    Json& positions = all.emplace_back(Json::array());
    for (size_t t = 0; t < ids.size(); ++t)
      positions.push_back(strings(head_local(hash, layer, std::span(rows).subspan(t * width, width))));
  }
  if (options.common.json)
    print_json({{"layers", layers}, {"multipliers", multipliers}, {"primes", primes}, {"rows", all}});
  return kDone;
}

const VerbRegistration registration(
    {.name = "rows",
     .summary = "Row ids that tokens select in a described table",
     .group = Group::models,
     .examples = {{"mneme memory rows --config engram.json --ids 5,7,11",
                   "rows of each position, layer by layer"},
                  {"mneme memory rows --config engram.json --ids @ids.txt --json",
                   "with multipliers and primes"}},
     .parent = "memory",
     .setup = [](CLI::App& app) -> Action {
       auto options = std::make_shared<Options>();
       app.add_option(
              "--config", options->config,
              "JSON: compressed_vocab, pad_id, seed, layer_ids, max_ngram, heads, base_rows (one for each "
              "order from 2), and what else docs/config.md names for a table")
           ->type_name("FILE")
           ->required();
       app.add_option("--ids", options->ids, "Ids of token classes: 1,2,3 or @FILE or @-")
           ->type_name("LIST")
           ->required();
       add_common_options(app, options->common);
       return [options] { return run(*options); };
     }});

}  // namespace
}  // namespace mneme::cli::memory_rows_verb
