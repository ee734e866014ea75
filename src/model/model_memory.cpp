#include "model/model_memory.h"

#include <algorithm>
#include <set>

#include "core/fail.h"
#include "memory/engram_config.h"
#include "memory/pack.h"
#include "memory/rows_in_place.h"
#include "model/tensor_names.h"
#include "simd/rows.h"

namespace mneme {
namespace {

/// The same rows: everything but where the file is.
bool same_table(EngramTableConfig a, const EngramTableConfig& b) {
  a.file = b.file;
  return a == b;
}

std::string unused_name(const ModelConfig& config) {
  for (int i = 1;; ++i) {
    std::string name = i == 1 ? "memory" : fmt::format("memory{}", i);
    if (!config.tables.contains(name)) return name;
  }
}

void check_rows(const OpenedMemory& pack, const EngramHash& hash) {
  const EngramTableConfig& table = hash.config();
  require(pack.rows->rows() == hash.rows(), ErrorCode::mismatch,
          "{} has {} rows, but its config makes {}; the file belongs to another table", pack.path,
          pack.rows->rows(), hash.rows());
  const uint32_t row_bytes = mneme::row_bytes(table.format, table.head_dim);
  require(pack.rows->row_bytes() == row_bytes, ErrorCode::mismatch,
          "{} has rows of {} bytes, but {} values as {} take {}", pack.path, pack.rows->row_bytes(),
          table.head_dim, to_string(table.format), row_bytes);
}

void check_vocabulary(const OpenedMemory& pack, const ModelConfig& config, const Tokenizer* tokenizer) {
  if (pack.table.raw_ids) {
    require(pack.table.compressed_vocab <= config.vocab, ErrorCode::mismatch,
            "{} hashes {} token ids, but this model has {} tokens; use a pack made for this model", pack.path,
            pack.table.compressed_vocab, config.vocab);
    return;
  }
  require(pack.map != nullptr, ErrorCode::corrupt, "{} has no token map, and its config does not say raw_ids",
          pack.path);
  require(pack.map->classes() == pack.table.compressed_vocab, ErrorCode::mismatch,
          "{} maps tokens to {} classes, but its config says {}", pack.path, pack.map->classes(),
          pack.table.compressed_vocab);
  if (tokenizer != nullptr) return pack.map->check_tokenizer(*tokenizer, pack.path);
  require(pack.map->tokens() <= config.vocab, ErrorCode::mismatch,
          "{} was made for a tokenizer of {} tokens, but this model has {}; use a pack made for this model",
          pack.path, pack.map->tokens(), config.vocab);
}

void check_module_tensors(const OpenedMemory& pack, const OpenedMemory::Module& module,
                          const ModelConfig& config) {
  for (const ExpectedTensor& expected :
       expected_engram_tensors(module.config, pack.table.embedding_dim(), config.d_model)) {
    const std::string name = fmt::format("blk.{}.{}", module.layer, expected.name);
    const TensorInfo* found = pack.tensors == nullptr ? nullptr : pack.tensors->find(name);
    require(found != nullptr, ErrorCode::corrupt, "{} carries a module for layer {}, but no tensor {}",
            pack.path, module.layer, name);
    require(found->shape == expected.shape, ErrorCode::mismatch,
            "{}: tensor {} has shape [{}], but this model asks for [{}]; use a pack made for this model",
            pack.path, name, fmt::join(found->shape, ", "), fmt::join(expected.shape, ", "));
  }
}

class Attacher {
 public:
  Attacher(ModelConfig& config, const Tokenizer* tokenizer, const LoadOptions& options)
      : config_(config), tokenizer_(tokenizer), options_(options) {
    out_.module_tensors.resize(config.layers.size());
  }

  void add_pack(OpenedMemory pack, const std::function<std::string()>& model_hash) {
    for (const auto& [name, table] : config_.tables) {
      if (served_.contains(name) || !same_table(table, pack.table)) continue;
      return serve(name, std::move(pack));
    }
    require(!pack.modules.empty(), ErrorCode::mismatch,
            "{} carries rows but no modules, and this model's config names no table like it; use a pack with "
            "modules, or a model made with this table",
            pack.path);
    insert(std::move(pack), model_hash);
  }

  /// The tables that layers read and no pack serves: from the files that the config names.
  void open_named(const fs::path& folder) {
    for (const LayerConfig& layer : config_.layers) {
      if (!layer.memory || served_.contains(layer.memory->table)) continue;
      const std::string name = layer.memory->table;
      const EngramTableConfig table = config_.tables.at(name);
      require(!table.file.empty(), ErrorCode::not_found,
              "the model reads the memory table \"{}\", which is in a file of its own; name it with --memory "
              "PACK",
              name);
      LoadOptions options = options_;
      options.memory = {{folder / table.file, Placement::automatic}};
      OpenedMemory pack = std::move(open_memories(options).front());
      require(same_table(table, pack.table), ErrorCode::mismatch,
              "{} holds another table than the model's config describes as \"{}\"", pack.path, name);
      serve(name, std::move(pack));
    }
  }

  Memories take() { return std::move(out_); }

 private:
  void serve(const std::string& name, OpenedMemory pack) {
    if (pack.in_place && !pack.table.raw_ids) {
      require(tokenizer_ != nullptr, ErrorCode::not_found,
              "{} hashes token classes, which are made of the model's tokenizer, and this model has none; "
              "build a pack from it",
              pack.path);
      pack.map = std::make_shared<const TokenMap>(TokenMap::build(*tokenizer_));
    }
    check_vocabulary(pack, config_, tokenizer_);
    EngramHash hash(config_.tables.at(name));
    check_rows(pack, hash);
    served_.insert(name);
    out_.tables.push_back({name, pack.path, pack.fingerprint, std::move(hash), pack.map, pack.rows});
  }

  void insert(OpenedMemory pack, const std::function<std::string()>& model_hash) {
    const std::string name = unused_name(config_);
    config_.tables.emplace(name, pack.table);
    for (const OpenedMemory::Module& module : pack.modules) {
      require(module.layer < config_.layers.size(), ErrorCode::mismatch,
              "{} carries a module for layer {}, but this model has layers 0 to {}", pack.path, module.layer,
              config_.layers.size() - 1);
      LayerConfig& layer = config_.layers[module.layer];
      require(!layer.memory, ErrorCode::mismatch,
              "{} carries a module for layer {}, which has a memory already; a layer can have one", pack.path,
              module.layer);
      check_module_tensors(pack, module, config_);
      layer.memory = module.config;
      layer.memory->table = name;
      out_.module_tensors[module.layer] = pack.tensors;
    }
    if (!pack.model_hash.empty()) {
      const std::string mine = model_hash();
      require(mine == pack.model_hash, ErrorCode::mismatch,
              "{} was made for another model (hash {}..., this one is {}...)", pack.path,
              pack.model_hash.substr(0, 12), mine.substr(0, 12));
    }
    out_.from_packs = true;
    serve(name, std::move(pack));
  }

  ModelConfig& config_;
  const Tokenizer* tokenizer_;
  const LoadOptions& options_;
  std::set<std::string> served_;
  Memories out_;
};

}  // namespace

namespace {

// A memory before its rows are opened.
struct Found {
  std::shared_ptr<const Pack> pack;     // or
  std::unique_ptr<RowsInPlace> shards;  // one of them
  uint64_t bytes = 0;
};

Found find_memory(const fs::path& path) {
  Found out;
  uint64_t rows = 0;
  const EngramTableConfig* table = nullptr;
  if (names_rows_in_place(path)) {
    out.shards = std::make_unique<RowsInPlace>(open_rows_in_place(path));
    rows = out.shards->row_count;
    table = &out.shards->description.table;
  } else {
    out.pack = Pack::open(path);
    rows = out.pack->row_count();
    table = &out.pack->description().table;
  }
  out.bytes = rows * mneme::row_bytes(table->format, table->head_dim);
  return out;
}

OpenedMemory open_memory(const Found& found, const MemoryOptions& how) {
  OpenedMemory memory;
  memory.in_place = found.shards != nullptr;
  const PackDescription& description =
      memory.in_place ? found.shards->description : found.pack->description();
  memory.table = description.table;
  memory.model_hash = description.model_hash;
  for (const EngramModuleConfig& module : description.modules)
    memory.modules.push_back({module.layer_id, module});  // layer_id counts the model's layers from 0
  if (memory.in_place) {
    memory.path = found.shards->path.string();
    memory.fingerprint = found.shards->rows.fingerprint;
    memory.tensors = found.shards->tensors;
    memory.rows = MemoryTable::open(found.shards->rows, how);
    return memory;
  }
  const Pack& pack = *found.pack;
  memory.path = pack.path().string();
  memory.fingerprint = pack.fingerprint();
  if (!memory.table.raw_ids)
    memory.map = std::make_shared<const TokenMap>(TokenMap::parse(pack.token_map(), memory.path));
  memory.tensors = found.pack;
  memory.rows = MemoryTable::open_pack(pack.path(), how);
  return memory;
}

}  // namespace

std::vector<OpenedMemory> open_memories(const LoadOptions& options) {
  std::vector<Found> found;
  double total = 0;
  for (const MemoryPackOptions& asked : options.memory) {
    found.push_back(find_memory(asked.path));
    total += static_cast<double>(found.back().bytes);
  }
  std::vector<OpenedMemory> out;
  for (size_t i = 0; i < found.size(); ++i) {
    MemoryOptions how;
    how.placement = options.memory[i].placement;
    how.overlays = options.memory[i].overlays;
    if (options.memory_budget > 0) {
      const double share = static_cast<double>(found[i].bytes) / total;
      how.budget_bytes =
          std::max<uint64_t>(1, static_cast<uint64_t>(static_cast<double>(options.memory_budget) * share));
    }
    out.push_back(open_memory(found[i], how));
  }
  return out;
}

Memories attach_memories(ModelConfig& config, const std::string& model_path, const Tokenizer* tokenizer,
                         std::vector<OpenedMemory> packs, const LoadOptions& options,
                         const std::function<std::string()>& model_hash) {
  Attacher attacher(config, tokenizer, options);
  for (OpenedMemory& pack : packs) attacher.add_pack(std::move(pack), model_hash);
  std::error_code error;
  const fs::path path(model_path);
  attacher.open_named(fs::is_directory(path, error) ? path : path.parent_path());
  config.validate();
  return attacher.take();
}

}  // namespace mneme
