// Processes of a run as threads of one: a Transport for tests. Messages go through queues in memory; a rank
// can be made to die, after which it receives nothing and what it sends is dropped.
#pragma once
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "parallel/transport.h"

namespace mneme {

class LocalWorld {
 public:
  explicit LocalWorld(uint32_t size) : inboxes_(size), dead_(size, false) {}

  std::unique_ptr<Transport> transport(uint32_t rank) { return std::make_unique<Member>(*this, rank); }
  void kill(uint32_t rank) {
    const std::lock_guard lock(mutex_);
    dead_[rank] = true;
  }
  /// Puts a message in someone's inbox as if another rank had sent it.
  void inject(uint32_t from, uint32_t to, MessageBytes bytes) {
    const std::lock_guard lock(mutex_);
    if (!dead_[from] && !dead_[to]) inboxes_[to].push_back({from, std::move(bytes)});
  }
  uint32_t closed() {
    const std::lock_guard lock(mutex_);
    return closed_;
  }

 private:
  class Member final : public Transport {
   public:
    Member(LocalWorld& world, uint32_t rank) : world_(world), rank_(rank) {}
    uint32_t rank() const override { return rank_; }
    uint32_t size() const override { return static_cast<uint32_t>(world_.inboxes_.size()); }
    void send(uint32_t to, MessageBytes message) override { world_.inject(rank_, to, std::move(message)); }
    std::optional<Message> poll() override {
      const std::lock_guard lock(world_.mutex_);
      auto& inbox = world_.inboxes_[rank_];
      if (world_.dead_[rank_] || inbox.empty()) return {};
      Message out = std::move(inbox.front());
      inbox.pop_front();
      return out;
    }
    void close() override {
      const std::lock_guard lock(world_.mutex_);
      ++world_.closed_;
    }

   private:
    LocalWorld& world_;
    const uint32_t rank_;
  };

  std::mutex mutex_;
  std::vector<std::deque<Message>> inboxes_;
  std::vector<bool> dead_;
  uint32_t closed_ = 0;
};

}  // namespace mneme
