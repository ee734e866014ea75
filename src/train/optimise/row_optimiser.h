// How the rows of an Engram table move: only those that a step has read, each with its own state, so that a
// step costs the same whatever the size of the table. No weight decay: a row that no text reads stays as it
// is (Engram, arXiv 2601.07372, section 4.1: five times the learning rate, no decay).
//
//   adam     two moments a value, and how often the row was touched: a row's moments are those of an Adam
//            that has seen only the steps that touched it, bias correction included. Eight bytes a value,
//            all of a row in one place, because places in memory are what a touched row costs.
//   scalar   one running mean of the row's squared gradient, started by the first one; the row moves by
//            gradient / (its root + eps). Four bytes a row: row-wise Adagrad with forgetting.
#pragma once
#include "train/optimise/optimiser.h"

namespace mneme::train {

/// State of one table. Memory grows with the rows that were ever touched. Not thread-safe.
class RowOptimiser {
 public:
  RowOptimiser(const RowOptimiserConfig& config, uint64_t rows, uint32_t head_dim);

  /// values f32 [rows, head_dim] (contiguous, CPU; on another device by libtorch); ids int64 [n], distinct;
  /// gradients f32 [n, head_dim], of each row the sum over all its places. `lr` is the step's learning rate,
  /// before RowOptimiserConfig::lr_scale. Throws Error(invalid_argument) for ids outside the table or shapes
  /// that do not fit.
  void update(const Tensor& values, const Tensor& ids, const Tensor& gradients, double lr,
              double gradient_scale = 1.0);

  /// The state itself: "m", "v" [rows, head_dim] and "touched" [rows] (how often, at most 2^24), or "s"
  /// [rows]. Not contiguous.
  NamedTensors state() const;
  /// Overwrites it. Throws Error(mismatch).
  void restore(const NamedTensors& state);

 private:
  RowOptimiserConfig config_;
  int64_t rows_, head_dim_;
  Tensor records_;                   // adam: [rows, m | v | touched | padding to a cache line]
  Tensor first_, second_, touched_;  // views of it; scalar: second_ alone, [rows]

  void use_records(Tensor records);
  void check(const Tensor& values, const Tensor& ids, const Tensor& gradients) const;
  void update_adam(const Tensor& values, const Tensor& ids, const Tensor& gradients, double lr, double scale);
  void update_scalar(const Tensor& values, const Tensor& ids, const Tensor& gradients, double lr,
                     double scale);
  void update_elsewhere(const Tensor& values, const Tensor& ids, const Tensor& gradients, double lr,
                        double scale);
};

}  // namespace mneme::train
