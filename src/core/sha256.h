// SHA-256 of streams and files (FIPS 180-4), by OpenSSL: model hashes, checksums of downloads and snapshots.
#pragma once
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace mneme {

/// Feed bytes with update(), in pieces of any size, then take hex() once. Not thread-safe.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;

  Sha256& update(std::span<const std::byte> data);
  Sha256& update(std::string_view text) { return update(std::as_bytes(std::span(text))); }
  /// 64 lower-case hexadecimal digits. Ends the stream: a later update() or hex() throws Error(internal).
  std::string hex();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

std::string sha256_hex(std::span<const std::byte> data);
inline std::string sha256_hex(std::string_view text) {
  return sha256_hex(std::as_bytes(std::span(text)));
}

/// Reads the file in pieces of 1 MiB. `progress(done, total)` in bytes may be empty; it returns false to
/// stop. Throws Error: not_found, io, cancelled.
std::string sha256_file(const std::filesystem::path& path,
                        const std::function<bool(uint64_t done, uint64_t total)>& progress = {});

}  // namespace mneme
