// Who takes part in a run, and whether they are still there. Gloo moves gradients well, but it tells a
// process only that some connection broke, and where processes are not neighbours it tells nothing until a
// time-out. So each process keeps one more connection, to process 0, with one thread that sends a sign of
// life every second. Process 0 tells all others at once who was lost, and why.
//
// The same connections bring the processes together: process 0 refuses a rank that is taken, another number
// of processes, and another run (config or version), with the reason; and the addresses that Gloo needs
// travel as values that everybody gets. There is no authentication: run it in a network that you trust.
#pragma once
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "train/hosts/sockets.h"

namespace mneme::train {

struct RosterOptions {
  uint32_t rank = 0, size = 1;
  std::string meeting_host;  // where process 0 listens: a name or an address
  uint16_t port = 29500;     // 0 with a listener only
  std::string own_host;      // the address of this process; empty: whichever leads to process 0
  Socket listener;           // process 0: a socket that listens already; then host and port are unused
  std::string run;           // equal in all processes: version and config of the run
  std::chrono::milliseconds join_timeout{120'000};    // for all to be there
  std::chrono::milliseconds silence_timeout{20'000};  // without a sign of life; time asleep does not count
  std::function<void()> while_waiting;  // called often until all are there; ends the waiting by throwing
};

/// A process that is gone before its time.
struct Loss {
  uint32_t rank = 0;
  std::string reason;
};

/// Thread-safe after join().
class Roster {
 public:
  /// Returns when all processes are there. Throws Error(mismatch) with process 0's reason if it refuses this
  /// one, Error(invalid_argument) for hosts that are none, Error(network) after join_timeout: process 0 names
  /// the ranks that it misses.
  static std::unique_ptr<Roster> join(RosterOptions options);
  /// Says goodbye, if give_up() was not called.
  ~Roster();

  /// The own numeric address at which the others reach this process.
  const std::string& address() const noexcept;
  /// Everybody gets `value` under `key`.
  void set(const std::string& key, const std::string& value);
  /// The value of `key`, empty where it has not come within `timeout` or a process was lost before it came.
  std::optional<std::string> wait(const std::string& key, std::chrono::milliseconds timeout);
  bool has(const std::string& key) const;

  /// The first process that was lost, or else one that ended before this one.
  std::optional<Loss> loss() const;
  /// The same, but waits for the news: a broken connection of Gloo is often seen first.
  std::optional<Loss> wait_for_loss(std::chrono::milliseconds timeout);
  /// Called once, on the roster's thread, when a process is lost. Set it before anything can wait for it.
  void on_loss(std::function<void()> told);
  /// Tells all others that this process ends by an error, unless they have heard of a loss already.
  void give_up(const std::string& reason);

 private:
  class State;
  explicit Roster(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace mneme::train
