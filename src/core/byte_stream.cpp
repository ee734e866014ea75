#include "core/byte_stream.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "core/fail.h"

namespace mneme {

ByteStream::ByteStream(const fs::path& path) : name_(path.string()) {
  fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const auto refuse = [&](const char* what, int error) {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
    fail(error == ENOENT ? ErrorCode::not_found : ErrorCode::io, "cannot {} {}: {}", what, name_,
         std::strerror(error));
  };
  if (fd_ < 0) refuse("open", errno);
  struct stat info {};
  if (::fstat(fd_, &info) != 0) refuse("look at", errno);
  if (S_ISDIR(info.st_mode)) refuse("read", EISDIR);
  if (S_ISREG(info.st_mode)) total_ = static_cast<uint64_t>(info.st_size);
  owned_ = true;
}

ByteStream ByteStream::standard_input() {
  ByteStream stream;
  stream.name_ = "standard input";
  stream.fd_ = STDIN_FILENO;
  return stream;
}

ByteStream::ByteStream(ByteStream&& other) noexcept
    : name_(std::move(other.name_)),
      buffer_(std::move(other.buffer_)),
      fd_(std::exchange(other.fd_, -1)),
      owned_(std::exchange(other.owned_, false)),
      read_(other.read_),
      total_(other.total_) {}

ByteStream::~ByteStream() {
  if (owned_) ::close(fd_);
}

std::string_view ByteStream::next() {
  buffer_.resize(kPiece);
  ssize_t got = 0;
  do {
    got = ::read(fd_, buffer_.data(), buffer_.size());
  } while (got < 0 && errno == EINTR);
  if (got < 0) fail(ErrorCode::io, "cannot read {}: {}", name_, std::strerror(errno));
  read_ += static_cast<uint64_t>(got);
  return {buffer_.data(), static_cast<size_t>(got)};
}

}  // namespace mneme
