// The memory tables of a run over several processes, each of which holds its part of the rows and of their
// optimiser's state (sharded_table.h). Used where there is more than one process; a run of one keeps its
// tables whole in Training.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "train/hosts/process_group.h"
#include "train/hosts/sharded_table.h"
#include "train/run/training.h"

namespace mneme::train {

/// Refers to the group. All functions are collective.
class TableShards {
 public:
  /// Takes each process's part of process 0's tables and of their optimisers' state. Training is left with
  /// empty tables.
  TableShards(const RowOptimiserConfig& config, Training& training, ProcessGroup& group);

  /// As touch_rows() of whole tables; tokens int64 [batch, length], whose batch may be 0 (others may have
  /// more).
  BatchRows touch(const Training& training, const Tensor& tokens) const;
  /// Takes the gradients of a step to the owners of their rows, where they are averaged over the processes;
  /// returns the sum of their squares over all rows of all tables.
  double collect(const BatchRows& rows);
  /// Moves the rows by what was collected. `lr` and `gradient_scale` as RowOptimiser::update has them.
  void update(double lr, double gradient_scale);
  /// Whole tables and states in process 0's Training, for a checkpoint or samples. Process 0 needs room for
  /// them.
  void gather(Training& training) const;
  /// Frees them again.
  void release(Training& training) const;

 private:
  struct Part {
    ShardedTable table;
    RowOptimiser optimiser;
    std::vector<OwnedGradients> collected;
  };
  RowOptimiserConfig config_;
  ProcessGroup* group_;
  std::map<std::string, Part> parts_;
};

}  // namespace mneme::train
