// Groups of one process and of several, on the loopback: what the collectives give, and what the others get
// to hear when one process is killed, stops, gives up or leaves early.
#include "train/hosts/process_group.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <iostream>

#include "core/fail.h"
#include "train/hosts/gloo_group.h"
#include "train/hosts/workers.h"

namespace mneme::train::process_group_test {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;

TEST(ProcessGroupOfOne, LeavesValuesAlone) {
  ProcessGroup group;
  EXPECT_EQ(group.rank(), 0u);
  EXPECT_EQ(group.size(), 1u);
  EXPECT_TRUE(group.is_first());
  const Tensor values = at::arange(6, at::kFloat).view({2, 3});
  const Tensor before = values.clone();
  group.all_reduce_sum(values);
  group.all_reduce_mean(values);
  group.all_reduce_mean(std::vector<Tensor>{values, at::ones({2})});
  group.broadcast(values);
  group.barrier();
  EXPECT_TRUE(at::equal(values, before));
  EXPECT_TRUE(at::equal(group.all_to_all({values})[0], before));
  EXPECT_TRUE(group.any(true));
  EXPECT_FALSE(group.any(false));
}

TEST(ProcessGroupOfOne, RefusesWhatNoGroupOfItsSizeCanDo) {
  ProcessGroup group;
  const Tensor values = at::ones({2});
  EXPECT_THROW(group.broadcast(values, 1), Error);
  EXPECT_THROW(group.all_to_all({values, values}), Error);
}

const AddScenario kCollectives("collectives", [](ProcessGroup& group) {
  const int64_t me = group.rank(), n = group.size(), total = n * (n - 1) / 2;
  const Tensor sum = at::arange(12, at::kFloat).view({3, 4}) + me;
  group.all_reduce_sum(sum);
  EXPECT_TRUE(at::equal(sum, (at::arange(12, at::kFloat) * n + total).view({3, 4})));

  const Tensor strided = at::full({4, 3}, me, at::kDouble).t();  // not contiguous
  group.all_reduce_mean(strided);
  EXPECT_TRUE(
      at::equal(strided, at::full({3, 4}, static_cast<double>(total) / static_cast<double>(n), at::kDouble)));

  const std::vector<Tensor> many{at::full({5}, me, at::kFloat), at::full({2, 2}, 10 * me, at::kFloat)};
  group.all_reduce_mean(many);
  EXPECT_TRUE(at::equal(
      many[1], at::full({2, 2}, 10.0 * static_cast<double>(total) / static_cast<double>(n), at::kFloat)));
  EXPECT_TRUE(at::equal(many[0] * 10, many[1][0][0].expand({5})));

  const Tensor copied = at::full({3}, me, at::kLong);
  group.broadcast(copied, group.size() - 1);
  EXPECT_TRUE(at::equal(copied, at::full({3}, n - 1, at::kLong)));

  std::vector<Tensor> parts;  // to process r go `me` rows of 100 me + r: process 0 sends none at all
  for (int64_t r = 0; r < n; ++r) parts.push_back(at::full({me, 2}, 100 * me + r, at::kFloat));
  const std::vector<Tensor> got = group.all_to_all(parts);
  for (int64_t r = 0; r < n; ++r)
    EXPECT_TRUE(at::equal(got[static_cast<size_t>(r)], at::full({r, 2}, 100 * r + me, at::kFloat))) << r;

  EXPECT_TRUE(group.any(group.rank() + 1 == group.size()));
  EXPECT_FALSE(group.any(false));
  group.barrier();
});

TEST(ProcessGroupOfMany, CollectivesGiveWhatTheySay) {
  for (const uint32_t size : {2u, 3u, 5u})
    for (const Worker& worker : run_workers("collectives", size)) {
      EXPECT_EQ(worker.exit_code, 0) << worker.output;
      EXPECT_EQ(worker.signal, 0);
    }
}

// A sum of floats depends on its order: 20 runs of different speed must give the same bits, on all processes.
const AddScenario kOrder("order", [](ProcessGroup& group) {
  at::manual_seed(group.rank());
  const Tensor values = at::randn({100003}) * at::exp(at::randn({100003}) * 4);
  Tensor first;
  for (int i = 0; i < 20; ++i) {
    usleep(static_cast<useconds_t>((group.rank() * 7919 + static_cast<uint32_t>(i) * 104729) % 3000));
    const Tensor sum = values.clone();
    group.all_reduce_sum(sum);
    if (i == 0) first = sum;
    EXPECT_TRUE(at::equal(sum, first));
  }
  const Tensor theirs = first.clone();
  group.broadcast(theirs, 0);
  EXPECT_TRUE(at::equal(theirs, first));
});

TEST(ProcessGroupOfMany, SumsAreTheSameBitsInEveryRunAndOnEveryProcess) {
  for (const Worker& worker : run_workers("order", 3)) EXPECT_EQ(worker.exit_code, 0) << worker.output;
}

/// Steps of sums for ever; at step 3 process 1 does something.
Scenario steps(const std::function<void(ProcessGroup&)>& accident) {
  return [accident](ProcessGroup& group) {
    for (uint64_t step = 1; step < 100000; ++step) {
      group.set_step(step);
      if (step == 3 && group.rank() == 1) accident(group);
      if (group.rank() == 1 && step > 3) return;
      const Tensor values = at::ones({1000});
      group.all_reduce_sum(values);
    }
  };
}

void expect_all_others_say(const std::vector<Worker>& workers, const std::string& words, double within) {
  for (size_t rank = 0; rank < workers.size(); ++rank) {
    if (rank == 1) continue;
    EXPECT_EQ(workers[rank].exit_code, 3) << workers[rank].output;
    // Step 2 where the news was faster than the end of that step.
    EXPECT_THAT(workers[rank].output,
                ContainsRegex("ERROR network: process 1 of " + std::to_string(workers.size()) +
                              " was lost at step [23]: " + words));
    EXPECT_THAT(workers[rank].output, HasSubstr("--resume"));
    EXPECT_LT(workers[rank].seconds, within);
  }
}

const AddScenario kKilled("killed", steps([](ProcessGroup&) { raise(SIGKILL); }));
TEST(ProcessGroupOfMany, AKilledProcessEndsTheRunOfAllOthers) {
  for (const uint32_t size : {2u, 5u}) {  // 5: not everybody is its neighbour
    const std::vector<Worker> workers = run_workers("killed", size);
    EXPECT_EQ(workers[1].signal, SIGKILL);
    expect_all_others_say(workers, "its connection closed", 30);
  }
}

const AddScenario kSilent("silent", steps([](ProcessGroup&) { raise(SIGSTOP); }), std::chrono::seconds(1));
TEST(ProcessGroupOfMany, AProcessThatHangsIsLostAfterItsSilence) {
  const std::vector<Worker> workers = run_workers("silent", 3);
  EXPECT_EQ(workers[1].signal, SIGKILL);  // by the test, in the end
  expect_all_others_say(workers, "no sign of life for 1 s", 30);
}

const AddScenario kGivesUp("gives_up", steps([](ProcessGroup&) { fail(ErrorCode::io, "its disk is full"); }));
TEST(ProcessGroupOfMany, AnErrorOfOneProcessIsToldToAll) {
  const std::vector<Worker> workers = run_workers("gives_up", 4);
  EXPECT_EQ(workers[1].exit_code, 3);
  expect_all_others_say(workers, "its disk is full", 30);
}

const AddScenario kLeaves("leaves", [](ProcessGroup& group) {
  group.set_step(3);
  group.barrier();  // all are connected
  if (group.rank() != 1) group.all_reduce_sum(at::ones({10}));
});
TEST(ProcessGroupOfMany, AProcessThatEndsEarlyIsNamed) {
  const std::vector<Worker> workers = run_workers("leaves", 2);
  EXPECT_EQ(workers[1].exit_code, 0);
  expect_all_others_say(workers, "it ended before the others", 30);
}

const AddScenario kFirstKilled("first_killed", [](ProcessGroup& group) {
  group.set_step(7);
  if (group.is_first()) raise(SIGKILL);
  group.barrier();
});
TEST(ProcessGroupOfMany, ProcessZeroIsMissedToo) {
  const std::vector<Worker> workers = run_workers("first_killed", 3);
  for (size_t rank : {1u, 2u}) {
    EXPECT_EQ(workers[rank].exit_code, 3);
    EXPECT_THAT(workers[rank].output, HasSubstr("process 0 of 3 was lost at step 7: its connection closed"));
  }
}

}  // namespace
}  // namespace mneme::train::process_group_test
