// A table in parts, on 1, 2 and 3 processes, against the whole table in one piece; and training with it: N
// processes give the losses of one process at the same global batch.
#include "train/hosts/sharded_table.h"

#include <gtest/gtest.h>

#include <cmath>
#include <iostream>
#include <sstream>

#include "mneme/error.h"
#include "train/hosts/workers.h"

namespace mneme::train::sharded_table_test {
namespace {

constexpr uint64_t kRows = 1009;
constexpr uint32_t kWidth = 8;

/// Ids that process `rank` reads in `step`: many, with duplicates, some of them read by all.
Tensor ids_of(uint32_t rank, uint64_t step) {
  at::Generator generator = at::detail::createCPUGenerator(1000 * step + rank);
  return at::randint(0, rank == 2 ? 5 : static_cast<int64_t>(kRows), {3, 5, 2}, generator,
                     at::TensorOptions(at::kLong));
}

const AddScenario kTouch("touch", [](ProcessGroup& group) {
  const RowTable whole(kRows, kWidth, 42, 0.5);
  const ShardedTable parts(kRows, kWidth, 42, 0.5, group);
  EXPECT_TRUE(at::equal(parts.own(), take_own(whole.values(), group)));
  EXPECT_EQ(static_cast<uint64_t>(parts.own().size(0)), own_rows(kRows, group));
  for (uint64_t step = 0; step < 5; ++step) {
    const Tensor ids =
        step == 3 && group.rank() == 0 ? at::empty({0}, at::kLong) : ids_of(group.rank(), step);
    const TouchedRows mine = parts.touch(ids), expected = whole.touch(ids);
    EXPECT_TRUE(at::equal(mine.ids, expected.ids));
    EXPECT_TRUE(at::equal(mine.rows, expected.rows));
    EXPECT_TRUE(at::equal(mine.where, expected.where));
    EXPECT_TRUE(mine.rows.requires_grad());
  }
});

TEST(ShardedTable, GivesTheRowsOfTheWholeTable) {
  expect_success("touch");
}

const AddScenario kMeans("means", [](ProcessGroup& group) {
  const ShardedTable parts(kRows, kWidth, 42, 0.5, group);
  for (uint64_t step = 0; step < 3; ++step) {
    // Every process knows what all of them send, and adds it up in double.
    Tensor expected = at::zeros({static_cast<int64_t>(kRows), kWidth}, at::kDouble);
    Tensor touched = at::zeros({static_cast<int64_t>(kRows)}, at::kBool);
    Tensor my_ids, my_gradients;
    for (uint32_t rank = 0; rank < group.size(); ++rank) {
      const Tensor ids = distinct_ids(ids_of(rank, step)).first;
      at::Generator generator = at::detail::createCPUGenerator(77 + step * 10 + rank);
      const Tensor gradients = at::randn({ids.numel(), kWidth}, generator);
      expected.index_add_(0, ids, gradients.to(at::kDouble));
      touched.index_fill_(0, ids, true);
      if (rank == group.rank()) my_ids = ids, my_gradients = gradients;
    }
    expected = take_own(expected / static_cast<double>(group.size()), group);
    touched = take_own(touched, group);
    const OwnedGradients mine = parts.mean_gradients(my_ids, my_gradients);
    EXPECT_TRUE(at::equal(mine.places, touched.nonzero().flatten()));
    EXPECT_TRUE(
        at::allclose(mine.gradients.to(at::kDouble), expected.index_select(0, mine.places), 1e-5, 1e-6));
  }
});

TEST(ShardedTable, OwnersGetTheMeanOfGradients) {
  expect_success("means");
}

TEST(ShardedTable, RefusesWhatDoesNotFit) {
  ProcessGroup alone;
  EXPECT_THROW(ShardedTable(0, 8, 1, 1.0, alone), Error);
  EXPECT_THROW(ShardedTable(at::zeros({5, 8}), 6, alone), Error);
  const ShardedTable table(10, 8, 1, 1.0, alone);
  EXPECT_THROW(table.touch(at::tensor({3, 10}, at::kLong)), Error);
  EXPECT_THROW(table.touch(at::tensor({-1}, at::kLong)), Error);
  EXPECT_THROW(table.mean_gradients(at::tensor({1}, at::kLong), at::zeros({1, 7})), Error);
}

/// Twenty steps of a small network on rows of a table, the global batch of 12 split over the processes; Adam
/// for the weights and for the rows that a step touches.
const AddScenario kTraining("training", [](ProcessGroup& group) {
  constexpr int64_t kBatch = 12, kHidden = 32;
  at::Generator generator = at::detail::createCPUGenerator(5);
  std::vector<Tensor> weights{at::randn({kHidden, 2 * kWidth}, generator) * 0.3,
                              at::randn({1, kHidden}, generator) * 0.3};
  ShardedTable table(kRows, kWidth, 42, 0.5, group);
  Tensor squares = at::zeros_like(table.own());
  std::vector<Tensor> weight_squares;
  for (Tensor& weight : weights) {
    weight.requires_grad_(true);
    weight_squares.push_back(at::zeros_like(weight));
  }
  const auto move = [](Tensor value, Tensor state, const Tensor& gradient) {
    state.mul_(0.9).add_(gradient.square() * 0.1);
    value.sub_(gradient * 0.02 / (state.sqrt() + 1e-3));
  };
  std::cout.precision(9);
  for (uint64_t step = 0; step < 20; ++step) {
    group.set_step(step);
    at::Generator order = at::detail::createCPUGenerator(900 + step % 4);
    const Tensor all = at::randint(0, 60, {kBatch, 2}, order, at::TensorOptions(at::kLong)) * 16;
    const Tensor wanted = at::sin(all.to(at::kFloat).sum(1, true));
    const Tensor ids = all.slice(0, group.rank(), c10::nullopt, group.size());
    const TouchedRows touched = table.touch(ids);
    const Tensor x = touched.rows.index_select(0, touched.where.flatten()).view({ids.size(0), 2 * kWidth});
    const Tensor y = at::linear(at::tanh(at::linear(x, weights[0])), weights[1]);
    const Tensor loss = at::mse_loss(y, wanted.slice(0, group.rank(), c10::nullopt, group.size()));
    loss.backward();
    const at::NoGradGuard no_grad;
    std::vector<Tensor> gradients{weights[0].grad(), weights[1].grad()};
    group.all_reduce_mean(gradients);
    const OwnedGradients rows = table.mean_gradients(touched.ids, touched.rows.grad());
    for (size_t i = 0; i < weights.size(); ++i) {
      move(weights[i].detach(), weight_squares[i], gradients[i]);
      weights[i].mutable_grad().zero_();
    }
    Tensor values = table.own().index_select(0, rows.places), state = squares.index_select(0, rows.places);
    move(values, state, rows.gradients);
    table.own().index_copy_(0, rows.places, values);
    squares.index_copy_(0, rows.places, state);
    const Tensor mean = loss.detach().clone();
    group.all_reduce_mean(mean);
    if (group.is_first()) std::cout << "LOSS " << mean.item<float>() << std::endl;
  }
});

std::vector<double> losses(const Worker& first) {
  std::vector<double> out;
  std::istringstream words(first.output);
  for (std::string word; words >> word;)
    if (word == "LOSS" && words >> word) out.push_back(std::stod(word));
  return out;
}

TEST(ShardedTable, ManyProcessesTrainAsOne) {
  const std::vector<double> one = losses(run_workers("training", 1)[0]);
  ASSERT_EQ(one.size(), 20u);
  const auto sum = [&](size_t first) {
    return one[first] + one[first + 1] + one[first + 2] + one[first + 3];
  };
  EXPECT_LT(sum(16), 0.9 * sum(0));  // the same four batches: it does learn
  for (const uint32_t size : {2u, 3u}) {
    const std::vector<Worker> workers = run_workers("training", size);
    for (const Worker& worker : workers) EXPECT_EQ(worker.exit_code, 0) << worker.output;
    const std::vector<double> many = losses(workers[0]);
    ASSERT_EQ(many.size(), 20u) << workers[0].output;
    for (size_t i = 0; i < one.size(); ++i)
      EXPECT_NEAR(many[i] / one[i], 1.0, 1e-5) << "step " << i << " of " << size;
    EXPECT_EQ(many, losses(run_workers("training", size)[0]));  // and the same bits again
  }
}

}  // namespace
}  // namespace mneme::train::sharded_table_test
