#include "train/hosts/sockets.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>

#include "core/fail.h"

namespace mneme::train {
namespace {

constexpr size_t kMostBuffered = 4u << 20;  // far above what the messages of a run need

using Addresses = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

Addresses resolve(const std::string& host, uint16_t port) {
  addrinfo wanted{};
  wanted.ai_family = AF_UNSPEC;
  wanted.ai_socktype = SOCK_STREAM;
  wanted.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int status = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &wanted, &found);
  Addresses addresses(found, &freeaddrinfo);
  require(status == 0 && found != nullptr && !host.empty(), ErrorCode::invalid_argument,
          "\"{}\" is no host: {}; give a name that this machine knows or an address", host,
          gai_strerror(status));
  return addresses;
}

Socket open_for(const addrinfo& address) {
  return Socket(::socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP));
}

void set_blocking(const Socket& socket, bool blocking) {
  const int flags = fcntl(socket.get(), F_GETFL);
  fcntl(socket.get(), F_SETFL, blocking ? flags & ~O_NONBLOCK : flags | O_NONBLOCK);
}

void send_at_once(const Socket& socket) {
  const int on = 1;
  setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

int wait_for(const Socket& socket, short events, std::chrono::milliseconds timeout) {
  pollfd entry{socket.get(), events, 0};
  return poll(&entry, 1, static_cast<int>(timeout.count()));
}

std::pair<std::string, std::string> numeric(const sockaddr_storage& address, socklen_t size) {
  char host[NI_MAXHOST] = "", port[NI_MAXSERV] = "";
  getnameinfo(reinterpret_cast<const sockaddr*>(&address), size, host, sizeof host, port, sizeof port,
              NI_NUMERICHOST | NI_NUMERICSERV);
  return {host, port};
}

std::pair<std::string, std::string> own_name(const Socket& socket) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &size);
  return numeric(address, size);
}

/// Binds to any port of `from`. False where the families differ.
bool bind_from(const Socket& socket, const addrinfo& target, const std::string& from) {
  const Addresses own = resolve(from, 0);
  for (const addrinfo* address = own.get(); address != nullptr; address = address->ai_next) {
    if (address->ai_family != target.ai_family) continue;
    if (::bind(socket.get(), address->ai_addr, address->ai_addrlen) == 0) return true;
    require(errno != EADDRNOTAVAIL, ErrorCode::invalid_argument,
            "\"{}\" is no address of this machine; the host of a process is where it runs", from);
  }
  return false;
}

}  // namespace

Socket& Socket::operator=(Socket&& other) noexcept {
  if (this != &other) {
    close();
    descriptor_ = other.release();
  }
  return *this;
}

int Socket::release() noexcept {
  return std::exchange(descriptor_, -1);
}

void Socket::close() noexcept {
  if (descriptor_ >= 0) ::close(release());
}

Socket listen_on(const std::string& host, uint16_t port) {
  const Addresses addresses = resolve(host, port);
  int problem = EADDRNOTAVAIL;
  for (const addrinfo* address = addresses.get(); address != nullptr; address = address->ai_next) {
    Socket socket = open_for(*address);
    const int on = 1;
    setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (socket && ::bind(socket.get(), address->ai_addr, address->ai_addrlen) == 0 &&
        ::listen(socket.get(), 128) == 0) {
      set_blocking(socket, false);
      return socket;
    }
    problem = errno;
  }
  require(problem != EADDRNOTAVAIL, ErrorCode::invalid_argument,
          "\"{}\" is no address of this machine; process 0 must run on the first host", host);
  fail(ErrorCode::io, "cannot listen on {} port {}: {}; another run, or process 0 started twice?", host, port,
       std::strerror(problem));
}

std::optional<Socket> connect_to(const std::string& host, uint16_t port, const std::string& from,
                                 std::chrono::milliseconds timeout, std::string& why) {
  const Addresses addresses = resolve(host, port);
  for (const addrinfo* address = addresses.get(); address != nullptr; address = address->ai_next) {
    Socket socket = open_for(*address);
    if (!socket || (!from.empty() && !bind_from(socket, *address, from))) continue;
    set_blocking(socket, false);
    int problem = 0;
    if (::connect(socket.get(), address->ai_addr, address->ai_addrlen) != 0) {
      problem = errno;
      if (problem == EINPROGRESS) {
        socklen_t size = sizeof problem;
        if (wait_for(socket, POLLOUT, timeout) <= 0)
          problem = ETIMEDOUT;
        else
          getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &problem, &size);
      }
    }
    if (problem == 0) {
      send_at_once(socket);
      return socket;
    }
    why = std::strerror(problem);
  }
  return std::nullopt;
}

Socket accept_from(const Socket& listener) {
  Socket socket(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (socket) send_at_once(socket);
  return socket;
}

std::string own_address(const Socket& socket) {
  return own_name(socket).first;
}

uint16_t own_port(const Socket& socket) {
  return static_cast<uint16_t>(std::atoi(own_name(socket).second.c_str()));
}

std::string peer_name(const Socket& socket) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (getpeername(socket.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) return "somebody";
  const auto [host, port] = numeric(address, size);
  return host + ":" + port;
}

bool is_loopback(std::string_view numeric_address) {
  return numeric_address.starts_with("127.") || numeric_address == "::1";
}

bool send_all(const Socket& socket, std::string_view bytes, std::chrono::milliseconds timeout) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0)
      bytes.remove_prefix(static_cast<size_t>(sent));
    else if (errno == EAGAIN) {
      if (wait_for(socket, POLLOUT, timeout) <= 0) return false;
    } else if (errno != EINTR)
      return false;
  }
  return true;
}

Received receive_into(const Socket& socket, std::string& buffer) {
  char bytes[4096];
  Received result = Received::none;
  while (buffer.size() < kMostBuffered) {
    const ssize_t got = ::recv(socket.get(), bytes, sizeof bytes, MSG_DONTWAIT);
    if (got > 0) {
      buffer.append(bytes, static_cast<size_t>(got));
      result = Received::some;
      continue;
    }
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return result;
    return result == Received::some ? result : Received::closed;  // what came before the end is read first
  }
  return Received::some;
}

}  // namespace mneme::train
