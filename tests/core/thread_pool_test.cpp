#include "core/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

namespace mneme::thread_pool_test {
namespace {

TEST(ThreadPool, RunsTheJobOnceOnEveryThread) {
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads, false);
    std::vector<int> runs(static_cast<size_t>(threads), 0);
    for (int i = 0; i < 100; ++i) pool.run([&](int thread) { ++runs[static_cast<size_t>(thread)]; });
    for (const int count : runs) EXPECT_EQ(count, 100);
  }
}

TEST(ThreadPool, BarrierLetsNobodyPassEarly) {
  ThreadPool pool(4, false);
  std::atomic<int> arrived{0}, early{0};
  pool.run([&](int thread) {
    for (int round = 1; round <= 200; ++round) {
      arrived.fetch_add(1);
      pool.barrier(thread);
      if (arrived.load() < 4 * round) early.fetch_add(1);
      pool.barrier(thread);
    }
  });
  EXPECT_EQ(early.load(), 0);
}

TEST(ThreadPool, EveryTaskIsHandedOutOnceThoughOneThreadIsLate) {
  ThreadPool pool(3, false);
  std::vector<std::atomic<int>> done(1000);
  pool.run([&](int thread) {
    pool.share_tasks(0, thread, 1000);
    pool.barrier(thread);
    if (thread == 2) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    for (int64_t task = pool.next_task(0, thread); task >= 0; task = pool.next_task(0, thread))
      done[static_cast<size_t>(task)].fetch_add(1);
  });
  for (const auto& count : done) ASSERT_EQ(count.load(), 1);
}

TEST(ThreadPool, ForEachCoversTheRange) {
  ThreadPool pool(2, false);
  std::vector<std::atomic<int>> done(77);
  pool.for_each(77, [&](int64_t i) { done[static_cast<size_t>(i)].fetch_add(1); });
  for (const auto& count : done) ASSERT_EQ(count.load(), 1);
  pool.for_each(0, [](int64_t) { FAIL(); });
}

TEST(ThreadPool, ExceptionsOfAnyThreadReachTheCallerAndThePoolGoesOn) {
  ThreadPool pool(3, false);
  for (int bad = 0; bad < 3; ++bad)
    EXPECT_THROW(pool.run([&](int thread) {
      if (thread == bad) throw std::runtime_error("from a thread");
    }),
                 std::runtime_error);
  std::atomic<int> runs{0};
  pool.run([&](int) { runs.fetch_add(1); });
  EXPECT_EQ(runs.load(), 3);
}

TEST(ThreadPool, CallersFromSeveralThreadsQueue) {
  ThreadPool pool(2, false);
  int inside = 0;  // only ever touched by thread 0 of one job at a time
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; ++c)
    callers.emplace_back([&] {
      for (int i = 0; i < 50; ++i)
        pool.run([&](int thread) {
          if (thread == 0) ++inside;
          pool.barrier(thread);
        });
    });
  for (auto& caller : callers) caller.join();
  EXPECT_EQ(inside, 200);
}

TEST(ThreadPool, SleepsAndWakesAfterALongPause) {
  ThreadPool pool(2, false);
  for (int i = 0; i < 3; ++i) {
    std::atomic<int> runs{0};
    pool.run([&](int thread) {
      if (thread == 1)
        std::this_thread::sleep_for(std::chrono::milliseconds(10));  // thread 0 sleeps in the barrier
      pool.barrier(thread);
      runs.fetch_add(1);
    });
    EXPECT_EQ(runs.load(), 2);
    std::this_thread::sleep_for(std::chrono::milliseconds(10));  // the worker falls asleep between jobs
  }
}

}  // namespace
}  // namespace mneme::thread_pool_test
