// `mneme memory build`: a pack from the tensors of a checkpoint, or from random numbers for benchmarks.
// Interrupted work is continued by the same command.
#include <fmt/format.h>

#include <memory>

#include "cli/input.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "cli/signals.h"
#include "cli/store.h"
#include "cli/terminal.h"
#include "cli/verb.h"
#include "core/fail.h"
#include "core/file.h"
#include "core/json_fields.h"
#include "files/gguf.h"
#include "files/safetensors.h"
#include "memory/engram_config.h"
#include "memory/pack.h"
#include "memory/row_source.h"
#include "memory/token_map.h"
#include "model/checkpoint.h"
#include "model/load_tokenizer.h"

namespace mneme::cli::memory_build_verb {
namespace {

constexpr uint64_t kMaxConfigBytes = uint64_t{1} << 20;

struct Options {
  CommonOptions common;
  std::string out, config, from, weight, scale, tokenizer, modules, model_hash;
  uint64_t seed = 0;
  bool random = false, restart = false;
};

// The config: a table's JSON, or {"table": ..., "modules": [...]}. With a tokenizer, compressed_vocab may be
// left out.
PackDescription read_description(const Options& options, const TokenMap* map) {
  Json document = parse_json(read_text_file(options.config, kMaxConfigBytes), options.config);
  require(document.is_object(), ErrorCode::corrupt, "{}: a JSON object is wanted", options.config);
  Json& table = document.contains("table") ? document["table"] : document;
  if (map != nullptr && table.is_object() && !table.contains("compressed_vocab"))
    table["compressed_vocab"] = map->classes();
  PackDescription out;
  if (!document.contains("table")) {
    out.table = engram_table_from_json(document.dump(), options.config);
    return out;
  }
  JsonFields fields(document, options.config, ErrorCode::invalid_argument);
  out.table = read_engram_table(fields.object("table"));
  if (const Json* const modules = fields.find("modules"); modules != nullptr && modules->is_array())
    for (const Json& module : *modules)
      out.modules.push_back(
          read_engram_module(JsonFields(module, options.config + ": modules", ErrorCode::invalid_argument)));
  fields.finish();
  return out;
}

TokenMap map_of(const std::string& model) {
  const Checkpoint checkpoint = open_checkpoint(resolve_model(model));
  const auto tokenizer = load_tokenizer(checkpoint);
  require(tokenizer != nullptr, ErrorCode::not_found, "{} has no tokenizer", model);
  return TokenMap::build(*tokenizer);
}

std::unique_ptr<TensorSource> open_source(const std::string& path) {
  if (fs::is_directory(path)) return open_safetensors_folder(path);
  if (path.ends_with(".gguf")) return GgufFile::open(path);
  return open_safetensors(path);
}

void check_usage(const Options& options) {
  if (options.random == !options.from.empty())
    throw UsageError("rows come from --from CHECKPOINT or from --random SEED: name one of them");
  if (!options.from.empty() && options.weight.empty())
    throw UsageError("--from needs --weight NAME, the tensor of the rows ({layer} stands for a layer id)");
}

int run(Options& options) {
  check_usage(options);
  std::unique_ptr<TokenMap> map;
  if (!options.tokenizer.empty()) map = std::make_unique<TokenMap>(map_of(options.tokenizer));
  PackToWrite pack;
  pack.description = read_description(options, map.get());
  const EngramTableConfig& table = pack.description.table;
  if (!table.raw_ids) {
    if (map == nullptr)
      throw UsageError(
          "the table hashes token classes: --tokenizer MODEL names the model whose tokenizer makes them");
    require(
        map->classes() == table.compressed_vocab, ErrorCode::mismatch,
        "{} says {} token classes, but the tokenizer of {} has {}; the table belongs to another tokenizer",
        options.config, table.compressed_vocab, options.tokenizer, map->classes());
    pack.token_map = map->serialize();
  }
  const EngramHash hash(table);
  std::unique_ptr<TensorSource> source, modules;
  if (options.random) {
    pack.rows = random_rows(hash, options.seed);
    pack.description.source = fmt::format("random, seed {}", options.seed);
  } else {
    source = open_source(options.from);
    pack.rows = checkpoint_rows(hash, *source, {options.weight, options.scale});
    pack.description.source = fmt::format("{}: {}", options.from, options.weight);
  }
  if (!options.modules.empty()) {
    modules = open_source(options.modules);
    for (const TensorInfo& info : modules->tensors()) pack.tensors.push_back({info, modules->data(info)});
  }
  pack.description.model_hash = options.model_hash;
  if (options.restart) discard_partial_pack(options.out);

  const InterruptScope interrupt;
  Progress bar("Building", Progress::Unit::bytes, !options.common.quiet);
  pack.progress = [&](uint64_t done, uint64_t total) {
    require(!interrupt.interrupted(), ErrorCode::cancelled, "interrupted");
    bar.update(done, total);
  };
  uint64_t resumed = 0;
  try {
    resumed = write_pack(options.out, pack);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::cancelled) throw;
    bar.clear();
    if (!options.common.quiet)
      fmt::print(stderr, "mneme: stopped; the same command goes on from here ({}.partial)\n", options.out);
    return kInterrupted;
  }
  bar.clear();
  const auto written = Pack::open(options.out);
  if (options.common.json)
    print_json({{"rows", written->row_count()},
                {"row_bytes", written->row_bytes()},
                {"bytes", written->file_bytes()},
                {"resumed_rows", resumed},
                {"fingerprint", written->fingerprint()}});
  else
    print(fmt::format("{}: {} rows of {} bytes, {}{}\n", options.out, written->row_count(),
                      written->row_bytes(), human_bytes(static_cast<double>(written->file_bytes())),
                      resumed > 0 ? fmt::format(" ({} rows were there already)", resumed) : ""));
  return kDone;
}

const VerbRegistration registration(
    {.name = "build",
     .summary = "Make a memory pack from a checkpoint's rows, or random for benchmarks",
     .group = Group::models,
     .examples =
         {{"mneme memory build facts.engram --config table.json --random 1", "random rows"},
          {"mneme memory build facts.engram --config table.json --tokenizer model.gguf --from folder/ "
           "--weight model.layers.{layer}.engram.weight --scale model.layers.{layer}.engram.scale",
           "rows of a released checkpoint"}},
     .parent = "memory",
     .setup = [](CLI::App& app) -> Action {
       auto options = std::make_shared<Options>();
       app.add_option("out", options->out, "Pack to write (.engram)")->required()->type_name("OUT");
       app.add_option("--config", options->config, "JSON of the table, or of table and modules")
           ->required()
           ->type_name("FILE");
       auto* const random =
           app.add_option("--random", options->seed, "Random rows from this seed")->type_name("SEED");
       app.add_option("--from", options->from, "Hugging Face folder, .safetensors or .gguf with the rows")
           ->type_name("CHECKPOINT");
       app.add_option("--weight", options->weight, "Tensor of the rows; {layer} stands for a layer id")
           ->type_name("NAME");
       app.add_option("--scale", options->scale, "Tensor of their scales, if they are apart")
           ->type_name("NAME");
       app.add_option("--tokenizer", options->tokenizer, "Model whose tokenizer makes the token classes")
           ->type_name("MODEL");
       app.add_option("--modules", options->modules, "Tensors of the modules: a .safetensors or .gguf")
           ->type_name("FILE");
       app.add_option("--model-hash", options->model_hash, "Hash of the model that the modules were made for")
           ->type_name("SHA256");
       app.add_flag("--restart", options->restart, "Do not go on with interrupted work");
       add_common_options(app, options->common);
       return [options, random] {
         options->random = random->count() > 0;
         return run(*options);
       };
     }});

}  // namespace
}  // namespace mneme::cli::memory_build_verb
