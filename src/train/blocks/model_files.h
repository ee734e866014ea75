// Models between the trainer and files. What is saved is a folder that the engine runs as it is: config.json
// with the whole ModelConfig under "mneme_config", model.safetensors in f32 with Hugging Face names, and each
// memory table as a pack beside them. What is loaded is whatever the engine loads, with its weights as f32.
#pragma once
#include <functional>
#include <memory>
#include <string>

#include "core/file.h"
#include "memory/token_map.h"
#include "mneme/model_config.h"
#include "train/blocks/decoder.h"
#include "train/blocks/parameters.h"

namespace mneme::train {

struct TrainedModel {
  ModelConfig config;
  Parameters parameters;
};

/// Writes config.json and model.safetensors into a folder, which is made if it does not exist; each file is
/// replaced atomically. Throws Error(io), Error(not_found) for parameters that the config does not name.
void save_model(const ModelConfig& config, const Parameters& parameters, const fs::path& folder);

/// A GGUF file or a Hugging Face folder; quantized weights become floats. Throws what open_checkpoint()
/// throws and Error(corrupt) for a weight that is not finite.
TrainedModel load_model(const fs::path& path, at::Device device = at::kCPU);

/// Rows [first, first + count) of a table: f32 [count, head_dim], contiguous on the CPU.
using RowReader = std::function<Tensor(uint64_t first, uint64_t count)>;

/// Writes `folder` / ModelConfig::tables[name].file (which must be a plain file name) as a pack in the row
/// format of the table's config; other formats than f32 round. Rows are asked for in order, some megabytes at
/// a time. `map`: null for raw ids. Throws Error: not_found, mismatch (rows of another table),
/// invalid_argument, io.
void save_table(const ModelConfig& config, const std::string& name, const RowReader& rows,
                const TokenMap* map, const fs::path& folder);
/// The same of a table in memory.
void save_table(const ModelConfig& config, const std::string& name, const RowTable& table,
                const TokenMap* map, const fs::path& folder);

struct LoadedRows {
  EngramTableConfig config;
  RowTable rows;
  std::shared_ptr<const TokenMap> map;  // null with raw ids
};

/// The rows of a pack as f32, all of them. Throws what Pack::open() throws, and Error(corrupt) for a damaged
/// block.
LoadedRows load_table(const fs::path& pack);

/// Gives the same rows to `sink` in order, a few thousand at a time, so that they need not be in memory all
/// at once. Throws also Error(mismatch) unless the pack holds the table that `expected` describes.
void read_table(const fs::path& pack, const EngramTableConfig& expected,
                const std::function<void(uint64_t first, const Tensor& rows)>& sink);

}  // namespace mneme::train
