#include "train/hosts/table_shards.h"

#include "core/fail.h"

namespace mneme::train {
namespace {

/// What each process should hold of process 0's tensor [rows, ...], whose extents are those of `like` but for
/// the first.
Tensor scatter(const Tensor& whole, uint64_t rows, ProcessGroup& group) {
  std::vector<Tensor> parts(group.size(), whole.narrow(0, 0, 0));
  if (group.is_first())
    for (uint32_t rank = 0; rank < group.size(); ++rank)
      parts[rank] = whole.slice(0, rank, c10::nullopt, group.size());
  Tensor own = group.all_to_all(parts)[0];
  require(static_cast<uint64_t>(own.size(0)) == own_rows(rows, group), ErrorCode::internal,
          "{} rows of a table came instead of {}", own.size(0), own_rows(rows, group));
  return own.clone();
}

void restart(Training& training, const std::string& name, const RowOptimiserConfig& config, Tensor values) {
  const auto rows = static_cast<uint64_t>(values.size(0));
  const auto head_dim = static_cast<uint32_t>(values.size(1));
  training.tables.insert_or_assign(name, RowTable(std::move(values)));
  training.row_optimisers.insert_or_assign(name, RowOptimiser(config, rows, head_dim));
}

}  // namespace

TableShards::TableShards(const RowOptimiserConfig& config, Training& training, ProcessGroup& group)
    : config_(config), group_(&group) {
  const at::NoGradGuard no_graph;
  for (auto& [name, whole] : training.tables) {
    const uint64_t rows = whole.rows();
    ShardedTable table(scatter(whole.values(), rows, group), rows, group);
    RowOptimiser optimiser(config, own_rows(rows, group), table.head_dim());
    NamedTensors state;
    for (const auto& [kind, tensor] : training.row_optimisers.at(name).state())
      state[kind] = scatter(tensor, rows, group);
    optimiser.restore(state);
    parts_.emplace(name, Part{std::move(table), std::move(optimiser), {}});
  }
  release(training);
}

BatchRows TableShards::touch(const Training& training, const Tensor& tokens) const {
  BatchRows out;
  for (size_t i = 0; i < training.config.layers.size(); ++i) {
    const auto& memory = training.config.layers[i].memory;
    if (!memory) continue;
    const EngramIds::Rows rows = training.ids.at(memory->table).rows(tokens, memory->layer_id);
    TouchedRows touched = parts_.at(memory->table).table.touch(rows.ids);
    touched.silent = rows.silent;
    out[memory->table].emplace(static_cast<uint32_t>(i), std::move(touched));
  }
  return out;
}

double TableShards::collect(const BatchRows& rows) {
  const Tensor squares = at::zeros({1}, at::kDouble);
  for (auto& [name, part] : parts_) part.collected.clear();
  for (const auto& [name, layers] : rows)
    for (const auto& [layer, touched] : layers) {
      Part& part = parts_.at(name);
      const Tensor gradient =
          touched.rows.grad().defined() ? touched.rows.grad() : at::zeros_like(touched.rows.detach());
      part.collected.push_back(part.table.mean_gradients(touched.ids, gradient));
      squares.add_(part.collected.back().gradients.to(at::kDouble).square().sum());
    }
  group_->all_reduce_sum(squares);
  return squares.item<double>();
}

void TableShards::update(double lr, double gradient_scale) {
  for (auto& [name, part] : parts_) {
    for (const OwnedGradients& owned : part.collected)
      part.optimiser.update(part.table.own(), owned.places, owned.gradients, lr, gradient_scale);
    part.collected.clear();
  }
}

void TableShards::gather(Training& training) const {
  const at::NoGradGuard no_graph;
  for (const auto& [name, part] : parts_) {
    const uint64_t rows = part.table.rows();
    Tensor values = gather_parts(part.table.own(), rows, *group_);
    if (group_->is_first()) restart(training, name, config_, values);
    NamedTensors state;
    for (const auto& [kind, tensor] : part.optimiser.state())
      state[kind] = gather_parts(tensor, rows, *group_);
    if (group_->is_first()) training.row_optimisers.at(name).restore(state);
  }
}

void TableShards::release(Training& training) const {
  for (const auto& [name, part] : parts_)
    restart(training, name, config_, at::empty({0, static_cast<int64_t>(part.table.head_dim())}));
}

}  // namespace mneme::train
