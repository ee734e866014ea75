#include "core/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <chrono>

#include "core/relax.h"

namespace mneme {
namespace {

// A pause takes 40 to 140 cycles, so 1,000 of them are 20 to 50 µs: longer than the skew between threads of a
// stage, far shorter than a scheduler's time slice.
constexpr int kBarrierSpins = 1000;
// A read from a solid-state disk takes 50 to 500 µs. To wake a core that went idle costs as much again.
constexpr int kDeviceSpins = 10000;
// Between two tokens the caller samples and prints, which takes some 100 µs; a worker that slept there would
// cost a wake-up per token.
constexpr int kJobSpins = 6000;

using Clock = std::chrono::steady_clock;

int64_t nanoseconds_since(Clock::time_point start) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count();
}

// Returns the nanoseconds that it slept after spinning in vain.
int64_t wait_while_equal(std::atomic<uint32_t>& value, uint32_t old, int spins) {
  for (int i = 0; i < spins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return 0;
    relax();
  }
  const Clock::time_point start = Clock::now();
  while (value.load(std::memory_order_acquire) == old) value.wait(old, std::memory_order_acquire);
  return nanoseconds_since(start);
}

}  // namespace

ThreadPool::ThreadPool(int threads, bool adapt)
    : size_(std::max(1, threads)),
      adapt_(adapt),
      governor_(size_),
      states_(std::make_unique<Worker[]>(static_cast<size_t>(size_))) {
  for (auto& shares : shares_) shares = std::make_unique<Share[]>(static_cast<size_t>(size_));
  workers_.reserve(static_cast<size_t>(size_ - 1));
  try {
    for (int t = 1; t < size_; ++t) workers_.emplace_back([this, t] { worker(t); });
  } catch (...) {
    stopping_ = true;
    start(static_cast<int>(workers_.size()) + 1);
    for (auto& thread : workers_) thread.join();
    throw;
  }
}

ThreadPool::~ThreadPool() {
  stopping_ = true;
  start(size_);
  for (auto& thread : workers_) thread.join();
}

void ThreadPool::start(int threads) {
  for (int t = 1; t < threads; ++t) {
    std::atomic<uint32_t>& serial = states_[static_cast<size_t>(t)].serial;
    serial.fetch_add(1, std::memory_order_release);
    serial.notify_one();
  }
}

void ThreadPool::worker(int thread) {
  std::atomic<uint32_t>& serial = states_[static_cast<size_t>(thread)].serial;
  uint32_t seen = 0;
  for (;;) {
    wait_while_equal(serial, seen, kJobSpins);
    seen = serial.load(std::memory_order_acquire);
    if (stopping_) return;
    try {
      (*job_)(thread);
    } catch (...) {
      const std::lock_guard lock(error_mutex_);
      if (!error_) error_ = std::current_exception();
    }
    if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) running_.notify_all();
  }
}

void ThreadPool::run(const std::function<void(int)>& job) {
  const std::lock_guard lock(caller_mutex_);
  if (size_ == 1) return job(0);
  const Clock::time_point begun = Clock::now();
  job_ = &job;
  error_ = nullptr;
  active_ = adapt_ ? governor_.active() : size_;
  for (int t = 0; t < active_; ++t) states_[static_cast<size_t>(t)].stalled_ns = 0;
  running_.store(static_cast<uint32_t>(active_ - 1), std::memory_order_relaxed);
  start(active_);
  std::exception_ptr mine;
  try {
    job(0);
  } catch (...) {
    mine = std::current_exception();
  }
  for (uint32_t left = running_.load(std::memory_order_acquire); left != 0;
       left = running_.load(std::memory_order_acquire))
    states_[0].stalled_ns += wait_while_equal(running_, left, kBarrierSpins);
  int64_t stalled = 0;  // of the thread that waited longest: the one that was late is another
  for (int t = 0; t < active_; ++t) stalled = std::max(stalled, states_[static_cast<size_t>(t)].stalled_ns);
  governor_.finished(std::chrono::nanoseconds(nanoseconds_since(begun)), std::chrono::nanoseconds(stalled));
  if (mine) std::rethrow_exception(mine);
  if (error_) std::rethrow_exception(error_);
}

void ThreadPool::for_each(int64_t count, const std::function<void(int64_t)>& body) {
  std::atomic<int64_t> next{0};
  run([&](int) {
    for (int64_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) body(i);
  });
}

void ThreadPool::barrier(int thread, bool for_device) {
  if (active_ == 1) return;
  const uint32_t phase = phase_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == static_cast<uint32_t>(active_)) {
    arrived_.store(0, std::memory_order_relaxed);
    phase_.store(phase + 1, std::memory_order_release);
    phase_.notify_all();
  } else {
    const int64_t slept = wait_while_equal(phase_, phase, for_device ? kDeviceSpins : kBarrierSpins);
    if (!for_device) states_[static_cast<size_t>(thread)].stalled_ns += slept;
  }
}

void ThreadPool::share_tasks(int slot, int thread, int64_t count) {
  Share& share = shares_[slot][static_cast<size_t>(thread)];
  share.next.store(count * thread / active_, std::memory_order_relaxed);
  share.end.store(count * (thread + 1) / active_, std::memory_order_release);
}

int64_t ThreadPool::next_task(int slot, int thread) {
  for (int i = 0; i < active_; ++i) {
    Share& share = shares_[slot][static_cast<size_t>((thread + i) % active_)];
    const int64_t end = share.end.load(std::memory_order_relaxed);
    if (share.next.load(std::memory_order_relaxed) >= end) continue;
    const int64_t task = share.next.fetch_add(1, std::memory_order_relaxed);
    if (task < end) return task;
  }
  return -1;
}

int available_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return std::max(1U, std::thread::hardware_concurrency());
  return std::max(1, CPU_COUNT(&set));
}

}  // namespace mneme
