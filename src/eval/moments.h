// Mean and standard deviation of a stream of numbers in one pass (Welford 1962), without cancellation.
#pragma once
#include <cmath>
#include <cstdint>

namespace mneme {

class Moments {
 public:
  void add(double value) noexcept {
    ++count_;
    const double delta = value - mean_;
    mean_ += delta / static_cast<double>(count_);
    squares_ += delta * (value - mean_);
  }
  uint64_t count() const noexcept { return count_; }
  double mean() const noexcept { return mean_; }
  /// Of the sample (n - 1); 0 for fewer than two numbers.
  double deviation() const noexcept {
    return count_ > 1 ? std::sqrt(squares_ / static_cast<double>(count_ - 1)) : 0.0;
  }

 private:
  uint64_t count_ = 0;
  double mean_ = 0, squares_ = 0;
};

}  // namespace mneme
