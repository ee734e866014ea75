#include <liburing.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <thread>

#include "core/fail.h"
#include "core/relax.h"
#include "memory/store/read_queue.h"

namespace mneme {
namespace {

constexpr std::chrono::microseconds kPollTime(500);  // a few reads of a solid-state disk

class UringQueue final : public ReadQueue {
 public:
  UringQueue(uint32_t depth, std::span<std::byte> arena) {
    const int error = io_uring_queue_init(depth, &ring_, 0);
    require(error == 0, ErrorCode::io, "cannot make an io_uring of depth {}: {}", depth,
            std::strerror(-error));
    if (arena.empty()) return;
    // Saves pinning pages for every read. Refused where too little memory may be locked; then reads pin their
    // own.
    const iovec all{arena.data(), arena.size()};
    registered_ = io_uring_register_buffers(&ring_, &all, 1) == 0;
  }
  ~UringQueue() override { io_uring_queue_exit(&ring_); }
  UringQueue(const UringQueue&) = delete;
  UringQueue& operator=(const UringQueue&) = delete;

  void push(const ReadRequest& request) override {
    io_uring_sqe* entry = io_uring_get_sqe(&ring_);
    if (entry == nullptr) {
      submit();
      entry = io_uring_get_sqe(&ring_);
    }
    require(entry != nullptr, ErrorCode::internal, "a read queue is fuller than it may be");
    if (registered_)
      io_uring_prep_read_fixed(entry, request.fd, request.into, request.bytes, request.offset, 0);
    else
      io_uring_prep_read(entry, request.fd, request.into, request.bytes, request.offset);
    io_uring_sqe_set_data64(entry, request.slot);
  }

  void submit() override { enter(0); }

  void poll(size_t at_least) override {
    if (io_uring_sq_ready(&ring_) > 0) submit();
    const auto end = std::chrono::steady_clock::now() + kPollTime;
    do {
      for (int i = 0; i < 16; ++i) {
        if (io_uring_cq_ready(&ring_) >= at_least) return;
        relax();
      }
    } while (std::chrono::steady_clock::now() < end);
  }

  size_t reap(std::span<ReadDone> out, size_t at_least) override {
    if (io_uring_sq_ready(&ring_) > 0 || io_uring_cq_ready(&ring_) < at_least)
      enter(static_cast<unsigned>(at_least));
    size_t count = 0;
    io_uring_cqe* entry = nullptr;
    unsigned head = 0;
    io_uring_for_each_cqe(&ring_, head, entry) {
      if (count == out.size()) break;
      out[count++] = {static_cast<uint32_t>(entry->user_data), entry->res};
    }
    io_uring_cq_advance(&ring_, static_cast<unsigned>(count));
    return count;
  }

 private:
  // Interrupted and short of resources pass; anything else means that the ring is of no use any more.
  void enter(unsigned at_least) {
    for (;;) {
      const int result = io_uring_submit_and_wait(&ring_, at_least);
      if (result >= 0 && io_uring_sq_ready(&ring_) == 0 && io_uring_cq_ready(&ring_) >= at_least) return;
      require(result >= 0 || result == -EINTR || result == -EAGAIN || result == -EBUSY, ErrorCode::io,
              "io_uring refused reads: {}", std::strerror(-result));
      if (result == -EBUSY || result == -EAGAIN) {  // completions must be taken first
        if (io_uring_cq_ready(&ring_) > 0) return;
      }
    }
  }

  io_uring ring_{};
  bool registered_ = false;
};

}  // namespace

ReadQueueFactory system_read_queue(uint32_t depth) {
  const char* const wish = std::getenv("MNEME_IO");
  if (wish != nullptr && std::string_view(wish) == "threads") return thread_read_queue("MNEME_IO=threads");
  io_uring probe{};
  const int error = io_uring_queue_init(depth, &probe, 0);
  if (error != 0) return thread_read_queue(fmt::format("io_uring is refused: {}", std::strerror(-error)));
  io_uring_queue_exit(&probe);
  return {"io_uring", [](uint32_t queue_depth, std::span<std::byte> arena) -> std::unique_ptr<ReadQueue> {
            return std::make_unique<UringQueue>(queue_depth, arena);
          }};
}

}  // namespace mneme
