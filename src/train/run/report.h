// What a run says of itself: one JSON line for every event into OUT/log.jsonl (and onto stdout with --json),
// and one line for people on stderr, redrawn on a terminal, every ten seconds elsewhere.
//
//   {"step", "loss", "lr", "gradient_norm", "tokens", "tokens_per_second", "mfu", "silent", "active",
//    "load_cv", "starved", "seconds"} every step; some where the model has what they count
//   {"step", "experts": [a line of ExpertTally::report() a layer]} of the steps since the last such line
//   {"step", "validation_loss", "perplexity", "bits_per_byte", "best"}
//   {"step", "prompt", "sample"}
//   {"step", "checkpoint"}
#pragma once
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "core/file.h"
#include "core/json.h"

namespace mneme::train {

struct StepReport {
  uint64_t step = 0, steps = 0;
  double loss = 0, lr = 0, gradient_norm = 0;
  uint64_t tokens = 0;           // trained on so far
  double seconds = 0;            // so far, all parts of the run
  double tokens_per_second = 0;  // of this step, over all processes
  double mfu = 0;                // share of the measured rate of matrix products; 0: unknown
  std::optional<double> silent;  // part of the weights of spiking projections that no input read
  struct Experts {
    double active = 0;     // experts that a token passed, on the mean over layers
    double variation = 0;  // the load's coefficient of variation, likewise
    uint64_t starved = 0;  // experts of all layers with less than a tenth of their even share
  };
  std::optional<Experts> experts;  // of this step, over all processes
};

/// Nothing that is said to people fails: a terminal or a pipe that is gone must not cost a run what it has
/// not saved. SIGPIPE must be ignored. Not thread-safe.
class Report {
 public:
  /// `json`: lines on stdout; `quiet`: nothing for people. `active` false (all processes but the first) says
  /// and writes nothing.
  Report(bool json, bool quiet, bool active);
  ~Report();
  Report(const Report&) = delete;
  Report& operator=(const Report&) = delete;

  /// Opens the log and cuts it to `bytes`: what came after the checkpoint that a run goes on from will come
  /// again. Throws Error(io).
  void open_log(const fs::path& path, uint64_t bytes);
  /// Makes the log durable; its length.
  uint64_t sync_log();

  void step(const StepReport& report);
  /// One event: a line of JSON, and `text` for people (empty: none).
  void event(const OrderedJson& line, const std::string& text);
  /// For people alone.
  void say(const std::string& text);
  /// Ends the redrawn line.
  void finish_line();
  /// Whether what reads standard output (with --json) has gone away; the log has all lines all the same.
  bool reader_is_gone() const noexcept { return reader_is_gone_; }

 private:
  using Clock = std::chrono::steady_clock;
  bool json_, quiet_, active_, terminal_;
  bool drawn_ = false, said_ = false, reader_is_gone_ = false;
  int log_ = -1;
  fs::path log_path_;
  double rate_ = 0;  // tokens a second, smoothed
  Clock::time_point last_;

  void line(const OrderedJson& json);
};

/// "step 120/2000  loss 3.4120  12,345 tokens/s  MFU 43 %  2:05 left". `rate` is the smoothed one, which the
/// time left is worked out from. Public for tests.
std::string progress_text(const StepReport& report, double rate);

}  // namespace mneme::train
