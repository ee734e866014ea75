#include "train/run/report.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "core/fail.h"

namespace mneme::train {
namespace {

std::string time_text(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0 || seconds > 3.6e7) return "-:--";
  const auto whole = static_cast<uint64_t>(std::ceil(seconds));
  if (whole >= 3600) return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
  return fmt::format("{}:{:02}", whole / 60, whole % 60);
}

std::string grouped(double number) {
  std::string digits = fmt::format("{:.0f}", number);
  for (auto at = static_cast<int>(digits.size()) - 3; at > 0; at -= 3)
    digits.insert(static_cast<size_t>(at), 1, ',');
  return digits;
}

/// 0, or why it failed.
int write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t done = ::write(fd, text.data(), text.size());
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) return errno;
    text.remove_prefix(static_cast<size_t>(done));
  }
  return 0;
}

/// For people: unlike fmt::print, it does not throw where nobody reads.
void put(const std::string& text) {
  std::fputs(text.c_str(), stderr);
  std::fflush(stderr);
}

}  // namespace

std::string progress_text(const StepReport& r, double rate) {
  const double per_step = static_cast<double>(r.tokens) / static_cast<double>(std::max<uint64_t>(r.step, 1));
  const double left = static_cast<double>(r.steps - r.step) * per_step / rate;
  std::string text =
      fmt::format("step {}/{}  loss {:.4f}  {} tokens/s", r.step, r.steps, r.loss, grouped(rate));
  if (r.mfu > 0) text += fmt::format("  MFU {:.0f} %", 100 * r.mfu);
  if (r.silent) text += fmt::format("  silent {:.1f} %", 100 * *r.silent);
  if (r.experts)
    text += fmt::format("  experts {:.2f}, CV {:.2f}, {} starved", r.experts->active, r.experts->variation,
                        r.experts->starved);
  return text + fmt::format("  {} left", time_text(left));
}

Report::Report(bool json, bool quiet, bool active)
    : json_(json && active), quiet_(quiet || !active), active_(active) {
  const char* const kind = std::getenv("TERM");
  terminal_ = ::isatty(STDERR_FILENO) == 1 && kind != nullptr && std::strcmp(kind, "dumb") != 0;
}

Report::~Report() {
  if (log_ >= 0) ::close(log_);
  if (drawn_) std::fputc('\n', stderr);
}

void Report::open_log(const fs::path& path, uint64_t bytes) {
  if (!active_) return;
  log_path_ = path;
  log_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  require(log_ >= 0, ErrorCode::io, "cannot open {}: {}", path.string(), std::strerror(errno));
  const off_t size = ::lseek(log_, 0, SEEK_END);
  if (size > 0 && static_cast<uint64_t>(size) > bytes)
    require(::ftruncate(log_, static_cast<off_t>(bytes)) == 0, ErrorCode::io, "cannot cut {}: {}",
            path.string(), std::strerror(errno));
}

uint64_t Report::sync_log() {
  if (log_ < 0) return 0;
  require(::fsync(log_) == 0, ErrorCode::io, "cannot sync {}: {}", log_path_.string(), std::strerror(errno));
  return static_cast<uint64_t>(std::max<off_t>(::lseek(log_, 0, SEEK_END), 0));
}

void Report::line(const OrderedJson& json) {
  if (!active_) return;
  const std::string text = json.dump(-1, ' ', false, OrderedJson::error_handler_t::replace) + "\n";
  const auto check = [](int problem, const std::string& name) {
    require(problem == 0, ErrorCode::io, "cannot write {}: {}", name, std::strerror(problem));
  };
  if (log_ >= 0) check(write_all(log_, text), log_path_.string());
  if (!json_ || reader_is_gone_) return;
  const int problem = write_all(STDOUT_FILENO, text);
  reader_is_gone_ = problem == EPIPE || problem == EIO;
  if (!reader_is_gone_) check(problem, "standard output");
}

void Report::step(const StepReport& r) {
  OrderedJson json{{"step", r.step},     {"loss", r.loss},
                   {"lr", r.lr},         {"gradient_norm", r.gradient_norm},
                   {"tokens", r.tokens}, {"tokens_per_second", std::round(r.tokens_per_second * 10) / 10}};
  if (r.mfu > 0) json["mfu"] = std::round(r.mfu * 1e4) / 1e4;
  if (r.silent) json["silent"] = std::round(*r.silent * 1e4) / 1e4;
  if (r.experts) {
    json["active"] = std::round(r.experts->active * 1e4) / 1e4;
    json["load_cv"] = std::round(r.experts->variation * 1e4) / 1e4;
    json["starved"] = r.experts->starved;
  }
  json["seconds"] = std::round(r.seconds * 1000) / 1000;
  line(json);
  // A smoothed rate forgets the first steps, in which caches and pages are still cold.
  rate_ = rate_ == 0 ? r.tokens_per_second : 0.9 * rate_ + 0.1 * r.tokens_per_second;
  if (quiet_) return;
  const auto now = Clock::now();
  const auto pause = terminal_ ? std::chrono::milliseconds(100) : std::chrono::milliseconds(10'000);
  if (said_ && r.step != r.steps && now - last_ < pause) return;
  said_ = true;
  last_ = now;
  const std::string text = progress_text(r, rate_);
  put((terminal_ ? "\r\033[K" : "") + text + (terminal_ ? "" : "\n"));
  drawn_ = terminal_;
}

void Report::event(const OrderedJson& json, const std::string& text) {
  line(json);
  if (!text.empty()) say(text);
}

void Report::say(const std::string& text) {
  if (quiet_) return;
  finish_line();
  put(text + "\n");
}

void Report::finish_line() {
  if (drawn_) std::fputc('\n', stderr);
  drawn_ = false;
}

}  // namespace mneme::train
