#include "text/vocabulary.h"

#include <bit>
#include <cstring>

#include "core/fail.h"

namespace mneme {

uint64_t hash_bytes(std::string_view bytes) noexcept {
  constexpr uint64_t kMultiplier = 0x9E3779B97F4A7C15ull;
  uint64_t hash = bytes.size() * kMultiplier;
  size_t i = 0;
  const auto absorb = [&](uint64_t word) {
    hash = (hash ^ word) * kMultiplier;
    hash ^= hash >> 29;
  };
  for (; i + 8 <= bytes.size(); i += 8) {
    uint64_t word;
    std::memcpy(&word, bytes.data() + i, 8);
    absorb(word);
  }
  if (i < bytes.size()) {
    uint64_t word = 0;
    std::memcpy(&word, bytes.data() + i, bytes.size() - i);
    absorb(word);
  }
  return (hash ^ (hash >> 32)) * kMultiplier;
}

void Vocabulary::reserve(size_t pieces, size_t bytes) {
  ends_.reserve(pieces + 1);
  text_.reserve(bytes);
  const size_t wanted = std::bit_ceil(pieces * 2 + 16);
  if (wanted > slots_.size()) grow(wanted);
}

void Vocabulary::grow(size_t slots) {
  std::vector<Slot> old(slots, Slot{0, -1});
  old.swap(slots_);
  for (const Slot& slot : old) {
    if (slot.id < 0) continue;
    size_t i = slot.hash & (slots - 1);
    while (slots_[i].id >= 0) i = (i + 1) & (slots - 1);
    slots_[i] = slot;
  }
}

bool Vocabulary::add(std::string_view spelling) {
  require(size() < kMaxPieces, ErrorCode::limit, "the vocabulary has more than {} pieces", kMaxPieces);
  require(text_.size() + spelling.size() <= (size_t{1} << 30), ErrorCode::limit,
          "the spellings of the vocabulary take more than 1 GiB");
  const auto id = static_cast<TokenId>(size());
  text_.append(spelling);
  ends_.push_back(static_cast<uint32_t>(text_.size()));
  if (used_ * 3 >= slots_.size() * 2) grow(std::bit_ceil(slots_.size() * 2 + 16));
  const auto hash = static_cast<uint32_t>(hash_bytes(spelling) >> 32);
  for (size_t i = hash & (slots_.size() - 1);; i = (i + 1) & (slots_.size() - 1)) {
    if (slots_[i].id < 0) {
      slots_[i] = {hash, id};
      break;
    }
    if (slots_[i].hash == hash && (*this)[slots_[i].id] == spelling) return false;
  }
  ++used_;
  longest_ = std::max(longest_, spelling.size());
  return true;
}

void Vocabulary::pad_to(size_t size) {
  require(size <= kMaxPieces, ErrorCode::limit, "the vocabulary has more than {} pieces", kMaxPieces);
  if (size > this->size()) ends_.resize(size + 1, static_cast<uint32_t>(text_.size()));
}

TokenId Vocabulary::find(std::string_view spelling) const noexcept {
  if (slots_.empty() || spelling.size() > longest_) return -1;
  const auto hash = static_cast<uint32_t>(hash_bytes(spelling) >> 32);
  for (size_t i = hash & (slots_.size() - 1);; i = (i + 1) & (slots_.size() - 1)) {
    if (slots_[i].id < 0) return -1;
    if (slots_[i].hash == hash && (*this)[slots_[i].id] == spelling) return slots_[i].id;
  }
}

void MergeTable::reserve(size_t merges) {
  const size_t wanted = std::bit_ceil(merges + merges / 2 + 16);
  if (wanted <= slots_.size()) return;
  std::vector<Entry> old(wanted);
  old.swap(slots_);
  mask_ = wanted - 1;
  used_ = 0;
  for (const Entry& entry : old)
    if (entry.result >= 0)
      add(static_cast<TokenId>(entry.key >> 32), static_cast<TokenId>(entry.key & 0xFFFFFFFFu), entry.rank,
          entry.result);
}

bool MergeTable::add(TokenId left, TokenId right, uint32_t rank, TokenId result) {
  if (used_ * 3 >= slots_.size() * 2) reserve(used_ * 2 + 16);
  const uint64_t key = pack(left, right);
  size_t i = mix(key) & mask_;
  while (slots_[i].result >= 0) {
    if (slots_[i].key == key) return false;
    i = (i + 1) & mask_;
  }
  slots_[i] = {key, rank, result};
  ++used_;
  return true;
}

}  // namespace mneme
