// A bar on stderr with amount, rate and time left. It shows itself only on a terminal, and only when the work
// lasts longer than a moment, so that short work prints nothing.
#pragma once
#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>

namespace mneme::cli {

/// Thread-safe. The destructor wipes the line.
class Progress {
 public:
  enum class Unit { bytes, tokens, items };

  /// `title` is shown before the bar, e.g. "Loading". `enabled` false (--quiet) shows nothing.
  explicit Progress(std::string title, Unit unit = Unit::bytes, bool enabled = true);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// `total` 0: unknown. `done` at the first call counts as the start (a resumed download).
  void update(uint64_t done, uint64_t total);
  /// Wipes the line; a later update() draws it again.
  void clear();

 private:
  using Clock = std::chrono::steady_clock;
  std::string title_;
  Unit unit_;
  bool enabled_;
  bool drawn_ = false;
  bool started_ = false;
  uint64_t first_ = 0;
  Clock::time_point start_, last_;
  std::mutex mutex_;
  void wipe();
};

/// The text of the bar, `width` columns at most. Public for tests.
std::string progress_line(const std::string& title, Progress::Unit unit, uint64_t done, uint64_t total,
                          double per_second, int width);

}  // namespace mneme::cli
