#include "core/sha256.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <vector>

#include "core/fail.h"

namespace mneme {
namespace {

constexpr size_t kPiece = size_t{1} << 20;

struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

}  // namespace

struct Sha256::Context {
  EVP_MD_CTX* evp = EVP_MD_CTX_new();
  ~Context() { EVP_MD_CTX_free(evp); }
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {
  require(context_->evp != nullptr && EVP_DigestInit_ex(context_->evp, EVP_sha256(), nullptr) == 1,
          ErrorCode::internal, "OpenSSL cannot start a SHA-256 computation");
}

Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

Sha256& Sha256::update(std::span<const std::byte> data) {
  require(context_ != nullptr, ErrorCode::internal, "Sha256::update after hex()");
  require(EVP_DigestUpdate(context_->evp, data.data(), data.size()) == 1, ErrorCode::internal,
          "OpenSSL failed in SHA-256");
  return *this;
}

std::string Sha256::hex() {
  require(context_ != nullptr, ErrorCode::internal, "Sha256::hex() twice");
  std::array<unsigned char, 32> digest{};
  unsigned int size = 0;
  require(EVP_DigestFinal_ex(context_->evp, digest.data(), &size) == 1 && size == digest.size(),
          ErrorCode::internal, "OpenSSL failed in SHA-256");
  context_.reset();
  static constexpr std::string_view kDigits = "0123456789abcdef";
  std::string out;
  out.reserve(2 * digest.size());
  for (const unsigned char byte : digest) {
    out += kDigits[byte >> 4];
    out += kDigits[byte & 15];
  }
  return out;
}

std::string sha256_hex(std::span<const std::byte> data) {
  return Sha256().update(data).hex();
}

std::string sha256_file(const std::filesystem::path& path,
                        const std::function<bool(uint64_t done, uint64_t total)>& progress) {
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  struct stat info {};
  if (file.fd < 0 || ::fstat(file.fd, &info) != 0)
    fail(errno == ENOENT ? ErrorCode::not_found : ErrorCode::io, "cannot open {}: {}", path.string(),
         std::strerror(errno));
  require(S_ISREG(info.st_mode), ErrorCode::io, "cannot hash {}: it is not a regular file", path.string());
  const auto total = static_cast<uint64_t>(info.st_size);
  Sha256 hash;
  std::vector<std::byte> piece(kPiece);
  for (uint64_t done = 0;;) {
    const ssize_t got = ::read(file.fd, piece.data(), piece.size());
    if (got < 0 && errno == EINTR) continue;
    require(got >= 0, ErrorCode::io, "cannot read {}: {}", path.string(), std::strerror(errno));
    if (got == 0) return hash.hex();
    hash.update({piece.data(), static_cast<size_t>(got)});
    done += static_cast<uint64_t>(got);
    require(!progress || progress(done, total), ErrorCode::cancelled, "stopped while hashing {}",
            path.string());
  }
}

}  // namespace mneme
