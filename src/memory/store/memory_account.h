// MemoryAccount: what a table and its batches hold, against the budget that the user gave.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "core/fail.h"

namespace mneme {

class MemoryAccount {
 public:
  /// budget 0: no bound, only counted.
  MemoryAccount(uint64_t budget, std::string owner) : budget_(budget), owner_(std::move(owner)) {}

  /// Throws Error(limit) if that would exceed the budget; then nothing has changed.
  void take(uint64_t bytes, const char* what) {
    const uint64_t used = used_.fetch_add(bytes, std::memory_order_relaxed) + bytes;
    if (budget_ == 0 || used <= budget_) return;
    give_back(bytes);
    fail(ErrorCode::limit,
         "{}: {} needs {} bytes, but {} of the memory budget of {} are in use; give a budget of at least {}, "
         "or "
         "smaller chunks",
         owner_, what, bytes, used - bytes, budget_, used);
  }
  void give_back(uint64_t bytes) noexcept { used_.fetch_sub(bytes, std::memory_order_relaxed); }
  uint64_t used() const noexcept { return used_.load(std::memory_order_relaxed); }
  uint64_t budget() const noexcept { return budget_; }

 private:
  const uint64_t budget_;
  const std::string owner_;
  std::atomic<uint64_t> used_{0};
};

/// An amount taken from an account, given back at the end.
class MemoryCharge {
 public:
  explicit MemoryCharge(std::shared_ptr<MemoryAccount> account) : account_(std::move(account)) {}
  ~MemoryCharge() { account_->give_back(bytes_); }
  MemoryCharge(const MemoryCharge&) = delete;
  MemoryCharge& operator=(const MemoryCharge&) = delete;

  /// Throws Error(limit) if the account refuses to grow; then nothing has changed.
  void resize(uint64_t bytes, const char* what) {
    if (bytes > bytes_)
      account_->take(bytes - bytes_, what);
    else
      account_->give_back(bytes_ - bytes);
    bytes_ = bytes;
  }
  uint64_t bytes() const noexcept { return bytes_; }

 private:
  std::shared_ptr<MemoryAccount> account_;
  uint64_t bytes_ = 0;
};

}  // namespace mneme
