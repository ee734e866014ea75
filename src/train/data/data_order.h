// Which tokens the n-th training sequence is: a pure function of (shards, length, seed, n). So a run's place
// in its data is one integer, any number of processes divide the work by taking n = rank, rank + world, ...,
// and nothing has to be shuffled, stored or replayed.
//
// The stream of documents, each followed by the end token, is cut into windows of `length` inputs; the target
// of an input is the token after it, so a window reads length + 1 tokens and shares one with the next window.
// What is left at the end of the stream (less than a window) is not used. Windows run across document
// borders, as in the training of GPT-2: attention sees the end of the previous document, and learns from the
// end token that nothing follows from it.
//
// Epoch e visits the windows in the order of a permutation P(seed, e): a Feistel network over the next power
// of four, walked until the value lies below the number of windows (Black and Rogaway 2002, "Ciphers with
// Arbitrary Finite Domains", cycle walking). Constant memory, and any place of any epoch in constant expected
// time.
#pragma once
#include <cstdint>
#include <span>

#include "train/data/shards.h"

namespace mneme::train {

/// A seeded bijection of [0, size). Immutable, thread-safe.
class Permutation {
 public:
  /// size ≥ 1.
  Permutation(uint64_t size, uint64_t seed) noexcept;
  /// Where `index` < size goes.
  uint64_t operator()(uint64_t index) const noexcept;

 private:
  static constexpr int kRounds = 6;
  uint64_t size_;
  uint32_t half_bits_;
  uint64_t keys_[kRounds];
};

/// Immutable, thread-safe.
class DataOrder {
 public:
  enum class Order {
    shuffled,
    sequential  // window n modulo windows(): validation
  };
  /// Throws Error(invalid_argument) if length is 0 or the set has not one window of it.
  DataOrder(ShardSet shards, uint32_t length, uint64_t seed, Order order = Order::shuffled);

  uint32_t length() const noexcept { return length_; }
  /// Sequences of an epoch.
  uint64_t windows() const noexcept { return windows_; }
  /// The window that sequence n reads; it begins at token window(n) * length.
  uint64_t window(uint64_t sequence_number) const noexcept;
  /// The length + 1 token ids of sequence n: inputs are the first `length`, targets the last. Throws
  /// Error(invalid_argument) for another size of `out`.
  void fill(uint64_t sequence_number, std::span<int64_t> out) const;
  const ShardSet& shards() const noexcept { return shards_; }

 private:
  ShardSet shards_;
  uint32_t length_;
  uint64_t seed_, windows_;
  Order order_;
};

}  // namespace mneme::train
