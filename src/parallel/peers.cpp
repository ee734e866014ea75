#include "parallel/peers.h"

#include <algorithm>

#include "core/fail.h"
#include "core/relax.h"
#include "parallel/message_io.h"

namespace mneme {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

constexpr milliseconds kSignOfLife{1000}, kWatch{50}, kWatchWhileMoving{1};
constexpr size_t kLarge = size_t{1} << 15;  // bytes; smaller messages leave at once
constexpr uint64_t kMostText = 1 << 16, kMostFacts = 64;

// Waiting without a thread to wake it: a moment of looking again and again, because an answer is mostly a
// fraction of a millisecond away, and then sleep, so that others can have the core.
class Backoff {
 public:
  void pause() {
    ++turns_;
    if (turns_ < 20) return;
    if (turns_ < 200) return std::this_thread::yield();
    std::this_thread::sleep_for(microseconds(std::min<int64_t>(20 + (turns_ - 200), 500)));
  }
  void reset() { turns_ = 0; }

 private:
  int64_t turns_ = 0;
};

Peers::Facts read_facts(MessageReader& in) {
  Peers::Facts facts(in.varint(kMostFacts));
  for (auto& [what, value] : facts) {
    what = in.text(kMostText);
    value = in.text(kMostText);
  }
  in.end();
  return facts;
}

}  // namespace

Peers::Peers(std::unique_ptr<Transport> transport, const PeersOptions& options)
    : transport_(std::move(transport)),
      options_(options),
      rank_(transport_->rank()),
      size_(transport_->size()),
      peers_(size_) {
  for (Peer& peer : peers_) peer.heard = Clock::now();
  peers_[rank_].gone = true;  // nothing comes from oneself
  watch_ = std::thread([this] { watch(); });
}

Peers::~Peers() {
  if (!ended_) give_up(Error(ErrorCode::network, "it ended"));
  stop();
}

void Peers::stop() noexcept {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (watch_.joinable()) watch_.join();
}

void Peers::watch() {
  auto next = Clock::now();
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    lock.unlock();
    try {
      if (Clock::now() >= next) {
        tell_all(Kind::alive);
        next = Clock::now() + kSignOfLife;
      }
      pump();
      look_for_the_lost();
    } catch (const Error& error) {
      fail_with(error);
    } catch (const std::exception& error) {
      fail_with(Error(ErrorCode::out_of_memory, error.what()));
    }
    lock.lock();
    const bool moved = moving_;
    wake_.wait_for(lock, moved ? kWatchWhileMoving : kWatch,
                   [&] { return stopping_ || (moving_ && !moved); });
  }
}

void Peers::fail_with(Error error) {
  const std::lock_guard lock(mutex_);
  if (!error_) error_ = std::move(error);
}

void Peers::look_for_the_lost() {
  const std::lock_guard lock(mutex_);
  for (uint32_t r = 0; r < size_; ++r) {
    Peer& peer = peers_[r];
    if (peer.gone || Clock::now() - peer.heard < options_.lost_after) continue;
    peer.gone = true;
    // The others may leave while this one is slow to see it; the leader waits for each of them.
    if (!error_ && (!finished_ || rank_ == 0))
      error_ = Error(ErrorCode::network,
                     fmt::format("process {} of {} was lost: no sign of life for {:g} s", r, size_,
                                 std::chrono::duration<double>(options_.lost_after).count()));
  }
}

void Peers::pump() {
  const std::lock_guard one_at_a_time(pump_mutex_);  // so that messages stay in order
  while (auto message = transport_->poll()) take(std::move(*message));
}

void Peers::take(Message message) {
  require(message.from < size_ && message.from != rank_, ErrorCode::corrupt,
          "a message of process {} among {}", message.from, size_);
  require(!message.bytes.empty(), ErrorCode::corrupt, "a message of process {} is empty", message.from);
  const auto kind = static_cast<Kind>(message.bytes.back());
  message.bytes.pop_back();
  MessageReader in(message.bytes, fmt::format("a message of process {}", message.from));
  const std::lock_guard lock(mutex_);
  Peer& peer = peers_[message.from];
  peer.heard = Clock::now();
  switch (kind) {
    case Kind::alive:
      return;
    case Kind::gave_up: {
      const auto code = static_cast<ErrorCode>(in.varint(static_cast<uint64_t>(ErrorCode::internal)));
      const std::string why = in.text(kMostText);
      peer.gone = peer.gave_up = true;
      if (!error_)
        error_ = Error(code, fmt::format("process {} of {} gave up: {}", message.from, size_, why));
      return;
    }
    case Kind::finished:
      require(message.from == 0 || finished_, ErrorCode::corrupt, "process {} of {} has left before the end",
              message.from, size_);
      peer.gone = true;
      finished_ |= message.from == 0;
      return;
    case Kind::facts:
      peer.facts = read_facts(in);
      return;
    case Kind::agreed:
      agreed_ = true;
      return;
    case Kind::data:
      inbox_.push_back(std::move(message));
      return;
  }
  fail(ErrorCode::corrupt, "a message of process {} is of an unknown kind; all must run the same build",
       message.from);
}

// The kind stands last, where it can be put and taken without moving what may be hundreds of megabytes.
void Peers::post(uint32_t to, Kind kind, MessageBytes body) {
  body.push_back(static_cast<std::byte>(kind));
  transport_->send(to, std::move(body));
}

void Peers::tell_all(Kind kind, const MessageBytes& body) noexcept {
  for (uint32_t r = 0; r < size_; ++r) {
    {
      const std::lock_guard lock(mutex_);
      // One that gave up before this process does waits for its word, too.
      if (peers_[r].gone && !(kind == Kind::gave_up && peers_[r].gave_up)) continue;
    }
    try {
      post(r, kind, body);
    } catch (const std::exception&) {  // it is gone; look_for_the_lost() says so
    }
  }
}

template <class Done>
bool Peers::wait(Done done, std::optional<milliseconds> patience) {
  const auto begin = Clock::now();
  for (Backoff backoff;; backoff.pause()) {
    pump();
    {
      const std::lock_guard lock(mutex_);
      if (done()) return true;
      if (error_) throw Error(*error_);
    }
    if (patience && Clock::now() - begin > *patience) return false;
  }
}

void Peers::agree(const Facts& facts) {
  MessageWriter out;
  out.varint(facts.size());
  for (const auto& [what, value] : facts) {
    out.text(what);
    out.text(value);
  }
  if (rank_ != 0) {
    post(0, Kind::facts, out.take());
    wait([this] { return agreed_; });
    return;
  }
  wait([this] {
    return std::all_of(peers_.begin() + 1, peers_.end(),
                       [](const Peer& peer) { return peer.facts.has_value(); });
  });
  for (uint32_t r = 1; r < size_; ++r) {
    const Facts theirs = [&] {
      const std::lock_guard lock(mutex_);
      return peers_[r].facts.value_or(Facts());
    }();
    require(theirs.size() == facts.size(), ErrorCode::mismatch,
            "process {} of {} is of another version; all must run the same build", r, size_);
    for (size_t i = 0; i < facts.size(); ++i)
      require(theirs[i] == facts[i], ErrorCode::mismatch,
              "process {} of {} disagrees with process 0 on {}: {} and {}; start all with the same files and "
              "options",
              r, size_, facts[i].first, theirs[i].second, facts[i].second);
  }
  tell_all(Kind::agreed);
}

void Peers::send(uint32_t to, MessageBytes message) {
  const bool large = message.size() >= kLarge;
  {
    const std::lock_guard lock(mutex_);
    if (error_) throw Error(*error_);
    moving_ |= large;
  }
  post(to, Kind::data, std::move(message));
  if (large) wake_.notify_all();
}

std::optional<Message> Peers::receive() {
  std::optional<Message> out;
  wait([&] {
    if (!inbox_.empty()) {
      out = std::move(inbox_.front());
      inbox_.pop_front();
      moving_ = false;
      return true;
    }
    return finished_;
  });
  if (!out) finish();
  return out;
}

bool Peers::all_gone() {
  return std::all_of(peers_.begin(), peers_.end(), [](const Peer& peer) { return peer.gone; });
}

void Peers::finish() {
  if (rank_ == 0) {
    {
      const std::lock_guard lock(mutex_);
      finished_ = true;
    }
    tell_all(Kind::finished);
    require(wait([this] { return all_gone(); }, options_.finish), ErrorCode::network,
            "the other processes have not left {:g} s after the run was finished",
            std::chrono::duration<double>(options_.finish).count());
  } else {
    post(0, Kind::finished);
  }
  ended_ = true;
  stop();
  transport_->close();
}

void Peers::give_up(const Error& why) noexcept {
  if (ended_) return;
  ended_ = true;
  try {
    MessageWriter out;
    out.varint(static_cast<uint64_t>(why.code()));
    out.text(std::string_view(why.what()).substr(0, kMostText));
    tell_all(Kind::gave_up, out.take());
    fail_with(why);
    const auto end = Clock::now() + options_.farewell;
    for (Backoff backoff; Clock::now() < end; backoff.pause()) {
      pump();
      const std::lock_guard lock(mutex_);
      if (all_gone()) break;
    }
  } catch (const std::exception&) {  // there is nobody left to tell
  }
}

}  // namespace mneme
