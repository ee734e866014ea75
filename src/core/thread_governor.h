// ThreadGovernor: how many threads of a pool are worth using while other programs want the cores too.
//
// A stage ends when its slowest thread arrives. On an oversubscribed machine that is a thread which has lost
// its core for a time slice of milliseconds, and a pass of 150 stages then runs at a fraction of what one
// undisturbed thread would reach. The governor sees, for each job, how long it took and how long its caller
// slept at barriers. When sleeping takes more than kStalled of a window, one thread fewer is used; after a
// pause one thread more is tried again, and the pause doubles (to kLongestPause) each time the trial stalls.
// Results never depend on it: tasks and their borders are the same for any number of threads.
#pragma once
#include <algorithm>
#include <chrono>

namespace mneme {

/// Not thread-safe: belongs to whoever starts the jobs.
class ThreadGovernor {
 public:
  using Duration = std::chrono::nanoseconds;
  static constexpr Duration kWindow = std::chrono::milliseconds(30);
  static constexpr Duration kShortestPause = std::chrono::milliseconds(500);
  static constexpr Duration kLongestPause = std::chrono::seconds(8);
  static constexpr double kStalled = 0.3;

  explicit ThreadGovernor(int threads) : size_(threads), active_(threads) {}

  /// Threads for the next job: 1 to all.
  int active() const noexcept { return active_; }

  /// A job with active() threads took `elapsed`, of which its caller slept `stalled` for the others.
  void finished(Duration elapsed, Duration stalled) noexcept {
    elapsed_ += elapsed;
    stalled_ += stalled;
    if (active_ < size_) since_change_ += elapsed;
    if (active_ > 1 && elapsed_ >= kWindow) {
      const bool late =
          static_cast<double>(stalled_.count()) > kStalled * static_cast<double>(elapsed_.count());
      if (late) {
        pause_ = trial_ ? std::min(pause_ * 2, kLongestPause) : kShortestPause;
        change(active_ - 1, false);
        return;
      }
      if (trial_) pause_ = kShortestPause;  // the trial went well: the load is gone or less
      trial_ = false;
      elapsed_ = stalled_ = Duration::zero();
    }
    if (active_ < size_ && since_change_ >= pause_) change(active_ + 1, true);
  }

 private:
  void change(int active, bool trial) noexcept {
    active_ = active;
    trial_ = trial;
    elapsed_ = stalled_ = since_change_ = Duration::zero();
  }

  int size_, active_;
  bool trial_ = false;  // the current window tries one thread more
  Duration elapsed_{}, stalled_{}, since_change_{}, pause_{kShortestPause};
};

}  // namespace mneme
