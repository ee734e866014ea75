// The rows of one Engram table while it is trained. A table may be far larger than what a step touches, so
// nothing here costs time in its size: a pass gathers the distinct rows of its batch into one small dense
// leaf, autograd adds up the gradients of duplicates into it, and the optimiser updates those rows alone.
#pragma once
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "mneme/engram_config.h"
#include "train/tensor.h"

namespace mneme::train {

/// The distinct rows that one batch reads. `ids` are sorted and distinct; `rows` [ids, head_dim] is a leaf
/// that requires gradients; `where` (int64, any shape) indexes rows for each place of the batch.
struct TouchedRows {
  Tensor ids;    // int64 [distinct]
  Tensor rows;   // f32 [distinct, head_dim]
  Tensor where;  // int64 [batch, length, rows_per_token]
  /// bool [batch, length]: tokens without a class, whose gate is shut; undefined if there are none.
  Tensor silent;
};

/// The first values of one row: N(0, deviation) from a stream of its own. A function of its arguments alone,
/// so that a process can make its part of a table.
void initial_row(uint64_t seed, uint64_t id, double deviation, std::span<float> values);
/// The distinct ids of int64 `ids` of any shape, ascending, and where each stands among them (the shape of
/// ids). By sorting: the cost does not depend on how large ids are.
std::pair<Tensor, Tensor> distinct_ids(const Tensor& ids);

/// All rows of a table: f32 [rows, head_dim], and what the row optimiser keeps for each. Not thread-safe.
class RowTable {
 public:
  /// N(0, deviation) from a counter-based generator: a row's values depend on seed and id alone.
  RowTable(uint64_t rows, uint32_t head_dim, uint64_t seed, double deviation);
  /// Rows that are there already: [rows, head_dim], not copied. Throws Error(invalid_argument) for another
  /// rank.
  explicit RowTable(Tensor values);
  uint64_t rows() const noexcept { return static_cast<uint64_t>(values_.size(0)); }
  uint32_t head_dim() const noexcept { return static_cast<uint32_t>(values_.size(1)); }
  Tensor& values() noexcept { return values_; }
  const Tensor& values() const noexcept { return values_; }
  /// Gathers the distinct rows of `ids` (int64, any shape). Throws Error(invalid_argument) for an id outside.
  TouchedRows touch(const Tensor& ids) const;

 private:
  Tensor values_;
};

}  // namespace mneme::train
