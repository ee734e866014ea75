#include "train/blocks/engram_ids.h"

#include <limits>

#include "core/fail.h"

namespace mneme::train {

EngramIds::EngramIds(const EngramTableConfig& table, std::shared_ptr<const TokenMap> map)
    : hash_(table), map_(std::move(map)) {
  require(
      table.raw_ids == (map_ == nullptr), ErrorCode::invalid_argument, "{}",
      table.raw_ids ? "a table of raw ids has no token map" : "a table needs the token map of the tokenizer");
  require(!map_ || map_->classes() == table.compressed_vocab, ErrorCode::mismatch,
          "the token map has {} classes, but the table was made for {} (compressed_vocab)",
          map_ ? map_->classes() : 0, table.compressed_vocab);
}

TokenClass EngramIds::class_of(int64_t token) const noexcept {
  if (token < 0 || token > std::numeric_limits<TokenId>::max()) return -1;
  const auto id = static_cast<TokenId>(token);
  if (map_) return (*map_)[id];
  return static_cast<uint32_t>(id) < hash_.config().compressed_vocab ? id : -1;
}

EngramIds::Rows EngramIds::rows(const Tensor& tokens, uint32_t layer_id) const {
  require(tokens.dim() == 2 && tokens.scalar_type() == at::kLong && tokens.is_cpu(),
          ErrorCode::invalid_argument, "tokens must be int64 [batch, length] on the CPU");
  const size_t layer = hash_.layer_index(layer_id);
  const Tensor dense = tokens.contiguous();
  const int64_t batch = dense.size(0), length = dense.size(1);
  const int64_t width = hash_.config().rows_per_token();
  const auto* token = dense.data_ptr<int64_t>();
  Rows out{at::empty({batch, length, width}, at::kLong), {}};
  static_assert(sizeof(int64_t) == sizeof(uint64_t));
  auto* rows = reinterpret_cast<uint64_t*>(out.ids.data_ptr<int64_t>());
  std::vector<TokenClass> classes(static_cast<size_t>(length)),
      contexts(static_cast<size_t>(length) * hash_.config().max_ngram);
  for (int64_t b = 0; b < batch; ++b) {
    bool any_silent = false;
    for (int64_t i = 0; i < length; ++i) {
      const TokenClass own = class_of(token[b * length + i]);
      classes[static_cast<size_t>(i)] = own;
      any_silent |= own < 0;
    }
    if (any_silent) {
      if (!out.silent.defined()) out.silent = at::zeros({batch, length}, at::kBool);
      for (int64_t i = 0; i < length; ++i)
        out.silent.data_ptr<bool>()[b * length + i] = classes[static_cast<size_t>(i)] < 0;
    }
    hash_.contexts({}, classes, contexts);
    hash_.rows_of(layer, contexts, {rows + b * length * width, static_cast<size_t>(length * width)});
  }
  return out;
}

TableIds make_table_ids(const ModelConfig& config, std::shared_ptr<const TokenMap> map) {
  TableIds out;
  for (const auto& [name, table] : config.tables)
    out.emplace(name, EngramIds(table, table.raw_ids ? nullptr : map));
  return out;
}

BatchRows touch_rows(const ModelConfig& config, const TableIds& ids, const RowTables& tables,
                     const Tensor& tokens) {
  BatchRows out;
  for (size_t i = 0; i < config.layers.size(); ++i) {
    const auto& memory = config.layers[i].memory;
    if (!memory) continue;
    const auto id = ids.find(memory->table);
    const auto table = tables.find(memory->table);
    require(id != ids.end() && table != tables.end(), ErrorCode::not_found,
            "layer {} reads table \"{}\", which is not loaded", i, memory->table);
    const EngramIds::Rows rows = id->second.rows(tokens, memory->layer_id);
    TouchedRows touched = table->second.touch(rows.ids);
    touched.silent = rows.silent;
    out[memory->table].emplace(static_cast<uint32_t>(i), std::move(touched));
  }
  return out;
}

}  // namespace mneme::train
