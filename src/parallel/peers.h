// The processes of one run as one of them sees it: whether they agree on what is run, whether they are still
// there, and how a run ends. On top of any Transport.
//
// A thread of each process sends all others a sign of life every second, also while the process computes. A
// process that has been silent for too long is lost; one that fails tells the others why before it ends.
// Either ends the run in all of them with an Error that names the process: nobody waits for a message that
// will never come.
//
// Process 0 leads: the others do what it sends them until it says that it is finished.
#pragma once
#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "mneme/error.h"
#include "parallel/transport.h"

namespace mneme {

struct PeersOptions {
  std::chrono::milliseconds lost_after{20'000};  // without a sign of life
  std::chrono::milliseconds farewell{2'000};     // that a process which ends by an error waits for the others
  std::chrono::milliseconds finish{30'000};      // for all to have heard that the run is finished
};

/// Thread-safe. After an error every call throws it again, but give_up().
class Peers {
 public:
  explicit Peers(std::unique_ptr<Transport> transport, const PeersOptions& options = {});
  /// Without finish() or give_up() the others are told that this process ended.
  ~Peers();
  Peers(const Peers&) = delete;
  Peers& operator=(const Peers&) = delete;

  uint32_t rank() const noexcept { return rank_; }
  uint32_t size() const noexcept { return size_; }

  /// What must be equal in all processes, as pairs of what it is and its value. Returns when all have said
  /// theirs; throws Error(mismatch), in all of them, with the first process and fact that differ.
  using Facts = std::vector<std::pair<std::string, std::string>>;
  void agree(const Facts& facts);

  void send(uint32_t to, MessageBytes message);
  /// The next message. In a process that does not lead: empty when the leader has finished. Throws
  /// Error(network) when a process is lost, and the error of a process that gave up.
  std::optional<Message> receive();

  /// The leader, when nothing is left to do: returns when all have heard it and left.
  void finish();
  /// Before this process ends by an error: tells the others, and waits a moment for them to have heard it,
  /// because a launcher kills them when the first has ended.
  void give_up(const Error& why) noexcept;

 private:
  enum class Kind : uint8_t { alive, gave_up, finished, facts, agreed, data };
  using Clock = std::chrono::steady_clock;
  struct Peer {
    Clock::time_point heard;
    bool gone = false;     // finished, gave up or lost: nothing more will come
    bool gave_up = false;  // and waits to hear that the others know
    std::optional<Facts> facts;
  };

  void watch();
  void pump();
  void take(Message message);
  void post(uint32_t to, Kind kind, MessageBytes body = {});
  void tell_all(Kind kind, const MessageBytes& body = {}) noexcept;
  void look_for_the_lost();
  void fail_with(Error error);
  bool all_gone();
  void stop() noexcept;
  /// Pumps until `done` (called under the lock) or until there is an error, which is thrown. False: time is
  /// up.
  template <class Done>
  bool wait(Done done, std::optional<std::chrono::milliseconds> patience = {});

  std::unique_ptr<Transport> transport_;
  const PeersOptions options_;
  const uint32_t rank_, size_;
  std::mutex pump_mutex_, mutex_;
  std::condition_variable wake_;
  std::vector<Peer> peers_;
  std::deque<Message> inbox_;
  std::optional<Error> error_;
  bool moving_ = false;  // a large message is on its way, and moves on while somebody pumps
  bool agreed_ = false, finished_ = false, ended_ = false, stopping_ = false;
  std::thread watch_;
};

}  // namespace mneme
