// An Engram table whose rows are spread over the processes of a run: row `id` lies with process id % size, at
// place id / size. Memory and optimiser state are shared out, and a step costs what it touches: the distinct
// rows of a batch travel from their owners, their gradients back, and each owner moves its own rows. Engram
// (arXiv 2601.07372), section 2.5, shards its tables over accelerators in the same way. No
// process ever has the whole table: a row's first values are a function of its id.
//
// With one process everything stays local and the numbers are those of RowTable; with several they are the
// same within the order of sums: an owner adds up what the processes send in the order of their ranks.
#pragma once
#include <cstdint>

#include "train/blocks/row_table.h"
#include "train/hosts/process_group.h"

namespace mneme::train {

/// Gradients that have come to the owner of their rows.
struct OwnedGradients {
  Tensor places;     // int64 [distinct], ascending: rows of ShardedTable::own()
  Tensor gradients;  // f32 [distinct, head_dim]
};

/// Refers to the group, which must outlive it. "Collective" functions are called by all processes together.
class ShardedTable {
 public:
  /// The same values as RowTable(rows, head_dim, seed, deviation), each in its place. Throws
  /// Error(invalid_argument) for an empty table.
  ShardedTable(uint64_t rows, uint32_t head_dim, uint64_t seed, double deviation, ProcessGroup& group);
  /// This process's part of a table that is there: `own` f32 [own_rows(rows, group), head_dim], not copied.
  ShardedTable(Tensor own, uint64_t rows, ProcessGroup& group);

  uint64_t rows() const noexcept { return rows_; }
  uint32_t head_dim() const noexcept { return static_cast<uint32_t>(own_.size(1)); }
  /// The rows of this process, f32 [own_rows, head_dim].
  Tensor& own() noexcept { return own_; }
  const Tensor& own() const noexcept { return own_; }

  /// Collective. The distinct rows of `ids` (int64, any shape), which each process chooses for itself, as
  /// RowTable::touch gives them. Throws Error(invalid_argument) for an id outside.
  TouchedRows touch(const Tensor& ids) const;
  /// Collective. Takes the gradients f32 [n, head_dim] of rows `ids` (int64 [n], distinct) to their owners;
  /// what comes back is the mean over the processes of the gradients of this process's own rows (zero where
  /// a process has not touched a row).
  OwnedGradients mean_gradients(const Tensor& ids, const Tensor& gradients) const;

 private:
  std::vector<Tensor> by_owner(const Tensor& ids, Tensor& order) const;

  ProcessGroup* group_;
  uint64_t rows_;
  Tensor own_;
};

/// Rows of a table of `rows` that lie with this process.
uint64_t own_rows(uint64_t rows, const ProcessGroup& group);
/// The part of a whole tensor [rows, ...] that lies with this process.
Tensor take_own(const Tensor& whole, const ProcessGroup& group);

}  // namespace mneme::train
