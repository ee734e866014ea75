// ReadQueue: many reads of files in flight at once, from one thread. The seam at which tests put a disk that
// fails.
//
//   io_uring   one system call hands over many reads and waits for many
//   threads    where the system refuses io_uring (a container's seccomp filter, an old kernel): a few threads
//   that
//              each take a large group of the reads
//
// A queue is used by one thread at a time.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace mneme {

struct ReadRequest {
  int fd = -1;
  uint64_t offset = 0;
  uint32_t bytes = 0;
  std::byte* into = nullptr;
  uint32_t slot = 0;  // comes back with the result
};

struct ReadDone {
  uint32_t slot = 0;
  int32_t result = 0;  // bytes read, or -errno
};

class ReadQueue {
 public:
  virtual ~ReadQueue() = default;  // nothing may be in flight
  /// Adds a read; never more than the queue's depth are in it. It may not begin before submit() or reap().
  virtual void push(const ReadRequest& request) = 0;
  /// Begins all reads that were added.
  virtual void submit() = 0;
  /// Begins what was added and looks, for a fraction of a millisecond and without sleeping, whether
  /// `at_least` reads have ended. For a caller with nothing else to do: to be woken costs more than most
  /// reads take.
  virtual void poll(size_t /*at_least*/) { submit(); }
  /// Begins what was added, waits until `at_least` reads have ended and fills `out` with as many as have, up
  /// to its size. Throws Error(io) if the system refuses to go on.
  virtual size_t reap(std::span<ReadDone> out, size_t at_least) = 0;
};

/// How a table makes its queues. `arena`: the memory that reads go to, if it may be registered with the
/// system.
struct ReadQueueFactory {
  std::string name;  // for describe(): "io_uring", or the other way and why
  std::function<std::unique_ptr<ReadQueue>(uint32_t depth, std::span<std::byte> arena)> make;
};

/// io_uring if the system grants a ring of that depth; otherwise threads, and its name says so and why. The
/// environment variable MNEME_IO=threads forces the latter.
ReadQueueFactory system_read_queue(uint32_t depth);
ReadQueueFactory thread_read_queue(const std::string& reason);

}  // namespace mneme
