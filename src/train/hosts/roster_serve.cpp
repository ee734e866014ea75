// The roster's thread: reads what comes, passes it on where it is process 0's, gives signs of life and misses
// those of others.
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>

#include <fmt/format.h>

#include "train/hosts/roster_state.h"

namespace mneme::train {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using Kind = RosterMessage::Kind;
constexpr milliseconds kFarewell{2'000};  // for the others to close, when this process leaves

}  // namespace

milliseconds Roster::State::tick_length() const {
  return std::clamp(options_.silence_timeout / 4, milliseconds(10), milliseconds(1'000));
}

void Roster::State::keep(const std::string& key, const std::string& value) {
  const std::lock_guard lock(mutex);
  values[key] = value;
  changed.notify_all();
}

void Roster::State::send(const RosterMessage& message, uint32_t except) {
  const std::string bytes = encode(message);
  const std::lock_guard lock(sending_);
  for (const Peer& peer : peers_)
    if (peer.socket && peer.rank != except)
      send_all(peer.socket, bytes, kPatience);  // a failure is seen when reading
}

void Roster::State::close(Peer& peer) {
  const std::lock_guard lock(sending_);
  peer.socket.close();
  peer.inbox.clear();
}

bool Roster::State::all_closed() const {
  return std::none_of(peers_.begin(), peers_.end(),
                      [](const Peer& peer) { return static_cast<bool>(peer.socket); });
}

/// Waits until something can be read, somebody knocks or wake_ is written to.
bool Roster::State::wait_for_events(Clock::time_point until) {
  std::vector<pollfd> entries{{wake_.get(), POLLIN, 0}};
  const auto add = [&](const Socket& socket) {
    if (socket) entries.push_back({socket.get(), POLLIN, 0});
  };
  add(options_.listener);
  for (const Peer& peer : peers_) add(peer.socket);
  for (const Peer& newcomer : newcomers_) add(newcomer.socket);
  const auto remaining = std::chrono::duration_cast<milliseconds>(until - Clock::now()).count() + 1;
  return poll(entries.data(), entries.size(), static_cast<int>(std::max<int64_t>(remaining, 0))) > 0 &&
         entries[0].revents != 0;
}

void Roster::State::serve() {
  Clock::time_point next = Clock::now() + tick_length(), deadline = Clock::time_point::max();
  bool leaving = false;
  while (!(leaving && (all_closed() || Clock::now() >= deadline))) {
    if (wait_for_events(std::min(next, deadline)) && !leaving) {
      leaving = true;
      deadline = Clock::now() + kFarewell;
      uint64_t count = 0;
      [[maybe_unused]] const ssize_t got = ::read(wake_.get(), &count, sizeof count);
      for (const Peer& peer : peers_)
        if (peer.socket) ::shutdown(peer.socket.get(), SHUT_WR);
    }
    for (Peer& peer : peers_)
      if (peer.socket) read_from(peer);
    if (is_hub()) admit_newcomers(true);
    if (Clock::now() >= next && !leaving) {
      tick();  // once, however long the machine slept: silence is counted in time awake
      next = Clock::now() + tick_length();
    }
  }
}

void Roster::State::read_from(Peer& peer) {
  const Received received = receive_into(peer.socket, peer.inbox);
  if (received == Received::some) peer.silent = 0;
  bool bad = false;
  while (const std::optional<RosterMessage> message = take_message(peer.inbox, bad)) handle(peer, *message);
  if (bad || received == Received::closed) {
    if (!peer.left) lose(peer.rank, bad ? "it sent what is no message" : "its connection closed");
    close(peer);
  }
}

void Roster::State::handle(Peer& peer, const RosterMessage& message) {
  switch (message.kind) {
    case Kind::set:
      keep(message.key, message.value);
      break;
    case Kind::lost:
      peer.left |= message.rank == peer.rank;
      lose(message.rank, message.value);
      return;  // lose() has passed it on
    case Kind::goodbye: {
      peer.left |= message.rank == peer.rank;
      const std::lock_guard lock(mutex);
      if (!left) left = Loss{message.rank, "it ended before the others"};
      changed.notify_all();
      break;
    }
    default:
      return;
  }
  if (is_hub()) send(message, peer.rank);
}

void Roster::State::lose(uint32_t rank, const std::string& reason) {
  {
    const std::lock_guard lock(mutex);
    if (loss) return;
  }
  if (is_hub()) send({Kind::lost, rank, "", reason}, rank);  // first: this process may now end any moment
  std::function<void()> tell;
  {
    const std::lock_guard lock(mutex);
    loss = Loss{rank, reason};
    tell = told;
    changed.notify_all();
  }
  if (tell) tell();
}

void Roster::State::tick() {
  send({Kind::alive, options_.rank, "", ""});
  for (Peer& peer : peers_)
    if (peer.socket && ++peer.silent * tick_length() > options_.silence_timeout) {
      lose(peer.rank, fmt::format("no sign of life for {:.0f} s",
                                  static_cast<double>(options_.silence_timeout.count()) / 1000));
      close(peer);
    }
}

void Roster::State::leave() {
  if (!thread_.joinable()) return;
  bool silently = false;
  {
    const std::lock_guard lock(mutex);
    silently = gave_up;
    told = nullptr;
  }
  if (!silently) send({Kind::goodbye, options_.rank, "", ""});
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t wrote = ::write(wake_.get(), &one, sizeof one);
  thread_.join();
}

}  // namespace mneme::train
