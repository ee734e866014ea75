#include "train/blocks/engram_ids.h"

#include <algorithm>
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

BatchRows touch_rows(const ModelConfig& config, const TableIds& ids, const TouchTable& touch,
                     const Tensor& tokens) {
  BatchRows out;
  std::map<std::pair<std::string, uint32_t>, TouchedRows> seen;
  for (size_t i = 0; i < config.layers.size(); ++i) {
    const auto& memory = config.layers[i].memory;
    if (!memory) continue;
    const auto id = ids.find(memory->table);
    require(id != ids.end(), ErrorCode::not_found, "layer {} reads table \"{}\", which is not loaded", i,
            memory->table);
    const auto [at, fresh] = seen.try_emplace({memory->table, memory->layer_id});
    if (fresh) {
      const EngramIds::Rows rows = id->second.rows(tokens, memory->layer_id);
      at->second = touch(memory->table, rows.ids);
      if (rows.silent.defined()) at->second.silent = rows.silent.to(at->second.rows.device());
    }
    out[memory->table].emplace(static_cast<uint32_t>(i), at->second);
  }
  return out;
}

BatchRows touch_rows(const ModelConfig& config, const TableIds& ids, const RowTables& tables,
                     const Tensor& tokens) {
  const auto touch = [&](const std::string& name, const Tensor& rows) {
    const auto table = tables.find(name);
    require(table != tables.end(), ErrorCode::not_found, "the table \"{}\" is not loaded", name);
    return table->second.touch(rows);
  };
  return touch_rows(config, ids, touch, tokens);
}

void for_leaves(const BatchRows& rows,
                const std::function<void(const std::string& table, const TouchedRows& rows)>& body) {
  for (const auto& [table, layers] : rows)
    for (auto at = layers.begin(); at != layers.end(); ++at) {
      const auto same = [&](const auto& other) { return other.second.rows.is_same(at->second.rows); };
      if (std::none_of(layers.begin(), at, same)) body(table, at->second);
    }
}

}  // namespace mneme::train
