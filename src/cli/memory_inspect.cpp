// `mneme memory inspect` and `mneme memory verify`: what a pack holds, and whether all of it is whole.
#include <fmt/format.h>

#include <memory>

#include "cli/options.h"
#include "cli/progress.h"
#include "cli/signals.h"
#include "cli/terminal.h"
#include "cli/verb.h"
#include "core/fail.h"
#include "memory/engram_config.h"
#include "memory/engram_hash.h"
#include "memory/pack.h"
#include "memory/token_map.h"

namespace mneme::cli::memory_inspect_verb {
namespace {

struct Options {
  CommonOptions common;
  std::string file;
};

Json tensors_json(const Pack& pack) {
  Json out = Json::array();
  for (const TensorInfo& info : pack.tensors())
    out.push_back({{"name", info.name},
                   {"type", dtype_info(info.type).name},
                   {"shape", info.shape},
                   {"bytes", info.bytes}});
  return out;
}

int inspect(const Options& options) {
  const auto pack = Pack::open(options.file);
  const PackDescription& d = pack->description();
  const EngramHash hash(d.table);
  Json sums = Json::array(), modules = Json::array();
  for (size_t layer = 0; layer < hash.layers(); ++layer)
    sums.push_back(std::to_string(hash.prime_sum(layer)));
  for (const EngramModuleConfig& module : d.modules) modules.push_back(Json(engram_module_json(module)));
  const Json map = pack->token_map().empty() ? Json() : [&] {
    const TokenMap tokens = TokenMap::parse(pack->token_map(), options.file);
    return Json{
        {"tokens", tokens.tokens()}, {"classes", tokens.classes()}, {"fingerprint", tokens.fingerprint()}};
  }();
  if (options.common.json) {
    print_json({{"table", engram_table_json(d.table)},
                {"prime_sums", sums},
                {"rows", pack->row_count()},
                {"row_bytes", pack->row_bytes()},
                {"rows_per_page", pack->rows_per_page()},
                {"bytes", pack->file_bytes()},
                {"bytes_per_token", uint64_t{d.table.rows_per_token()} * hash.layers() * pack->row_bytes()},
                {"fingerprint", pack->fingerprint()},
                {"source", d.source},
                {"model_hash", d.model_hash},
                {"token_map", map},
                {"modules", modules},
                {"tensors", tensors_json(*pack)}});
    return kDone;
  }
  print(fmt::format("{}: {} rows of {} bytes ({}), {}\n", options.file, pack->row_count(), pack->row_bytes(),
                    to_string(d.table.format), human_bytes(static_cast<double>(pack->file_bytes()))));
  std::vector<std::vector<std::string>> rows{{"layer", "rows", "primes sum up to", "module"}};
  for (size_t layer = 0; layer < hash.layers(); ++layer) {
    const uint32_t id = d.table.layer_ids[layer];
    rows.push_back({std::to_string(id), std::to_string(hash.layer_rows(layer)),
                    std::to_string(hash.prime_sum(layer)), pack->find_module(id) != nullptr ? "yes" : "no"});
  }
  print(table(rows));
  print(fmt::format("orders 2 to {}, {} heads each, {} values a row: a token reads {} rows, {}\n",
                    d.table.max_ngram, d.table.heads, d.table.head_dim,
                    d.table.rows_per_token() * hash.layers(),
                    human_bytes(static_cast<double>(uint64_t{d.table.rows_per_token()} * hash.layers() *
                                                    pack->row_bytes()))));
  if (!map.is_null())
    print(fmt::format("token map: {} tokens in {} classes\n", map["tokens"].get<uint64_t>(),
                      map["classes"].get<uint64_t>()));
  if (!d.source.empty()) print(fmt::format("rows from {}\n", d.source));
  if (!d.model_hash.empty()) print(fmt::format("modules for the model {}\n", d.model_hash));
  print(fmt::format("fingerprint {}\n", pack->fingerprint()));
  return kDone;
}

int verify(const Options& options) {
  const InterruptScope interrupt;
  const auto pack = Pack::open(options.file);
  if (!pack->token_map().empty()) TokenMap::parse(pack->token_map(), options.file);
  Progress bar("Verifying", Progress::Unit::bytes, !options.common.quiet);
  pack->verify([&](uint64_t done, uint64_t total) {
    require(!interrupt.interrupted(), ErrorCode::cancelled, "interrupted");
    bar.update(done, total);
  });
  bar.clear();
  if (options.common.json)
    print_json({{"ok", true}, {"bytes", pack->file_bytes()}, {"fingerprint", pack->fingerprint()}});
  else
    print(fmt::format("{}: whole, {} verified\n", options.file,
                      human_bytes(static_cast<double>(pack->file_bytes()))));
  return kDone;
}

Action set_up(CLI::App& app, int (*action)(const Options&)) {
  auto options = std::make_shared<Options>();
  app.add_option("file", options->file, "Memory pack (.engram)")->required()->type_name("FILE");
  add_common_options(app, options->common);
  return [options, action] { return action(*options); };
}

const VerbRegistration inspect_registration(
    {.name = "inspect",
     .summary = "Show what a memory pack holds",
     .group = Group::models,
     .examples = {{"mneme memory inspect facts.engram", "rows, layers, modules, fingerprint"}},
     .parent = "memory",
     .setup = [](CLI::App& app) -> Action { return set_up(app, inspect); }});

const VerbRegistration verify_registration(
    {.name = "verify",
     .summary = "Read all of a memory pack and compare every checksum",
     .group = Group::models,
     .examples = {{"mneme memory verify facts.engram", "exit code 1 if a byte is wrong"}},
     .parent = "memory",
     .setup = [](CLI::App& app) -> Action { return set_up(app, verify); }});

}  // namespace
}  // namespace mneme::cli::memory_inspect_verb
