#include "train/hosts/sharded_table.h"

#include "core/checked.h"
#include "core/fail.h"
#include "train/optimise/huge_tensor.h"

namespace mneme::train {
namespace {

Tensor initial_part(uint64_t rows, uint32_t head_dim, uint64_t seed, double deviation,
                    const ProcessGroup& group) {
  require(rows > 0 && head_dim > 0, ErrorCode::invalid_argument, "a table of {} rows of {} values", rows,
          head_dim);
  const uint64_t count = own_rows(rows, group);
  checked_mul(checked_mul(count, head_dim, "table"), sizeof(float), "table");
  Tensor own = huge_zeros({static_cast<int64_t>(count), static_cast<int64_t>(head_dim)});
  auto* values = own.data_ptr<float>();
  at::parallel_for(0, static_cast<int64_t>(count), 1024, [&](int64_t begin, int64_t end) {
    for (int64_t place = begin; place < end; ++place)
      initial_row(seed, static_cast<uint64_t>(place) * group.size() + group.rank(), deviation,
                  {values + place * head_dim, head_dim});
  });
  return own;
}

/// Rows of `values` from part 0, then part 1, ... added up by `where`, in that order.
Tensor add_up(const Tensor& values, const Tensor& where, int64_t distinct) {
  const int64_t width = values.size(1);
  Tensor sums = at::zeros({distinct, width}, at::kFloat);
  const float* from = values.data_ptr<float>();
  const int64_t* to = where.data_ptr<int64_t>();
  float* sum = sums.data_ptr<float>();
  for (int64_t i = 0; i < values.size(0); ++i)
    for (int64_t j = 0; j < width; ++j) sum[to[i] * width + j] += from[i * width + j];
  return sums;
}

}  // namespace

uint64_t own_rows(uint64_t rows, const ProcessGroup& group) {
  return rows / group.size() + (group.rank() < rows % group.size() ? 1 : 0);
}

Tensor take_own(const Tensor& whole, const ProcessGroup& group) {
  return whole.slice(0, group.rank(), c10::nullopt, group.size()).contiguous();
}

ShardedTable::ShardedTable(uint64_t rows, uint32_t head_dim, uint64_t seed, double deviation,
                           ProcessGroup& group)
    : group_(&group), rows_(rows), own_(initial_part(rows, head_dim, seed, deviation, group)) {}

ShardedTable::ShardedTable(Tensor own, uint64_t rows, ProcessGroup& group)
    : group_(&group), rows_(rows), own_(std::move(own)) {
  require(own_.dim() == 2 && own_.scalar_type() == at::kFloat &&
              static_cast<uint64_t>(own_.size(0)) == own_rows(rows, group),
          ErrorCode::invalid_argument, "process {} of {} should hold {} rows of a table of {}, f32",
          group.rank(), group.size(), own_rows(rows, group), rows);
}

/// Splits distinct ids by owner, as places there; `order` says where each of them stood in `ids`.
std::vector<Tensor> ShardedTable::by_owner(const Tensor& ids, Tensor& order) const {
  const auto size = static_cast<int64_t>(group_->size());
  const int64_t* id = ids.data_ptr<int64_t>();
  std::vector<std::vector<int64_t>> places(group_->size()), from(group_->size());
  for (int64_t i = 0; i < ids.numel(); ++i) {
    require(id[i] >= 0 && static_cast<uint64_t>(id[i]) < rows_, ErrorCode::invalid_argument,
            "row {} in a table of {} rows", id[i], rows_);
    const auto owner = static_cast<size_t>(id[i] % size);
    places[owner].push_back(id[i] / size);
    from[owner].push_back(i);
  }
  std::vector<int64_t> all;
  std::vector<Tensor> parts;
  for (size_t rank = 0; rank < places.size(); ++rank) {
    parts.push_back(at::tensor(places[rank], at::kLong));
    all.insert(all.end(), from[rank].begin(), from[rank].end());
  }
  order = at::tensor(all, at::kLong);
  return parts;
}

TouchedRows ShardedTable::touch(const Tensor& ids) const {
  at::NoGradGuard no_grad;
  const auto [distinct, where] = distinct_ids(ids.to(at::kCPU));
  Tensor order;
  std::vector<Tensor> answers;
  for (const Tensor& wanted : group_->all_to_all(by_owner(distinct, order)))
    answers.push_back(own_.index_select(0, wanted.to(own_.device())));
  const Tensor got = at::cat(group_->all_to_all(answers));
  Tensor rows = at::empty_like(got);
  rows.index_copy_(0, order.to(rows.device()), got);
  TouchedRows touched;
  touched.ids = distinct.to(own_.device());
  touched.rows = rows.requires_grad_(true);
  touched.where = where.to(own_.device());
  return touched;
}

OwnedGradients ShardedTable::mean_gradients(const Tensor& ids, const Tensor& gradients) const {
  at::NoGradGuard no_grad;
  require(ids.dim() == 1 && gradients.dim() == 2 && gradients.size(0) == ids.size(0) &&
              gradients.size(1) == own_.size(1),
          ErrorCode::invalid_argument, "ids [n] and gradients [n, {}] are wanted", own_.size(1));
  Tensor order;
  const std::vector<Tensor> places = by_owner(ids.to(at::kCPU).contiguous(), order);
  const Tensor sorted = gradients.detach().to(at::kCPU).contiguous().index_select(0, order);
  std::vector<int64_t> counts;
  for (const Tensor& part : places) counts.push_back(part.numel());
  const Tensor here = at::cat(group_->all_to_all(places));
  const Tensor values = at::cat(group_->all_to_all(sorted.split_with_sizes(counts))).contiguous();
  const auto [distinct, where] = distinct_ids(here);
  Tensor sums = add_up(values, where, distinct.numel());
  if (group_->size() > 1) sums.div_(static_cast<double>(group_->size()));
  return {distinct.to(own_.device()), sums.to(own_.device())};
}

}  // namespace mneme::train
