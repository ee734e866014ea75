#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "core/fail.h"
#include "memory/store/read_queue.h"

namespace mneme {
namespace {

constexpr size_t kThreads = 8;

struct Mailbox {
  std::mutex mutex;
  std::condition_variable arrived;
  std::deque<ReadDone> done;
};

struct Group {
  std::vector<ReadRequest> reads;
  std::shared_ptr<Mailbox> mailbox;
};

// The threads of a table, shared by its queues.
class ReadThreads {
 public:
  ReadThreads() {
    for (size_t i = 0; i < kThreads; ++i) threads_.emplace_back([this] { work(); });
  }
  ~ReadThreads() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    there_is_work_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  ReadThreads(const ReadThreads&) = delete;
  ReadThreads& operator=(const ReadThreads&) = delete;

  void add(Group group) {
    {
      const std::lock_guard lock(mutex_);
      groups_.push_back(std::move(group));
    }
    there_is_work_.notify_one();
  }

 private:
  static int32_t read_once(const ReadRequest& read) {
    for (;;) {
      const ssize_t got = ::pread(read.fd, read.into, read.bytes, static_cast<off_t>(read.offset));
      if (got >= 0) return static_cast<int32_t>(got);
      if (errno != EINTR) return -errno;
    }
  }
  void work() {
    for (;;) {
      Group group;
      {
        std::unique_lock lock(mutex_);
        there_is_work_.wait(lock, [&] { return stopping_ || !groups_.empty(); });
        if (groups_.empty()) return;
        group = std::move(groups_.front());
        groups_.pop_front();
      }
      std::vector<ReadDone> done;
      for (const ReadRequest& read : group.reads) done.push_back({read.slot, read_once(read)});
      const std::lock_guard lock(group.mailbox->mutex);
      group.mailbox->done.insert(group.mailbox->done.end(), done.begin(), done.end());
      group.mailbox->arrived.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable there_is_work_;
  std::deque<Group> groups_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

class ThreadQueue final : public ReadQueue {
 public:
  explicit ThreadQueue(std::shared_ptr<ReadThreads> threads) : threads_(std::move(threads)) {}

  void push(const ReadRequest& request) override { added_.push_back(request); }

  void submit() override {
    const size_t share = (added_.size() + kThreads - 1) / kThreads;
    for (size_t i = 0; i < added_.size(); i += share) {
      const auto begin = added_.begin() + static_cast<ptrdiff_t>(i);
      threads_->add({{begin, begin + static_cast<ptrdiff_t>(std::min(share, added_.size() - i))}, mailbox_});
    }
    added_.clear();
  }

  size_t reap(std::span<ReadDone> out, size_t at_least) override {
    submit();
    std::unique_lock lock(mailbox_->mutex);
    mailbox_->arrived.wait(lock, [&] { return mailbox_->done.size() >= at_least; });
    const size_t count = std::min(out.size(), mailbox_->done.size());
    std::copy_n(mailbox_->done.begin(), count, out.begin());
    mailbox_->done.erase(mailbox_->done.begin(), mailbox_->done.begin() + static_cast<ptrdiff_t>(count));
    return count;
  }

 private:
  std::shared_ptr<ReadThreads> threads_;
  std::shared_ptr<Mailbox> mailbox_ = std::make_shared<Mailbox>();
  std::vector<ReadRequest> added_;
};

}  // namespace

ReadQueueFactory thread_read_queue(const std::string& reason) {
  auto threads = std::make_shared<std::shared_ptr<ReadThreads>>();  // begun with the first queue
  auto once = std::make_shared<std::once_flag>();
  return {fmt::format("pread by {} threads ({})", kThreads, reason),
          [threads, once](uint32_t, std::span<std::byte>) -> std::unique_ptr<ReadQueue> {
            std::call_once(*once, [&] { *threads = std::make_shared<ReadThreads>(); });
            return std::make_unique<ThreadQueue>(*threads);
          }};
}

}  // namespace mneme
