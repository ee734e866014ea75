// How processes meet: the others knock at process 0 until it listens, say who they are, and wait until all
// are there.
#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <thread>

#include "core/fail.h"
#include "train/hosts/roster_state.h"

namespace mneme::train {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

milliseconds until(Clock::time_point deadline) {
  return std::max(milliseconds(0), std::chrono::duration_cast<milliseconds>(deadline - Clock::now()));
}

}  // namespace

void Roster::State::join() {
  wake_ = Socket(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  require(static_cast<bool>(wake_), ErrorCode::io, "the system gives no more file descriptors");
  if (is_hub())
    meet_as_hub();
  else
    meet_as_other();
  thread_ = std::thread([this] { serve(); });
}

void Roster::State::meet_as_hub() {
  if (!options_.listener) options_.listener = listen_on(options_.meeting_host, options_.port);
  address = own_address(options_.listener);
  for (uint32_t rank = 1; rank < options_.size; ++rank) {
    peers_.emplace_back();
    peers_.back().rank = rank;
  }
  const Clock::time_point deadline = Clock::now() + options_.join_timeout;
  const auto here = [](const Peer& peer) { return static_cast<bool>(peer.socket); };
  while (!std::all_of(peers_.begin(), peers_.end(), here)) {
    require(Clock::now() < deadline, ErrorCode::network,
            "after {:.0f} s process 0 still misses {} of {} (it listens at {} port {})",
            static_cast<double>(options_.join_timeout.count()) / 1000, missing(), options_.size, address,
            own_port(options_.listener));
    if (options_.while_waiting) options_.while_waiting();
    wait_for_events(std::min(deadline, Clock::now() + milliseconds(200)));
    for (Peer& peer : peers_)  // one that goes before the start may come again
      if (peer.socket && receive_into(peer.socket, peer.inbox) == Received::closed) close(peer);
    admit_newcomers(false);
  }
  send({RosterMessage::Kind::welcome, 0, "", ""});
}

std::string Roster::State::missing() const {
  std::string list;
  for (const Peer& peer : peers_)
    if (!peer.socket) list += (list.empty() ? "process " : ", ") + std::to_string(peer.rank);
  return list;
}

std::string Roster::State::objection(const RosterMessage& hello, bool begun) const {
  if (hello.value != std::to_string(options_.size))
    return fmt::format("it was started for {} processes, process {} for {}", options_.size, hello.rank,
                       hello.value);
  if (hello.rank == 0 || hello.rank >= options_.size)
    return fmt::format("there is no room for a process {} among {}", hello.rank, options_.size);
  if (const Peer& peer = peers_[hello.rank - 1]; peer.socket)
    return fmt::format("rank {} is taken by {}", hello.rank, peer_name(peer.socket));
  if (begun) return "the run has begun, and nobody can join it now";
  if (hello.key != options_.run)
    return fmt::format("it runs [{}], process {} [{}]; version and config must be the same", options_.run,
                       hello.rank, hello.key);
  return {};
}

void Roster::State::admit_newcomers(bool begun) {
  while (Socket socket = accept_from(options_.listener)) {
    newcomers_.emplace_back();
    newcomers_.back().socket = std::move(socket);
  }
  for (Peer& newcomer : newcomers_) {
    bool bad = receive_into(newcomer.socket, newcomer.inbox) == Received::closed;
    const std::optional<RosterMessage> hello = take_message(newcomer.inbox, bad);
    if (bad || (hello && hello->kind != RosterMessage::Kind::hello)) {
      newcomer.socket.close();  // a stranger
    } else if (hello) {
      const std::string problem = objection(*hello, begun);
      if (problem.empty()) {
        newcomer.rank = hello->rank;
        peers_[hello->rank - 1] = std::move(newcomer);
      } else {
        send_all(newcomer.socket, encode({RosterMessage::Kind::refused, 0, "", problem}), kPatience);
      }
      newcomer.socket.close();
    }
  }
  std::erase_if(newcomers_, [](const Peer& newcomer) { return !newcomer.socket; });
  if (newcomers_.size() > options_.size + 64)  // strangers that say nothing
    newcomers_.erase(newcomers_.begin());
}

void Roster::State::meet_as_other() {
  const Clock::time_point deadline = Clock::now() + options_.join_timeout;
  std::string why = "nobody answers";
  peers_.emplace_back();
  for (;;) {
    require(Clock::now() < deadline, ErrorCode::network,
            "process {} could not join process 0 at {} port {} within {:.0f} s: {}", options_.rank,
            options_.meeting_host, options_.port, static_cast<double>(options_.join_timeout.count()) / 1000,
            why);
    std::optional<Socket> socket =
        connect_to(options_.meeting_host, options_.port, options_.own_host,
                   std::min(until(deadline), milliseconds(2'000)) + milliseconds(1), why);
    if (socket) {
      Peer& hub = peers_.front();
      hub.socket = std::move(*socket);
      hub.inbox.clear();
      why = "it answers, but not all processes are there";
      if (await_welcome(hub, deadline)) {
        address = own_address(hub.socket);
        return;
      }
      hub.socket.close();
    }
    std::this_thread::sleep_for(std::min(until(deadline), milliseconds(100)));
  }
}

bool Roster::State::await_welcome(Peer& hub, Clock::time_point deadline) {
  const RosterMessage hello{RosterMessage::Kind::hello, options_.rank, options_.run,
                            std::to_string(options_.size)};
  if (!send_all(hub.socket, encode(hello), kPatience)) return false;
  for (;;) {
    bool bad = false;
    const std::optional<RosterMessage> answer = take_message(hub.inbox, bad);
    require(!bad, ErrorCode::network, "what listens at {} port {} is no process of a training run",
            options_.meeting_host, options_.port);
    if (answer && answer->kind == RosterMessage::Kind::welcome) return true;
    if (answer && answer->kind == RosterMessage::Kind::refused)
      fail(ErrorCode::mismatch, "process 0 at {} port {} refuses process {}: {}", options_.meeting_host,
           options_.port, options_.rank, answer->value);
    if (answer) continue;
    if (Clock::now() >= deadline) return false;
    pollfd entry{hub.socket.get(), POLLIN, 0};
    poll(&entry, 1, static_cast<int>(std::min(until(deadline), milliseconds(1'000)).count()));
    if (receive_into(hub.socket, hub.inbox) == Received::closed) return false;
  }
}

}  // namespace mneme::train
