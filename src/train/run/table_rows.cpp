#include "train/run/table_rows.h"

#include <algorithm>

#include "core/fail.h"

namespace mneme::train {

namespace {
constexpr uint64_t kStretch = uint64_t{1} << 15;  // rows: 8 MiB of rows of 64 values
}

NamedTensors WholeTables::here(const std::string& table) const {
  NamedTensors out = training_->row_optimisers.at(table).state();
  out["rows"] = training_->tables.at(table).values();
  return out;
}

Tensor WholeTables::part(const std::string& table, const std::string& kind, uint64_t first,
                         uint64_t count) const {
  const Tensor all = here(table).at(kind);
  const auto rows = static_cast<uint64_t>(all.size(0));
  require(first <= rows && count <= rows - first, ErrorCode::invalid_argument,
          "rows {} to {} of the table \"{}\" of {} rows", first, first + count, table, rows);
  return all.narrow(0, static_cast<int64_t>(first), static_cast<int64_t>(count));
}

Tensor WholeTables::read(const std::string& table, const std::string& kind, uint64_t first,
                         uint64_t count) const {
  return part(table, kind, first, count).detach().cpu().contiguous();
}

void WholeTables::write(const std::string& table, const std::string& kind, uint64_t first,
                        const Tensor& values) {
  const at::NoGradGuard no_graph;
  part(table, kind, first, static_cast<uint64_t>(values.size(0))).copy_(values);
}

void for_stretches(uint64_t rows, const std::function<void(uint64_t first, uint64_t count)>& body) {
  for (uint64_t first = 0; first < rows; first += kStretch) body(first, std::min(kStretch, rows - first));
}

}  // namespace mneme::train
