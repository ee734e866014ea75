// Continuous batching: requests join and leave the batch between steps. One thread owns all sequences and
// loops:
//
//   admit      queued requests while fewer than max_batch are active
//   prefill    one chunk of the oldest request whose prompt is not done
//   decode     one token of every request that has one to process, in a single pass over the weights
//   retire     requests that ended: results and errors go to their futures
//
// A long prompt therefore delays the others by one chunk per token at most, and requests finish their prompts
// in order of arrival. Everything a request does (callbacks, sampling, its own chunk) fails alone; if a
// batched pass fails, its tokens are processed one sequence at a time to find whose fault it is.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <future>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/sequence.h"
#include "mneme/engine.h"

namespace mneme {

class Scheduler {
 public:
  /// Throws Error(invalid_argument) if max_batch is 0.
  Scheduler(std::unique_ptr<SequenceRunner> runner, uint32_t max_batch);
  /// Cancels everything and waits for the thread; a running chunk or step is interrupted by its cancel token.
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  /// Thread-safe, also from callbacks.
  std::future<GenerateResult> submit(GenerateRequest request);

 private:
  struct Job;

  void run();
  bool admit();
  void prefill();
  void decode();
  void decode_alone(Job& job);
  void retire();

  std::unique_ptr<SequenceRunner> runner_;
  const uint32_t max_batch_;
  CancelToken stop_;
  std::mutex mutex_;  // guards queue_ and every change of active_, which only the thread reads without it
  std::condition_variable wake_;
  std::deque<std::unique_ptr<Job>> queue_;
  std::vector<std::unique_ptr<Job>> active_;  // in order of arrival
  std::thread thread_;                        // last: starts when everything else is there
};

}  // namespace mneme
