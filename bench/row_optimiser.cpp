// Time of the row optimisers for one touched row, at equal touched rows, against the size of the table: it
// must not depend on it. Prints one JSON line for each table and kind.
//
//   row_optimiser [--rows 18,19,20,21,22] [--touched 16384] [--head-dim 64] [--repeat 30] [--threads N]
//                 [--between 512]
//
// Rows are drawn anew for each update, and before it `between` MB of other memory are written, as a pass
// forward and backward does between two updates: no table lies in the caches, however small. Tables are
// measured in turns, so that a disturbance meets all of them. Reported are the median over updates and its
// spread (half of the distance between the quartiles).
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>

#include "core/random.h"
#include "core/thread_pool.h"
#include "train/optimise/huge_tensor.h"
#include "train/optimise/row_optimiser.h"

namespace {

using namespace mneme;
using namespace mneme::train;
using Clock = std::chrono::steady_clock;

struct Case {
  uint32_t log2_rows;
  RowOptimiserConfig::Type type;
  Tensor values;
  std::unique_ptr<RowOptimiser> optimiser;
  std::vector<double> nanoseconds;  // of a row
};

/// Sorted distinct ids, as a batch has them.
Tensor draw(Pcg64& random, int64_t rows, int64_t touched) {
  std::vector<int64_t> ids;
  while (static_cast<int64_t>(ids.size()) < touched) {
    while (static_cast<int64_t>(ids.size()) < touched)
      ids.push_back(static_cast<int64_t>(random.below(static_cast<uint64_t>(rows))));
    std::sort(ids.begin(), ids.end());
    ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  }
  return at::tensor(ids, at::kLong);
}

double quantile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1))];
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Row optimisers against the size of the table");
  std::vector<uint32_t> sizes{18, 19, 20, 21, 22};
  int64_t touched = 16384, head_dim = 64;
  int64_t between = 512;
  int repeat = 30, threads = available_cores();
  std::string kind = "adam,scalar";
  app.add_option("--rows", sizes, "log2 of the rows of each table")
      ->delimiter(',')
      ->check(CLI::Range(12, 30));
  app.add_option("--touched", touched, "Rows of an update");
  app.add_option("--head-dim", head_dim, "Values of a row");
  app.add_option("--repeat", repeat, "Updates of each table");
  app.add_option("--threads", threads, "Threads");
  app.add_option("--between", between, "MB of other memory that are written before each update");
  app.add_option("--kind", kind, "adam, scalar or both");
  CLI11_PARSE(app, argc, argv);
  at::set_num_threads(threads);
  std::vector<Case> cases;
  for (const uint32_t size : sizes)
    for (const auto type : {RowOptimiserConfig::Type::adam, RowOptimiserConfig::Type::scalar}) {
      const bool adam = type == RowOptimiserConfig::Type::adam;
      if (kind.find(adam ? "adam" : "scalar") == std::string::npos) continue;
      RowOptimiserConfig config;
      config.type = type;
      const int64_t rows = int64_t{1} << size;
      Tensor values = huge_zeros({rows, head_dim});
      auto optimiser = std::make_unique<RowOptimiser>(config, static_cast<uint64_t>(rows),
                                                      static_cast<uint32_t>(head_dim));
      values.fill_(0.01);  // every page is there before the clock starts
      for (auto& [name, state] : optimiser->state()) state.zero_();
      cases.push_back({size, type, std::move(values), std::move(optimiser), {}});
    }
  Tensor other = huge_zeros({std::max<int64_t>(between, 1) << 18});
  Pcg64 random(1);
  for (int round = -3; round < repeat; ++round)
    for (Case& one : cases) {
      const Tensor ids = draw(random, int64_t{1} << one.log2_rows, touched);
      const Tensor gradients = at::full({touched, head_dim}, 0.01f);
      if (between > 0) other.add_(1);
      const auto start = Clock::now();
      one.optimiser->update(one.values, ids, gradients, 1e-3);
      const double ns = std::chrono::duration<double, std::nano>(Clock::now() - start).count();
      if (round >= 0) one.nanoseconds.push_back(ns / static_cast<double>(touched));
    }
  for (const Case& one : cases)
    fmt::print("{{\"optimiser\": \"{}\", \"log2_rows\": {}, \"ns_per_row\": {:.1f}, \"spread\": {:.1f}}}\n",
               one.type == RowOptimiserConfig::Type::adam ? "adam" : "scalar", one.log2_rows,
               quantile(one.nanoseconds, 0.5),
               (quantile(one.nanoseconds, 0.75) - quantile(one.nanoseconds, 0.25)) / 2);
  return 0;
}
