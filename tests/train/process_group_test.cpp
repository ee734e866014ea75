// A run of one process goes through the same calls as one of many: they must leave everything as it is.
#include "train/process_group.h"

#include <gtest/gtest.h>

#include "mneme/error.h"

namespace mneme::train {
namespace {

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

}  // namespace
}  // namespace mneme::train
