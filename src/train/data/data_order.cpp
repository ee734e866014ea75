#include "train/data/data_order.h"

#include <bit>

#include "core/fail.h"

namespace mneme::train {
namespace {

// The finaliser of SplitMix64 (Steele, Lea and Flood 2014): every input bit reaches every output bit.
constexpr uint64_t mix(uint64_t value) noexcept {
  value += 0x9E3779B97F4A7C15ull;
  value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9ull;
  value = (value ^ value >> 27) * 0x94D049BB133111EBull;
  return value ^ value >> 31;
}

}  // namespace

Permutation::Permutation(uint64_t size, uint64_t seed) noexcept : size_(size) {
  const int bits = std::bit_width(size - 1);
  half_bits_ = static_cast<uint32_t>(bits < 2 ? 1 : (bits + 1) / 2);
  uint64_t key = mix(seed);
  for (uint64_t& round : keys_) round = key = mix(key ^ seed);
}

uint64_t Permutation::operator()(uint64_t index) const noexcept {
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  do {
    uint64_t left = index >> half_bits_, right = index & mask;
    for (const uint64_t key : keys_) {
      const uint64_t next = left ^ (mix(right ^ key) & mask);
      left = right;
      right = next;
    }
    index = left << half_bits_ | right;
  } while (index >= size_);  // the walk ends: it is a cycle of a permutation, and it began below size_
  return index;
}

DataOrder::DataOrder(ShardSet shards, uint32_t length, uint64_t seed, Order order)
    : shards_(std::move(shards)), length_(length), seed_(seed), windows_(0), order_(order) {
  require(length > 0, ErrorCode::invalid_argument, "sequences of length 0 cannot be trained on");
  require(shards_.tokens() > length, ErrorCode::invalid_argument,
          "{}: {} tokens are less than one sequence of length {} and its next token; give more text or a "
          "smaller length",
          shards_.folder().string(), shards_.tokens(), length);
  windows_ = (shards_.tokens() - 1) / length;
}

uint64_t DataOrder::window(uint64_t sequence_number) const noexcept {
  const uint64_t epoch = sequence_number / windows_, index = sequence_number % windows_;
  if (order_ == Order::sequential) return index;
  return Permutation(windows_, mix(seed_) ^ mix(~epoch))(index);
}

void DataOrder::fill(uint64_t sequence_number, std::span<int64_t> out) const {
  require(out.size() == uint64_t{length_} + 1, ErrorCode::invalid_argument,
          "a sequence of length {} has {} tokens, but there is room for {}", length_, uint64_t{length_} + 1,
          out.size());
  shards_.read(window(sequence_number) * length_, out);
}

}  // namespace mneme::train
