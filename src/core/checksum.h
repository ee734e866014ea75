// XXH3 (64 bits, seed 0, by libxxhash): finds damage of files at memory speed. Not for adversaries; what must
// not be forged has a SHA-256.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace mneme {

uint64_t xxh3(std::span<const std::byte> data) noexcept;

/// The same of a stream: feed bytes in pieces of any size, then take the sum once. Not thread-safe.
class Xxh3 {
 public:
  Xxh3();
  ~Xxh3();
  Xxh3(const Xxh3&) = delete;
  Xxh3& operator=(const Xxh3&) = delete;

  Xxh3& update(std::span<const std::byte> data) noexcept;
  uint64_t value() const noexcept;
  /// 16 lower-case hexadecimal digits.
  std::string hex() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mneme
