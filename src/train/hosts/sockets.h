// TCP for the few small messages that processes of one run send each other about themselves (roster.h). The
// gradients do not travel here. Linux and POSIX only.
#pragma once
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace mneme::train {

/// An open descriptor, closed at the end.
class Socket {
 public:
  Socket() = default;
  explicit Socket(int descriptor) : descriptor_(descriptor) {}
  ~Socket() { close(); }
  Socket(Socket&& other) noexcept : descriptor_(other.release()) {}
  Socket& operator=(Socket&& other) noexcept;
  int get() const noexcept { return descriptor_; }
  explicit operator bool() const noexcept { return descriptor_ >= 0; }
  int release() noexcept;
  void close() noexcept;

 private:
  int descriptor_ = -1;
};

/// Listens on `host` (a name or an address of this machine) and `port`; 0 takes a free one.
/// Throws Error(invalid_argument) for a host that is none or not this machine's, Error(io) for a port that is
/// taken.
Socket listen_on(const std::string& host, uint16_t port);

/// One attempt to connect. `from` is the own address to use, empty for whichever leads there. Empty where
/// nobody answers (`why` says it). Throws Error(invalid_argument) for names that are no hosts, and for a
/// `from` that is no address of this machine.
std::optional<Socket> connect_to(const std::string& host, uint16_t port, const std::string& from,
                                 std::chrono::milliseconds timeout, std::string& why);

/// The next waiting connection of a listening socket; an empty Socket where there is none.
Socket accept_from(const Socket& listener);

/// The own numeric address of a connected or listening socket, and its port.
std::string own_address(const Socket& socket);
uint16_t own_port(const Socket& socket);
/// Who is at the other end, "10.0.0.2:41234".
std::string peer_name(const Socket& socket);
/// Whether an address is of the loopback, which other machines cannot reach.
bool is_loopback(std::string_view numeric_address);

/// Sends all bytes; false where the other end is gone or takes nothing for `timeout`.
bool send_all(const Socket& socket, std::string_view bytes, std::chrono::milliseconds timeout);

enum class Received { some, none, closed };
/// Appends what has arrived to `buffer`, without waiting.
Received receive_into(const Socket& socket, std::string& buffer);

}  // namespace mneme::train
