#include "train/blocks/row_table.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/checked.h"
#include "core/fail.h"
#include "core/random.h"
#include "train/optimise/huge_tensor.h"

namespace mneme::train {

void initial_row(uint64_t seed, uint64_t id, double deviation, std::span<float> values) {
  // Seeds of neighbouring rows differ in one bit; the seed's hash reaches every bit of the stream. The odd
  // factor keeps rows of different tables apart.
  Pcg64 random(seed * 0x9e3779b97f4a7c15u + id);
  for (size_t i = 0; i < values.size(); i += 2) {  // Box and Muller: two at a time
    const double radius = deviation * std::sqrt(-2 * std::log1p(-random.uniform()));
    const double angle = 2 * std::numbers::pi * random.uniform();
    values[i] = static_cast<float>(radius * std::cos(angle));
    if (i + 1 < values.size()) values[i + 1] = static_cast<float>(radius * std::sin(angle));
  }
}

std::pair<Tensor, Tensor> distinct_ids(const Tensor& ids) {
  require(ids.scalar_type() == at::kLong, ErrorCode::invalid_argument, "row ids must be int64");
  const Tensor flat = ids.to(at::kCPU).contiguous();
  const int64_t* id = flat.data_ptr<int64_t>();
  struct Place {
    int64_t id, at;
    bool operator<(const Place& other) const { return id < other.id; }
  };
  std::vector<Place> places(static_cast<size_t>(flat.numel()));
  for (size_t i = 0; i < places.size(); ++i) places[i] = {id[i], static_cast<int64_t>(i)};
  std::sort(places.begin(), places.end());
  Tensor where = at::empty(ids.sizes(), at::kLong);
  auto* out = where.data_ptr<int64_t>();
  std::vector<int64_t> distinct;
  for (const Place& place : places) {
    if (distinct.empty() || distinct.back() != place.id) distinct.push_back(place.id);
    out[place.at] = static_cast<int64_t>(distinct.size()) - 1;
  }
  return {at::tensor(distinct, at::kLong).to(ids.device()), where.to(ids.device())};
}

RowTable::RowTable(uint64_t rows, uint32_t head_dim, uint64_t seed, double deviation) {
  require(rows > 0 && head_dim > 0, ErrorCode::invalid_argument, "a table of {} rows of {} values", rows,
          head_dim);
  checked_mul(checked_mul(rows, head_dim, "table"), sizeof(float), "table");
  values_ = huge_zeros({static_cast<int64_t>(rows), static_cast<int64_t>(head_dim)});
  auto* values = values_.data_ptr<float>();
  at::parallel_for(0, static_cast<int64_t>(rows), 1024, [&](int64_t begin, int64_t end) {
    for (int64_t id = begin; id < end; ++id)
      initial_row(seed, static_cast<uint64_t>(id), deviation, {values + id * head_dim, head_dim});
  });
}

RowTable::RowTable(Tensor values) : values_(std::move(values)) {
  require(values_.dim() == 2 && values_.scalar_type() == at::kFloat, ErrorCode::invalid_argument,
          "the values of a table must be f32 [rows, head_dim]");
}

TouchedRows RowTable::touch(const Tensor& ids) const {
  auto [distinct, where] = distinct_ids(ids);
  if (distinct.numel() > 0)
    require(distinct[0].item<int64_t>() >= 0 && distinct[-1].item<int64_t>() < values_.size(0),
            ErrorCode::invalid_argument, "row ids from {} to {} in a table of {} rows",
            distinct[0].item<int64_t>(), distinct[-1].item<int64_t>(), values_.size(0));
  distinct = distinct.to(values_.device());
  const Tensor rows = values_.detach().index_select(0, distinct).requires_grad_(true);
  return {distinct, rows, where.to(values_.device()), {}};
}

}  // namespace mneme::train
