// The rows of memory tables and what their optimisers keep for each, read and written a stretch at a time,
// wherever they lie: whole in Training, or in parts with the processes of a run (hosts/table_shards.h). A
// checkpoint is written and read through this, so that it needs no more of a table in memory than a stretch.
#pragma once
#include <cstdint>
#include <functional>
#include <string>

#include "train/run/training.h"

namespace mneme::train {

/// "rows" and the names of RowOptimiser::state() are the kinds of rows that a table has.
class TableRows {
 public:
  virtual ~TableRows() = default;

  /// What lies in this process of one table, by kind: [rows that are here, ...]. The tensors themselves.
  virtual NamedTensors here(const std::string& table) const = 0;
  /// Rows [first, first + count) of one kind, contiguous on the CPU: [count, ...]. Throws
  /// Error(invalid_argument) beyond the table's end.
  virtual Tensor read(const std::string& table, const std::string& kind, uint64_t first,
                      uint64_t count) const = 0;
  /// Overwrites the rows from `first` on.
  virtual void write(const std::string& table, const std::string& kind, uint64_t first,
                     const Tensor& values) = 0;
};

/// The tables of a run of one process. Refers to the training.
class WholeTables final : public TableRows {
 public:
  explicit WholeTables(const Training& training) : training_(&training) {}
  NamedTensors here(const std::string& table) const override;
  Tensor read(const std::string& table, const std::string& kind, uint64_t first,
              uint64_t count) const override;
  void write(const std::string& table, const std::string& kind, uint64_t first,
             const Tensor& values) override;

 private:
  const Training* training_;
  Tensor part(const std::string& table, const std::string& kind, uint64_t first, uint64_t count) const;
};

/// body(first, count) for stretches that together are all of `rows`.
void for_stretches(uint64_t rows, const std::function<void(uint64_t first, uint64_t count)>& body);

}  // namespace mneme::train
