// How the processes of one run reach each other: whole messages of bytes, in order between any two of them.
// Everything else (who is still there, who is the leader, what a message means) is built on top, in peers.h,
// so that an implementation is small: MPI in a library of its own (plugin_transport.h), threads of one
// process in tests.
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace mneme {

using MessageBytes = std::vector<std::byte>;

struct Message {
  uint32_t from = 0;
  MessageBytes bytes;
};

/// Thread-safe. What cannot be sent or received throws Error(network).
class Transport {
 public:
  virtual ~Transport() = default;
  virtual uint32_t rank() const = 0;
  virtual uint32_t size() const = 0;
  /// Takes a message and returns at once. Messages from one process to another arrive in the order they were
  /// sent. `to` is another rank.
  virtual void send(uint32_t to, MessageBytes message) = 0;
  /// The next message that has come, from whomever; empty where none has. Never waits. Large messages move
  /// on only while their two ends call it.
  virtual std::optional<Message> poll() = 0;
  /// Leaves in order: every process calls it, after its last message has been received.
  virtual void close() = 0;
};

}  // namespace mneme
