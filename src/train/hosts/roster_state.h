// What a roster holds and its thread does; private to roster*.cpp. Process 0 (the hub) has one connection to
// each other process, the others have one to it; both serve them with the same loop. Meeting is in
// roster_join.cpp, the loop in roster_serve.cpp.
#pragma once
#include <condition_variable>
#include <map>
#include <mutex>
#include <string_view>
#include <thread>
#include <vector>

#include "train/hosts/roster.h"
#include "train/hosts/roster_message.h"

namespace mneme::train {

/// For a message to leave, and for a newcomer to say who it is.
inline constexpr std::chrono::milliseconds kPatience{5'000};

class Roster::State {
 public:
  explicit State(RosterOptions options) : options_(std::move(options)) {}
  ~State() { leave(); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  /// Meets the others, then starts the thread.
  void join();
  /// Sends `message` to all that are connected, but not to `except`.
  void send(const RosterMessage& message, uint32_t except = ~0u);
  /// Keeps a value of one's own or another's.
  void keep(const std::string& key, const std::string& value);
  /// Says goodbye (unless it gave up), hears the others out for a moment and stops the thread.
  void leave();

  const RosterOptions& options() const { return options_; }
  bool is_hub() const { return options_.rank == 0; }

  std::string address;
  mutable std::mutex mutex;  // guards what follows
  std::condition_variable changed;
  std::map<std::string, std::string> values;
  std::optional<Loss> loss, left;
  std::function<void()> told;
  bool gave_up = false;

 private:
  struct Peer {
    Socket socket;
    std::string inbox;
    uint32_t rank = 0;
    uint32_t silent = 0;  // ticks without a byte
    bool left = false;
  };

  void meet_as_hub();
  void meet_as_other();
  /// Whether all is said and the process may go on; false where the connection broke.
  bool await_welcome(Peer& peer, std::chrono::steady_clock::time_point deadline);
  /// Reads what newcomers say; takes them in, or refuses them with a reason.
  void admit_newcomers(bool begun);
  std::string objection(const RosterMessage& hello, bool begun) const;
  std::string missing() const;

  void serve();
  bool wait_for_events(std::chrono::steady_clock::time_point until);
  void read_from(Peer& peer);
  void handle(Peer& peer, const RosterMessage& message);
  void lose(uint32_t rank, const std::string& reason);
  void tick();
  void close(Peer& peer);
  bool all_closed() const;
  std::chrono::milliseconds tick_length() const;

  RosterOptions options_;
  std::vector<Peer> peers_;      // hub: all others in order of rank; else: the hub
  std::vector<Peer> newcomers_;  // hub: connected, but have not said who they are
  std::mutex sending_;           // guards sends, and closing
  Socket wake_;                  // written to when leaving
  std::thread thread_;
};

}  // namespace mneme::train
