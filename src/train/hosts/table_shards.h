// The memory tables of a run over several processes, each of which holds its part of the rows and of their
// optimiser's state (sharded_table.h) and nothing else of them, from the start to the last checkpoint. Used
// where there is more than one process; a run of one keeps its tables whole in Training.
//
// What process 0 does alone with whole tables (checkpoints, samples) it does inside serve(): it asks for
// stretches of rows, the others answer until it is done.
#pragma once
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "train/hosts/process_group.h"
#include "train/hosts/sharded_table.h"
#include "train/run/table_rows.h"
#include "train/run/training.h"

namespace mneme::train {

/// Refers to the training, whose tables stay empty, and to the group. All functions are collective.
class TableShards final : public TableRows {
 public:
  TableShards(const RowOptimiserConfig& config, const Training& training, ProcessGroup& group);
  /// Adds a table of the config, with an optimiser at its start.
  void add(const std::string& name, ShardedTable table);

  /// As touch_rows() of whole tables; tokens int64 [batch, length], whose batch may be 0 (others may have
  /// more).
  BatchRows touch(const Tensor& tokens) const;
  /// Takes the gradients of a step to the owners of their rows, where they are averaged over the processes;
  /// returns the sum of their squares over all rows of all tables.
  double collect(const BatchRows& rows);
  /// Moves the rows by what was collected. `lr` and `gradient_scale` as RowOptimiser::update has them.
  void update(double lr, double gradient_scale);

  /// Process 0 does `work`, in which it may call what follows; the others return when it is done.
  void serve(const std::function<void()>& work);
  /// touch() for process 0 alone.
  BatchRows touch_alone(const Tensor& tokens) const;
  NamedTensors here(const std::string& table) const override;
  Tensor read(const std::string& table, const std::string& kind, uint64_t first,
              uint64_t count) const override;
  void write(const std::string& table, const std::string& kind, uint64_t first,
             const Tensor& values) override;

 private:
  struct Part {
    ShardedTable table;
    RowOptimiser optimiser;
    std::vector<OwnedGradients> collected;
  };
  struct Request;
  RowOptimiserConfig config_;
  const Training* training_;
  ProcessGroup* group_;
  std::map<std::string, Part> parts_;

  void ask(const Request& request) const;
  Request hear() const;
  Request about(int64_t what, const std::string& table, const std::string& kind, uint64_t first,
                uint64_t count) const;
  const std::string& table_of(const Request& request) const;
  Tensor rows_of(const Request& request) const;
  Tensor gather(const Request& request) const;
  void scatter(const Request& request, const Tensor& values) const;
};

}  // namespace mneme::train
