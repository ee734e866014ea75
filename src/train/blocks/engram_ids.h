// From tokens to the rows of memory tables, for training: the token map and the hash are the engine's own
// (src/memory); this file only walks a batch. Every sequence of a batch starts a context of its own, so its
// first tokens look back on the pad, and a table's `boundary` holds inside it.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "memory/engram_hash.h"
#include "memory/token_map.h"
#include "mneme/model_config.h"
#include "train/blocks/decoder.h"
#include "train/blocks/row_table.h"

namespace mneme::train {

/// The row ids of one table. Immutable and thread-safe.
class EngramIds {
 public:
  struct Rows {
    Tensor ids;     // int64 [batch, length, rows_per_token]
    Tensor silent;  // bool [batch, length]: tokens without a class, or undefined if there are none
  };

  /// `map` is null for a table of raw ids. Throws Error(mismatch) for a map with another number of classes
  /// than the table, Error(invalid_argument) for a missing or needless one and a table out of range.
  EngramIds(const EngramTableConfig& table, std::shared_ptr<const TokenMap> map);

  const EngramHash& hash() const noexcept { return hash_; }
  const TokenMap* map() const noexcept { return map_.get(); }
  /// tokens int64 [batch, length] on the CPU. Throws Error(not_found) for a layer_id that the table does not
  /// have.
  Rows rows(const Tensor& tokens, uint32_t layer_id) const;

 private:
  TokenClass class_of(int64_t token) const noexcept;

  EngramHash hash_;
  std::shared_ptr<const TokenMap> map_;
};

/// By the tables' names in ModelConfig::tables.
using TableIds = std::map<std::string, EngramIds>;

/// The ids of all tables of a config. `map` is that of the model's tokenizer, or null if all tables are of
/// raw ids.
TableIds make_table_ids(const ModelConfig& config, std::shared_ptr<const TokenMap> map);

/// The rows that the modules of all layers read for this batch, out of `tables`. Layers that read the same
/// rows (equal table and layer_id) share one leaf, in which their gradients add up. Throws Error(not_found)
/// for a table that is not there.
BatchRows touch_rows(const ModelConfig& config, const TableIds& ids, const RowTables& tables,
                     const Tensor& tokens);
/// The same, with touch(table, ids) for the rows of ids.
using TouchTable = std::function<TouchedRows(const std::string& table, const Tensor& ids)>;
BatchRows touch_rows(const ModelConfig& config, const TableIds& ids, const TouchTable& touch,
                     const Tensor& tokens);
/// body(table, rows) for every leaf, once where layers share it.
void for_leaves(const BatchRows& rows,
                const std::function<void(const std::string& table, const TouchedRows& rows)>& body);

}  // namespace mneme::train
