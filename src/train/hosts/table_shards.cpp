#include "train/hosts/table_shards.h"

#include <iterator>

#include "core/fail.h"

namespace mneme::train {
namespace {

/// Where ids [first, first + count) lie with one process: its places [begin, begin + rows), which are every
/// size-th id from first + offset on.
struct Stretch {
  int64_t offset = 0, begin = 0, rows = 0;
};

Stretch stretch_of(uint32_t rank, uint32_t size, int64_t first, int64_t count) {
  const int64_t n = size, offset = (int64_t{rank} + n - first % n) % n;
  if (offset >= count) return {};
  return {offset, (first + offset) / n, (count - offset + n - 1) / n};
}

}  // namespace

/// What process 0 wants of the others, as five numbers.
struct TableShards::Request {
  enum What : int64_t { done, read, write, touch };
  int64_t what = done, table = 0, kind = 0, first = 0, count = 0;
};

TableShards::TableShards(const RowOptimiserConfig& config, const Training& training, ProcessGroup& group)
    : config_(config), training_(&training), group_(&group) {}

void TableShards::add(const std::string& name, ShardedTable table) {
  RowOptimiser optimiser(config_, static_cast<uint64_t>(table.own().size(0)), table.head_dim());
  parts_.emplace(name, Part{std::move(table), std::move(optimiser), {}});
}

BatchRows TableShards::touch(const Tensor& tokens) const {
  const auto touch_part = [&](const std::string& name, const Tensor& ids) {
    return parts_.at(name).table.touch(ids);
  };
  return touch_rows(training_->config, training_->ids, touch_part, tokens);
}

double TableShards::collect(const BatchRows& rows) {
  const Tensor squares = at::zeros({1}, at::kDouble);
  for (auto& [name, part] : parts_) part.collected.clear();
  for_leaves(rows, [&](const std::string& name, const TouchedRows& touched) {
    Part& part = parts_.at(name);
    const Tensor gradient =
        touched.rows.grad().defined() ? touched.rows.grad() : at::zeros_like(touched.rows.detach());
    part.collected.push_back(part.table.mean_gradients(touched.ids, gradient));
    squares.add_(part.collected.back().gradients.to(at::kDouble).square().sum().cpu());
  });
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

void TableShards::ask(const Request& r) const {
  group_->broadcast(at::tensor({r.what, r.table, r.kind, r.first, r.count}, at::kLong));
}

TableShards::Request TableShards::hear() const {
  const Tensor numbers = at::zeros({5}, at::kLong);
  group_->broadcast(numbers);
  const auto* n = numbers.data_ptr<int64_t>();
  return {n[0], n[1], n[2], n[3], n[4]};
}

void TableShards::serve(const std::function<void()>& work) {
  const at::NoGradGuard no_graph;
  if (group_->is_first()) {
    work();
    return ask({});
  }
  for (Request request = hear(); request.what != Request::done; request = hear()) {
    if (request.what == Request::read)
      gather(request);
    else if (request.what == Request::write)
      scatter(request, rows_of(request).narrow(0, 0, 0));
    else
      touch(at::empty({0, 1}, at::kLong));
  }
}

BatchRows TableShards::touch_alone(const Tensor& tokens) const {
  ask({.what = Request::touch});
  return touch(tokens);
}

NamedTensors TableShards::here(const std::string& table) const {
  const Part& part = parts_.at(table);
  NamedTensors out = part.optimiser.state();
  out["rows"] = part.table.own();
  return out;
}

/// Tables and kinds travel as their numbers in the order of names, which is the same everywhere.
TableShards::Request TableShards::about(int64_t what, const std::string& table, const std::string& kind,
                                        uint64_t first, uint64_t count) const {
  const NamedTensors kinds = here(table);
  const uint64_t rows = parts_.at(table).table.rows();
  require(first <= rows && count <= rows - first, ErrorCode::invalid_argument,
          "rows {} to {} of the table \"{}\" of {} rows", first, first + count, table, rows);
  return {what, std::distance(parts_.begin(), parts_.find(table)),
          std::distance(kinds.begin(), kinds.find(kind)), static_cast<int64_t>(first),
          static_cast<int64_t>(count)};
}

const std::string& TableShards::table_of(const Request& request) const {
  return std::next(parts_.begin(), request.table)->first;
}

Tensor TableShards::rows_of(const Request& request) const {
  const NamedTensors kinds = here(table_of(request));
  return std::next(kinds.begin(), request.kind)->second;
}

Tensor TableShards::gather(const Request& r) const {
  const Tensor own = rows_of(r);
  const uint32_t size = group_->size();
  const Stretch mine = stretch_of(group_->rank(), size, r.first, r.count);
  std::vector<Tensor> parts(size, own.narrow(0, 0, 0));
  parts[0] = own.narrow(0, mine.begin, mine.rows);
  parts = group_->all_to_all(parts);
  if (!group_->is_first()) return {};
  std::vector<int64_t> shape = own.sizes().vec();
  shape[0] = r.count;
  Tensor out = at::empty(shape, own.options().device(at::kCPU));
  for (uint32_t rank = 0; rank < size; ++rank)
    if (const Stretch part = stretch_of(rank, size, r.first, r.count); part.rows > 0)
      out.slice(0, part.offset, c10::nullopt, size).copy_(parts[rank]);
  return out;
}

void TableShards::scatter(const Request& r, const Tensor& values) const {
  const uint32_t size = group_->size();
  std::vector<Tensor> parts(size, values.narrow(0, 0, 0));
  if (group_->is_first())
    for (uint32_t rank = 0; rank < size; ++rank)
      if (const Stretch part = stretch_of(rank, size, r.first, r.count); part.rows > 0)
        parts[rank] = values.slice(0, part.offset, c10::nullopt, size);
  const Tensor came = group_->all_to_all(parts)[0];
  const Stretch mine = stretch_of(group_->rank(), size, r.first, r.count);
  require(came.size(0) == mine.rows, ErrorCode::internal, "{} rows of a table came instead of {}",
          came.size(0), mine.rows);
  rows_of(r).narrow(0, mine.begin, mine.rows).copy_(came);
}

Tensor TableShards::read(const std::string& table, const std::string& kind, uint64_t first,
                         uint64_t count) const {
  const Request request = about(Request::read, table, kind, first, count);
  ask(request);
  return gather(request);
}

void TableShards::write(const std::string& table, const std::string& kind, uint64_t first,
                        const Tensor& values) {
  const Request request = about(Request::write, table, kind, first, static_cast<uint64_t>(values.size(0)));
  ask(request);
  scatter(request, values.detach().cpu().to(at::kFloat));
}

}  // namespace mneme::train
