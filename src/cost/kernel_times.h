// How long the engine's kernels take on this machine: what a predicted time is made of, beside bytes over
// bandwidth. Each figure is measured when it is first asked for, in a few hundredths of a second, with all
// threads at work as in a pass, and kept in the cache folder for later ones; bandwidth by the size of the
// working set, because a small model stays in the processor's caches.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/thread_pool.h"
#include "cost/machine.h"
#include "mneme/session.h"
#include "model/model_impl.h"
#include "simd/recurrence.h"

namespace mneme {

/// Where figures come from: the cache if it has them, else measured now and kept; measured now in any case;
/// or only the cache.
enum class FigureSource { automatic, measure, cached };

/// Not thread-safe. Times are in seconds. Everything throws Error(not_found) for a figure that
/// FigureSource::cached lacks, and Error(out_of_memory).
class KernelTimes {
 public:
  /// `on_step` is told what is being measured; it may throw to stop.
  KernelTimes(int threads, FigureSource source, std::function<void(std::string_view)> on_step = {});
  ~KernelTimes();
  KernelTimes(const KernelTimes&) = delete;
  KernelTimes& operator=(const KernelTimes&) = delete;

  int threads() const noexcept { return threads_; }
  /// Whether a figure was measured by this object, and whether one came from the cache.
  bool measured() const noexcept { return measured_; }
  bool cached() const noexcept { return cached_; }

  // Figures by working set, the bytes that a pass reads again and again: between measured sizes by the
  // logarithm of the size.
  /// Seconds a byte of plain loads, all threads together.
  double read(double working_set);
  /// Products of one row with matrices that come from memory, in stages with a barrier each, as a decoding
  /// pass walks them. For spikes in stripes: of the bytes that the list of events touches.
  struct Stream {
    double per_byte = 0, per_stage = 0;
  };
  Stream stream(PackedType type, Linear::Input input, double working_set);
  /// One position of one kv head for its `group` queries, keys and values from memory, one thread.
  double stream_attention(KvType kv, uint32_t head_dim, uint32_t group, double working_set);

  // Figures of arithmetic alone: everything in the second-level cache.
  /// A multiply-add of one row with a matrix, all threads together. For spikes in stripes: of the columns in
  /// the list.
  double product(PackedType type, Linear::Input input);
  /// The same for a pass of many rows.
  double batch_product(PackedType type, Linear::Input input);
  /// One position of one kv head for its `group` queries, one thread.
  double attention(KvType kv, uint32_t head_dim, uint32_t group);
  /// The same for the queries of 16 tokens, for one of them.
  double batch_attention(KvType kv, uint32_t head_dim, uint32_t group);
  /// One token through the state of one kv head with its inputs mapped, one thread.
  double recurrence(const MixerConfig& mixer);
  /// The norm of a row and its rounding, for one value, one thread.
  double row(Linear::Input input);
  /// Activation of a hidden value and its rounding, one thread.
  double hidden();
  /// The end of a stage: its barrier and the hand-out of tasks.
  double stage();
  /// To wake the threads for a pass and let them go.
  double job();

  /// Saves what was measured, with what the file holds of the same machine. Throws Error(io).
  void save() const;
  static std::filesystem::path cache_path(int threads);

 private:
  double figure(const std::string& name, const std::function<double()>& measure);
  ThreadPool& pool();
  double on_all_threads(const std::function<void(int thread)>& work, double shortest = 1.5e-3);
  double by_working_set(const std::string& name, double working_set,
                        const std::function<double(uint64_t bytes)>& measure);
  double time_stages(PackedType type, Linear::Input input, uint64_t bytes, uint64_t stage_bytes);
  double time_product(const char* what, PackedType type, Linear::Input input, int64_t rows);
  double time_attention(const char* what, KvType kv, uint32_t head_dim, uint32_t group, int64_t tokens);

  int threads_;
  FigureSource source_;
  std::function<void(std::string_view)> on_step_;
  std::unique_ptr<ThreadPool> pool_;
  std::map<std::string, double> known_, used_;
  bool measured_ = false, cached_ = false;
};

}  // namespace mneme
