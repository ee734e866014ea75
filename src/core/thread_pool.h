// ThreadPool: the threads of one model, the barrier between fused stages, and the tasks of a stage.
//
// A forward pass is one job that runs on every thread. Inside it the threads meet at a barrier after each
// stage: a waiter spins for a few tens of microseconds (a stage is shorter than a context switch) and then
// sleeps on a futex, so that a machine with other work to do is not burned by spinning. Tasks of a stage are
// divided beforehand, a contiguous share a thread (its weights stay in its own caches and pages); a thread
// that has finished its share takes tasks of the others, so that one descheduled thread does not hold up the
// stage. Where other programs keep taking cores away, jobs run on fewer threads (core/thread_governor.h).
// Results never depend on who ran a task.
#pragma once
#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "core/thread_governor.h"

namespace mneme {

class ThreadPool {
 public:
  /// `threads` ≥ 1 counts the caller of run(). `adapt`: use fewer while others hold the cores. Throws
  /// std::system_error if threads cannot be created.
  explicit ThreadPool(int threads, bool adapt = true);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const noexcept { return size_; }

  /// Runs job(thread) once on each of the threads 0..active-1, the caller being thread 0 and active = size()
  /// unless the machine is oversubscribed; returns when all have finished. One job at a time: concurrent
  /// callers queue. The first exception is rethrown here; a job that uses barrier() must not throw.
  void run(const std::function<void(int thread)>& job);

  /// Runs body(i) for i in [0, count) on all threads, each i once.
  void for_each(int64_t count, const std::function<void(int64_t)>& body);

  /// Inside a job: waits until every thread of the job has arrived. `for_device`: one of them may have waited
  /// for a disk, so that sleeping here says nothing about the cores.
  void barrier(int thread, bool for_device = false);

  /// Inside a job, before a barrier: thread `thread` publishes its share of `count` tasks in the task list
  /// `slot` (0 or 1).
  void share_tasks(int slot, int thread, int64_t count);
  /// Inside a job, after that barrier: the next task for `thread`, its own first, then the others'; -1 when
  /// none is left.
  int64_t next_task(int slot, int thread);

 private:
  struct alignas(64) Share {
    std::atomic<int64_t> next{0};
    std::atomic<int64_t> end{0};
  };
  struct alignas(64) Worker {
    std::atomic<uint32_t> serial{0};  // counts the jobs given to this thread
    int64_t stalled_ns = 0;           // of the running job: slept at barriers
  };
  void worker(int thread);
  void start(int threads);

  const int size_;
  const bool adapt_;
  int active_ = 1;  // threads of the running job
  ThreadGovernor governor_;
  std::unique_ptr<Worker[]> states_;
  std::unique_ptr<Share[]> shares_[2];
  alignas(64) std::atomic<uint32_t> arrived_{0};
  alignas(64) std::atomic<uint32_t> phase_{0};
  alignas(64) std::atomic<uint32_t> running_{0};
  const std::function<void(int)>* job_ = nullptr;
  bool stopping_ = false;
  std::mutex caller_mutex_, error_mutex_;
  std::exception_ptr error_;
  std::vector<std::thread> workers_;
};

/// Cores this process may run on (respects affinity masks), at least 1.
int available_cores();

}  // namespace mneme
