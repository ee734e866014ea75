#include "core/thread_pool.h"

#include <sched.h>

#include <algorithm>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace mneme {
namespace {

inline void relax() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

// A pause takes 40 to 140 cycles, so 1,000 of them are 20 to 50 µs: longer than the skew between threads of a
// stage, far shorter than a scheduler's time slice.
constexpr int kBarrierSpins = 1000;
// Between two tokens the caller samples and prints, which takes some 100 µs; a worker that slept there would
// cost a wake-up per token.
constexpr int kJobSpins = 6000;

void wait_while_equal(std::atomic<uint32_t>& value, uint32_t old, int spins) {
  for (int i = 0; i < spins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    relax();
  }
  while (value.load(std::memory_order_acquire) == old) value.wait(old, std::memory_order_acquire);
}

}  // namespace

ThreadPool::ThreadPool(int threads) : size_(std::max(1, threads)) {
  for (auto& shares : shares_) shares = std::make_unique<Share[]>(static_cast<size_t>(size_));
  workers_.reserve(static_cast<size_t>(size_ - 1));
  try {
    for (int t = 1; t < size_; ++t) workers_.emplace_back([this, t] { worker(t); });
  } catch (...) {
    stopping_ = true;
    job_serial_.fetch_add(1, std::memory_order_release);
    job_serial_.notify_all();
    for (auto& thread : workers_) thread.join();
    throw;
  }
}

ThreadPool::~ThreadPool() {
  stopping_ = true;
  job_serial_.fetch_add(1, std::memory_order_release);
  job_serial_.notify_all();
  for (auto& thread : workers_) thread.join();
}

void ThreadPool::worker(int thread) {
  uint32_t seen = 0;
  for (;;) {
    wait_while_equal(job_serial_, seen, kJobSpins);
    seen = job_serial_.load(std::memory_order_acquire);
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
  job_ = &job;
  error_ = nullptr;
  running_.store(static_cast<uint32_t>(size_ - 1), std::memory_order_relaxed);
  job_serial_.fetch_add(1, std::memory_order_release);
  job_serial_.notify_all();
  std::exception_ptr mine;
  try {
    job(0);
  } catch (...) {
    mine = std::current_exception();
  }
  for (uint32_t left = running_.load(std::memory_order_acquire); left != 0;
       left = running_.load(std::memory_order_acquire))
    wait_while_equal(running_, left, kBarrierSpins);
  if (mine) std::rethrow_exception(mine);
  if (error_) std::rethrow_exception(error_);
}

void ThreadPool::for_each(int64_t count, const std::function<void(int64_t)>& body) {
  std::atomic<int64_t> next{0};
  run([&](int) {
    for (int64_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) body(i);
  });
}

void ThreadPool::barrier() {
  if (size_ == 1) return;
  const uint32_t phase = phase_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == static_cast<uint32_t>(size_)) {
    arrived_.store(0, std::memory_order_relaxed);
    phase_.store(phase + 1, std::memory_order_release);
    phase_.notify_all();
  } else {
    wait_while_equal(phase_, phase, kBarrierSpins);
  }
}

void ThreadPool::share_tasks(int slot, int thread, int64_t count) {
  Share& share = shares_[slot][static_cast<size_t>(thread)];
  share.next.store(count * thread / size_, std::memory_order_relaxed);
  share.end.store(count * (thread + 1) / size_, std::memory_order_release);
}

int64_t ThreadPool::next_task(int slot, int thread) {
  for (int i = 0; i < size_; ++i) {
    Share& share = shares_[slot][static_cast<size_t>((thread + i) % size_)];
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
