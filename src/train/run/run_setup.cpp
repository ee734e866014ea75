#include "train/run/run_setup.h"

#include <algorithm>

#include "core/checksum.h"
#include "core/fail.h"
#include "core/thread_pool.h"
#include "memory/engram_hash.h"
#include "memory/pack.h"
#include "train/blocks/model_files.h"
#include "train/data/shard_build.h"
#include "train/data/shards.h"
#include "train/optimise/huge_tensor.h"

namespace mneme::train {
namespace {

constexpr double kRowDeviation = 0.02;

bool is_description(const fs::path& path) {
  return path.extension() == ".json" && fs::is_regular_file(path);
}

/// Rows of different tables of one seed differ.
uint64_t table_seed(uint64_t seed, const std::string& name) {
  return seed ^ xxh3(std::as_bytes(std::span(name)));
}

void name_files(ModelConfig& config) {
  for (auto& [name, table] : config.tables) {
    if (table.file.empty()) table.file = name + ".engram";
    require(
        fs::path(table.file).filename() == table.file, ErrorCode::invalid_argument,
        "model.tables.{}.file is \"{}\", but must be a plain file name: it is saved inside each checkpoint",
        name, table.file);
  }
}

at::Device device_of(const std::string& name) {
  try {
    const at::Device device(name);
    require(device.is_cpu() || (device.is_cuda() && at::hasCUDA()), ErrorCode::invalid_argument,
            "device \"{}\" is not there: this libtorch runs on {}", name,
            at::hasCUDA() ? "cpu and cuda" : "cpu");
    return device;
  } catch (const c10::Error&) {
    fail(ErrorCode::invalid_argument, "device is \"{}\", but must be \"cpu\" or \"cuda\"",
         name.substr(0, 64));
  }
}

/// The file whose rows a table starts with, or "" for a model that is only described.
fs::path start_of_table(const RunConfig& run, const std::string& name, const EngramTableConfig& table) {
  if (run.model || is_description(run.model_path)) return {};
  const fs::path folder =
      fs::is_directory(run.model_path) ? run.model_path : fs::absolute(run.model_path).parent_path();
  const fs::path pack = folder / table.file;
  require(
      fs::is_regular_file(pack), ErrorCode::not_found,
      "{} reads the memory table \"{}\", but {} is not there; put its pack in that place, or describe the "
      "model instead to begin with a new table",
      run.model_path.string(), name, pack.string());
  return pack;
}

/// How tokens become rows of the model's tables.
void make_ids(const RunTokenizer& tokenizer, Training& out) {
  const auto& tables = out.config.tables;
  const bool classes =
      std::any_of(tables.begin(), tables.end(), [](const auto& entry) { return !entry.second.raw_ids; });
  if (classes) out.map = std::make_shared<const TokenMap>(TokenMap::build(*tokenizer.tokenizer));
  for (const auto& [name, table] : tables)
    if (!table.raw_ids)
      require(out.map->classes() == table.compressed_vocab, ErrorCode::mismatch,
              "model.tables.{}.compressed_vocab is {}, but the tokenizer has {} classes", name,
              table.compressed_vocab, out.map->classes());
  out.ids = make_table_ids(out.config, out.map);
}

/// The tables of a run of one process, new ones at their first values.
void make_tables(const RunConfig& run, at::Device device, Training& out) {
  for (const auto& [name, table] : out.config.tables) {
    const uint64_t count = out.ids.at(name).hash().rows();
    RowTable rows = start_of_table(run, name, table).empty()
                        ? RowTable(count, table.head_dim, table_seed(run.seed, name), kRowDeviation)
                        : RowTable(huge_zeros({static_cast<int64_t>(count), int64_t{table.head_dim}}));
    if (!device.is_cpu()) rows = RowTable(rows.values().to(device));
    out.row_optimisers.emplace(std::piecewise_construct, std::forward_as_tuple(name),
                               std::forward_as_tuple(run.optimiser.rows, rows.rows(), rows.head_dim()));
    out.tables.emplace(name, std::move(rows));
  }
}

std::vector<std::string> strings(const std::vector<fs::path>& paths) {
  std::vector<std::string> out;
  for (const fs::path& path : paths) out.push_back(path.string());
  return out;
}

bool is_shards(const fs::path& path) {
  return fs::is_regular_file(path / "shards.json");
}

/// The folder of shards that `paths` are or become.
fs::path shards_of(const std::vector<fs::path>& paths, const fs::path& folder, const char* field,
                   const Tokenizer& tokenizer, const ShardOptions& options, ProcessGroup& group) {
  const bool ready = std::any_of(paths.begin(), paths.end(), is_shards);
  require(!ready || paths.size() == 1, ErrorCode::invalid_argument,
          "{} names a folder of shards among others; name one folder of shards, or texts alone", field);
  if (ready) return paths.front();
  if (group.is_first()) build_shards(strings(paths), tokenizer, folder, options);
  group.barrier();
  if (!group.is_first()) build_shards(strings(paths), tokenizer, folder, options);
  return folder;
}

std::unique_ptr<DataOrder> order_of(const fs::path& folder, Split split, const RunConfig& run, uint32_t vocab,
                                    const RunTokenizer& tokenizer, DataOrder::Order order) {
  ShardSet shards = ShardSet::open(folder, split);
  shards.require_tokenizer(tokenizer.fingerprint, tokenizer_path(run).string());
  require(shards.vocab() <= vocab, ErrorCode::mismatch, "{} holds ids up to {}, but model.vocab is {}",
          folder.string(), shards.vocab(), vocab);
  return std::make_unique<DataOrder>(std::move(shards), run.data.length, run.seed, order);
}

}  // namespace

fs::path tokenizer_path(const RunConfig& run) {
  if (!run.tokenizer.empty()) return run.tokenizer;
  require(
      !run.model_path.empty() && !is_description(run.model_path), ErrorCode::invalid_argument,
      "tokenizer is missing: name a tokenizer.json (`mneme tokenizer train` makes one) or a checkpoint that "
      "has one");
  return run.model_path;
}

std::unique_ptr<Training> make_training(const RunConfig& run, const RunTokenizer& tokenizer, bool tables) {
  const at::Device device = device_of(run.device);
  auto out = std::make_unique<Training>();
  if (run.model || is_description(run.model_path)) {
    out->config = run.model ? *run.model : ModelConfig::from_json(read_text_file(run.model_path));
    name_files(out->config);
    out->parameters = Parameters::create(out->config, run.seed, device);
  } else {
    TrainedModel loaded = load_model(run.model_path, device);
    out->config = std::move(loaded.config);
    out->parameters = std::move(loaded.parameters);
    name_files(out->config);
  }
  require(out->config.context == 0 || run.data.length <= out->config.context, ErrorCode::invalid_argument,
          "data.length is {}, but the model's context is {}", run.data.length, out->config.context);
  tokenizer.require_fits(out->config.vocab, tokenizer_path(run));
  make_ids(tokenizer, *out);
  if (tables) make_tables(run, device, *out);
  out->optimiser = std::make_unique<Optimiser>(run.optimiser, out->parameters, out->config.tied);
  out->decoder = std::make_unique<Decoder>(out->config, out->parameters);
  return out;
}

std::unique_ptr<TableShards> make_table_shards(const RunConfig& run, const Training& training,
                                               ProcessGroup& group) {
  const at::Device device = device_of(run.device);
  auto out = std::make_unique<TableShards>(run.optimiser.rows, training, group);
  for (const auto& [name, table] : training.config.tables) {
    const uint64_t rows = training.ids.at(name).hash().rows();
    ShardedTable part =
        start_of_table(run, name, table).empty()
            ? ShardedTable(rows, table.head_dim, table_seed(run.seed, name), kRowDeviation, group)
            : ShardedTable(huge_zeros({static_cast<int64_t>(own_rows(rows, group)), int64_t{table.head_dim}}),
                           rows, group);
    if (!device.is_cpu()) part = ShardedTable(part.own().to(device), rows, group);
    out->add(name, std::move(part));
  }
  return out;
}

void load_tables(const RunConfig& run, const Training& training, TableRows& rows) {
  for (const auto& [name, table] : training.config.tables) {
    const fs::path pack = start_of_table(run, name, table);
    if (pack.empty()) continue;
    if (training.map && !table.raw_ids) {
      const std::vector<std::byte> map = training.map->serialize();
      const auto opened = Pack::open(pack);
      require(std::ranges::equal(opened->token_map(), map), ErrorCode::mismatch,
              "{} was made with another tokenizer than {}: the same text reads other rows", pack.string(),
              tokenizer_path(run).string());
    }
    read_table(pack, table, [&, &name = name](uint64_t first, const Tensor& values) {
      rows.write(name, "rows", first, values);
    });
  }
}

RunData open_data(const RunConfig& run, const RunTokenizer& tokenizer, uint32_t vocab, const fs::path& out,
                  bool resumed, ProcessGroup& group,
                  const std::function<bool(uint64_t done, uint64_t total)>& progress) {
  ShardOptions options;
  options.documents.field = run.data.text_field;
  options.validation = run.data.hold_out;
  options.threads = run.threads > 0 ? static_cast<int>(run.threads) : available_cores();
  options.rebuild = !resumed;
  options.progress = progress;
  const fs::path train =
      shards_of(run.data.train, out / "shards" / "train", "data.train", *tokenizer.tokenizer, options, group);
  RunData data;
  data.train = order_of(train, Split::train, run, vocab, tokenizer, DataOrder::Order::shuffled);
  if (!run.data.validation.empty()) {
    options.validation = 0;
    const fs::path folder = shards_of(run.data.validation, out / "shards" / "validation", "data.validation",
                                      *tokenizer.tokenizer, options, group);
    data.validation = order_of(folder, Split::train, run, vocab, tokenizer, DataOrder::Order::sequential);
  } else if (run.data.hold_out > 0) {
    data.validation = order_of(train, Split::validation, run, vocab, tokenizer, DataOrder::Order::sequential);
  }
  data.hashes = {{"train", data.train->shards().hash()},
                 {"validation", data.validation ? data.validation->shards().hash() : ""},
                 {"tokenizer", tokenizer.fingerprint}};
  return data;
}

}  // namespace mneme::train
