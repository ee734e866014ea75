#include "core/thread_governor.h"

#include <gtest/gtest.h>

namespace mneme::thread_governor_test {
namespace {

using std::chrono::milliseconds;

// Jobs of 10 ms for `total` milliseconds, a share of which is stalled whenever more than `bearable` threads
// run. Returns the largest and smallest number of threads seen.
std::pair<int, int> load(ThreadGovernor& governor, int total, int bearable) {
  int low = governor.active(), high = low;
  for (int t = 0; t < total; t += 10) {
    const bool stalls = governor.active() > bearable;
    governor.finished(milliseconds(10), milliseconds(stalls ? 6 : 0));
    low = std::min(low, governor.active());
    high = std::max(high, governor.active());
  }
  return {low, high};
}

TEST(ThreadGovernor, AnUndisturbedPoolKeepsAllThreads) {
  ThreadGovernor governor(4);
  EXPECT_EQ(load(governor, 5000, 4), std::pair(4, 4));
}

TEST(ThreadGovernor, StalledThreadsAreGivenUpOneByOne) {
  ThreadGovernor governor(8);
  load(governor, 200, 4);
  EXPECT_EQ(governor.active(), 4);
  EXPECT_EQ(load(governor, 300, 4), std::pair(4, 4));
}

TEST(ThreadGovernor, OneThreadAlwaysRemains) {
  ThreadGovernor governor(2);
  EXPECT_EQ(load(governor, 20000, 0).first, 1);
}

TEST(ThreadGovernor, TrialsBecomeRareWhileTheLoadLasts) {
  ThreadGovernor governor(2);
  load(governor, 100, 1);
  int trials = 0, before = governor.active();
  for (int t = 0; t < 60000; t += 10) {
    governor.finished(milliseconds(10), milliseconds(governor.active() > 1 ? 6 : 0));
    trials += governor.active() > before;
    before = governor.active();
  }
  EXPECT_GE(trials, 8);  // 1 + 2 + 4 s, then one each 8 s
  EXPECT_LE(trials, 12);
}

TEST(ThreadGovernor, ThreadsComeBackWhenTheLoadIsGone) {
  ThreadGovernor governor(4);
  load(governor, 1000, 2);
  load(governor, 12000, 4);
  EXPECT_EQ(governor.active(), 4);
}

}  // namespace
}  // namespace mneme::thread_governor_test
