// A model's memory tables at run time: what stands between its config, which describes them, and the packs,
// which hold their rows. Packs come in by --memory, or by the file that the config names; a pack either
// brings modules of its own, which are inserted before the mixers of their layers, or serves a table that the
// config has.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "files/tensor_source.h"
#include "memory/engram_hash.h"
#include "memory/token_map.h"
#include "mneme/memory.h"
#include "mneme/model.h"

namespace mneme {

/// A pack as the model needs it. Tests make one without a file.
struct OpenedMemory {
  std::string path;         // for messages
  std::string fingerprint;  // of its content
  EngramTableConfig table;
  std::shared_ptr<const TokenMap> map;  // null with raw_ids
  bool in_place = false;                // no pack: the map is made of the model's tokenizer
  std::shared_ptr<const MemoryTable> rows;

  struct Module {
    size_t layer = 0;  // of the model
    EngramModuleConfig config;
  };
  std::vector<Module> modules;                  // may be empty
  std::shared_ptr<const TensorSource> tensors;  // of the modules, as blk.N.engram_...; null without modules
  std::string model_hash;  // of the model that the modules were made for; empty: not said
};

/// A table that layers read.
struct LoadedTable {
  std::string name, path, fingerprint;
  EngramHash hash;
  std::shared_ptr<const TokenMap> map;  // null with raw_ids
  std::shared_ptr<const MemoryTable> rows;

  /// -1 for a token without a class.
  TokenClass class_of(TokenId id) const noexcept {
    if (map) return (*map)[id];
    return id >= 0 && static_cast<uint32_t>(id) < hash.config().compressed_vocab ? id : -1;
  }
};

/// What attach_memories() found.
struct Memories {
  std::vector<LoadedTable> tables;  // those that a layer reads
  /// For each layer of the model: where its module's tensors are if a pack brings them, else null.
  std::vector<std::shared_ptr<const TensorSource>> module_tensors;
  bool from_packs = false;  // modules were inserted
};

/// Opens packs and the tables that `config` names, inserts the modules that packs bring into `config`, and
/// checks that each pack fits: config, constants, size of rows, and with a tokenizer the vocabulary.
/// `model_path` is the model's file or folder; `model_hash` is called for packs with modules. Throws Error:
/// mismatch (another model, tokenizer or table), not_found (a table without a file), and what opening a pack
/// throws.
Memories attach_memories(ModelConfig& config, const std::string& model_path, const Tokenizer* tokenizer,
                         std::vector<OpenedMemory> packs, const LoadOptions& options,
                         const std::function<std::string()>& model_hash);

/// The packs and descriptions of rows in place that options.memory names; the budget is divided in proportion
/// to their tables.
std::vector<OpenedMemory> open_memories(const LoadOptions& options);

}  // namespace mneme
