// The processes that train one model together: who is there, and the few collective operations that data
// parallelism needs. A run of one process uses the same calls, which then do nothing, so that the training
// loop has no second path.
//
// Every operation must be called by all processes in the same order with the same shapes (all_to_all:
// matching ones). Sums are taken in an order that depends on the number of processes and the shape alone, so
// equal runs give equal bits, and all processes get the same bits. A process that is lost ends the operation
// of all others with Error(network), which names its rank and the step.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "train/tensor.h"

namespace mneme::train {

/// This class itself is the group of one process. Used by one thread at a time.
class ProcessGroup {
 public:
  ProcessGroup() = default;
  virtual ~ProcessGroup() = default;
  ProcessGroup(const ProcessGroup&) = delete;
  ProcessGroup& operator=(const ProcessGroup&) = delete;

  /// The number of this process, below size().
  uint32_t rank() const noexcept { return rank_; }
  uint32_t size() const noexcept { return size_; }
  /// Whether this process is the one that prints, saves and validates.
  bool is_first() const noexcept { return rank_ == 0; }

  /// Adds up `values` over all processes, in place: f32, f64 or int64, any shape, any device.
  void all_reduce_sum(const Tensor& values);
  /// all_reduce_sum divided by size().
  void all_reduce_mean(const Tensor& values);
  /// The same for many f32 tensors at once (the gradients of a model), in place: they travel as one.
  void all_reduce_mean(const std::vector<Tensor>& values);
  /// Overwrites `values` by those of process `root`, in place.
  void broadcast(const Tensor& values, uint32_t root = 0);
  void broadcast(const std::vector<Tensor>& values, uint32_t root = 0);
  /// Sends parts[r] to process r and returns what each process sent here, by rank. Parts are [n, ...] with
  /// any n (0 too); type and the other extents are equal everywhere. Throws Error(invalid_argument) for
  /// another number of parts than size().
  std::vector<Tensor> all_to_all(const std::vector<Tensor>& parts);
  /// Whether any process says yes: all get the same answer (a Ctrl-C that reached one of them).
  bool any(bool yes);
  /// Returns when all processes have called it.
  void barrier();

  /// The step that errors name. Costs nothing.
  virtual void set_step(uint64_t step) { (void)step; }
  /// Tells the others that this process ends by an error, and which; they end by Error(network) that repeats
  /// it. Call it before the destructor; a destructor alone means that the run is over.
  virtual void give_up(std::string_view reason) noexcept { (void)reason; }

 protected:
  ProcessGroup(uint32_t rank, uint32_t size) : rank_(rank), size_(size) {}

 private:
  // CPU tensors, contiguous; called where size() > 1 only.
  virtual void sum(Tensor& values) { (void)values; }
  virtual void copy_from(Tensor& values, uint32_t root) { (void)values, (void)root; }
  /// Rows of `values` [sum of sent, ...] go out in the order of ranks; the result is [sum of got, ...].
  virtual Tensor exchange(const Tensor& values, const std::vector<int64_t>& sent,
                          const std::vector<int64_t>& got) {
    (void)sent, (void)got;
    return values;
  }
  virtual void wait_for_all() {}

  uint32_t rank_ = 0, size_ = 1;
};

}  // namespace mneme::train
