#include "cli/progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "cli/terminal.h"

namespace mneme::cli {
namespace {

constexpr auto kDelay = std::chrono::milliseconds(300);  // work shorter than this shows no bar
constexpr auto kFrame = std::chrono::milliseconds(100);
constexpr size_t kBar = 24;      // cells, where there is room
constexpr size_t kLeastBar = 8;  // a shorter one says nothing

std::string amount(Progress::Unit unit, double value) {
  if (unit == Progress::Unit::bytes) return human_bytes(value);
  return fmt::format("{:.0f}", value);
}

}  // namespace

std::string progress_line(const std::string& title, Progress::Unit unit, uint64_t done, uint64_t total,
                          double per_second, int width) {
  std::string numbers;
  if (total > 0)
    numbers +=
        fmt::format(" {:3.0f}%", 100 * std::min(1.0, static_cast<double>(done) / static_cast<double>(total)));
  numbers += " " + amount(unit, static_cast<double>(done));
  if (total > 0) numbers += " / " + amount(unit, static_cast<double>(total));
  if (unit == Progress::Unit::tokens) numbers += " tokens";
  if (per_second > 0) {
    numbers += ", " + amount(unit, per_second) + "/s";
    if (total > done)
      numbers += ", " + human_seconds(static_cast<double>(total - done) / per_second) + " left";
  }
  // The numbers are what people wait for: in a narrow terminal the bar gives way, then the title.
  const size_t room = width > 0 ? static_cast<size_t>(width) : SIZE_MAX;
  std::string line = title.substr(0, room - std::min(room, numbers.size()));
  const size_t left = room - std::min(room, line.size() + numbers.size());
  if (total > 0 && left >= kLeastBar + 3) {
    const size_t cells = std::min<size_t>(kBar, left - 3);
    const double part = std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
    const auto filled = static_cast<size_t>(part * static_cast<double>(cells));
    line += fmt::format(" [{:#<{}}{:.<{}}]", "", filled, "", cells - filled);
  }
  line += numbers;
  if (line.size() > room) line.resize(room);
  return line;
}

Progress::Progress(std::string title, Unit unit, bool enabled)
    : title_(std::move(title)), unit_(unit), enabled_(enabled && stderr_is_terminal()) {}

Progress::~Progress() {
  clear();
}

void Progress::update(uint64_t done, uint64_t total) {
  if (!enabled_) return;
  const std::lock_guard lock(mutex_);
  const auto now = Clock::now();
  if (!started_) {
    started_ = true;
    start_ = now;
    first_ = done;
  }
  if (now - start_ < kDelay || (drawn_ && now - last_ < kFrame)) return;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const double rate = done > first_ ? static_cast<double>(done - first_) / seconds : 0;
  const std::string line = progress_line(title_, unit_, done, total, rate, terminal_width() - 1);
  std::fprintf(stderr, "\r\033[K%s", line.c_str());
  std::fflush(stderr);
  drawn_ = true;
  last_ = now;
}

void Progress::clear() {
  const std::lock_guard lock(mutex_);
  wipe();
}

void Progress::wipe() {
  if (!drawn_) return;
  std::fputs("\r\033[K", stderr);
  std::fflush(stderr);
  drawn_ = false;
}

}  // namespace mneme::cli
