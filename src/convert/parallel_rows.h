// Rows of a chunk shared among threads. A conversion is limited by the disk, so threads made for each chunk
// of megabytes cost nothing that could be measured.
#pragma once
#include <algorithm>
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

namespace mneme {

/// Calls work(begin, end) for parts of [0, rows), from at most `threads` threads (0: one per core). An
/// exception of any part is thrown again here once all have ended.
template <class Work>
void parallel_rows(uint64_t rows, int threads, const Work& work) {
  const uint64_t wanted =
      threads > 0 ? static_cast<uint64_t>(threads) : std::max(1u, std::thread::hardware_concurrency());
  const uint64_t parts = std::clamp<uint64_t>(rows / 16, 1, wanted);
  std::vector<std::exception_ptr> errors(parts);
  const auto run = [&](uint64_t p) {
    try {
      work(rows * p / parts, rows * (p + 1) / parts);
    } catch (...) {
      errors[p] = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> helpers;
    for (uint64_t p = 1; p < parts; ++p) helpers.emplace_back(run, p);
    run(0);
  }
  for (const auto& error : errors)
    if (error) std::rethrow_exception(error);
}

}  // namespace mneme
