// The pieces of a tokenizer: id -> spelling in one string arena, spelling -> id in one open-addressing table.
// Loading a quarter of a million pieces takes tens of milliseconds because nothing is allocated per piece.
// Ids may have holes (a piece that was never added is the empty string and is not found).
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "mneme/tokenizer.h"

namespace mneme {

uint64_t hash_bytes(std::string_view bytes) noexcept;

class Vocabulary {
 public:
  /// Room for this many pieces and bytes of spelling; a hint.
  void reserve(size_t pieces, size_t bytes);
  /// Appends the next id. False if the spelling is already there (the id is taken, but find() keeps
  /// returning the earlier one). Throws Error(limit) beyond kMaxPieces pieces or 1 GiB of spelling.
  bool add(std::string_view spelling);
  /// Appends ids without a piece up to, but not including, `size`.
  void pad_to(size_t size);

  TokenId find(std::string_view spelling) const noexcept;  // -1: none
  std::string_view operator[](TokenId id) const noexcept {
    const auto i = static_cast<size_t>(id);
    return std::string_view(text_).substr(ends_[i], ends_[i + 1] - ends_[i]);
  }
  size_t size() const noexcept { return ends_.size() - 1; }
  bool contains(int64_t id) const noexcept { return id >= 0 && static_cast<uint64_t>(id) < size(); }
  size_t longest() const noexcept { return longest_; }  // bytes of the longest spelling

  static constexpr size_t kMaxPieces = size_t{1} << 24;

 private:
  struct Slot {
    uint32_t hash;
    TokenId id;  // -1: free
  };
  std::string text_;
  std::vector<uint32_t> ends_{0};
  std::vector<Slot> slots_;
  size_t used_ = 0, longest_ = 0;
  void grow(size_t slots);
};

/// (left, right) -> (rank, result) of the merges of a BPE model: open addressing over packed keys.
class MergeTable {
 public:
  struct Entry {
    uint64_t key = ~uint64_t{0};
    uint32_t rank = 0;
    TokenId result = -1;
  };
  void reserve(size_t merges);
  /// Adds a merge; false if the pair is already there (the earlier one is kept).
  bool add(TokenId left, TokenId right, uint32_t rank, TokenId result);
  /// The entry of a pair, or nullptr.
  const Entry* find(TokenId left, TokenId right) const noexcept {
    if (slots_.empty()) return nullptr;
    const uint64_t key = pack(left, right);
    for (size_t i = mix(key) & mask_;; i = (i + 1) & mask_) {
      if (slots_[i].key == key) return &slots_[i];
      if (slots_[i].key == ~uint64_t{0}) return nullptr;
    }
  }

 private:
  static uint64_t pack(TokenId left, TokenId right) noexcept {
    return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  }
  static size_t mix(uint64_t key) noexcept {
    key *= 0x9E3779B97F4A7C15ull;
    key ^= key >> 32;
    return static_cast<size_t>(key * 0xD6E8FEB86659FD93ull >> 20);
  }
  std::vector<Entry> slots_;
  size_t mask_ = 0, used_ = 0;
};

}  // namespace mneme
