#include "train/hosts/roster.h"

#include "core/fail.h"
#include "train/hosts/roster_state.h"

namespace mneme::train {

std::unique_ptr<Roster> Roster::join(RosterOptions options) {
  require(options.size > 0 && options.rank < options.size, ErrorCode::invalid_argument,
          "there is no process {} among {}; they are numbered from 0", options.rank, options.size);
  auto state = std::make_unique<State>(std::move(options));
  state->join();
  return std::unique_ptr<Roster>(new Roster(std::move(state)));
}

Roster::Roster(std::unique_ptr<State> state) : state_(std::move(state)) {}
Roster::~Roster() = default;

const std::string& Roster::address() const noexcept {
  return state_->address;
}

void Roster::set(const std::string& key, const std::string& value) {
  state_->keep(key, value);
  state_->send({RosterMessage::Kind::set, state_->options().rank, key, value});
}

std::optional<std::string> Roster::wait(const std::string& key, std::chrono::milliseconds timeout) {
  std::unique_lock lock(state_->mutex);
  state_->changed.wait_for(lock, timeout,
                           [&] { return state_->values.count(key) != 0 || state_->loss || state_->left; });
  const auto found = state_->values.find(key);
  return found == state_->values.end() ? std::nullopt : std::optional(found->second);
}

bool Roster::has(const std::string& key) const {
  const std::lock_guard lock(state_->mutex);
  return state_->values.count(key) != 0;
}

std::optional<Loss> Roster::loss() const {
  const std::lock_guard lock(state_->mutex);
  return state_->loss ? state_->loss : state_->left;
}

std::optional<Loss> Roster::wait_for_loss(std::chrono::milliseconds timeout) {
  std::unique_lock lock(state_->mutex);
  state_->changed.wait_for(lock, timeout, [&] { return state_->loss || state_->left; });
  return state_->loss ? state_->loss : state_->left;
}

void Roster::on_loss(std::function<void()> told) {
  const std::lock_guard lock(state_->mutex);
  state_->told = std::move(told);
}

void Roster::give_up(const std::string& reason) {
  {
    const std::lock_guard lock(state_->mutex);
    if (std::exchange(state_->gave_up, true) || state_->loss) return;  // all know that it is over
  }
  state_->send({RosterMessage::Kind::lost, state_->options().rank, "", reason});
}

}  // namespace mneme::train
