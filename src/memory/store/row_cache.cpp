#include "memory/store/row_cache.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "core/fail.h"

namespace mneme {
namespace {

constexpr uint32_t kNone = std::numeric_limits<uint32_t>::max();
constexpr uint8_t kMostHits = 3;
constexpr uint64_t kMaxShards = 64, kRowsPerShard = 256;

// SplitMix64's last step: neighbouring rows go to unrelated places.
uint64_t hash_of(uint64_t id) noexcept {
  uint64_t z = id + 0x9E3779B97F4A7C15ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

// A hash mapped evenly to [0, size).
uint32_t scaled(uint32_t hash, uint32_t size) noexcept {
  return static_cast<uint32_t>((uint64_t{hash} * size) >> 32);
}

struct Fifo {
  uint32_t oldest = kNone, newest = kNone;
  uint32_t size = 0;
};

uint32_t index_cells(uint64_t rows) noexcept {
  return static_cast<uint32_t>(2 * rows);  // half full at most, so a search looks at one or two
}

}  // namespace

// All of one shard is guarded by its mutex. A slot is a place for a row; slots of a queue are chained by
// `next`.
struct alignas(64) RowCache::Shard {
  std::mutex mutex;
  std::byte* rows = nullptr;  // [capacity, row_bytes]
  uint32_t capacity = 0, used = 0, small_target = 1;
  Fifo small, main;
  std::vector<uint64_t> ids;     // of each slot
  std::vector<uint32_t> next;    // slot that is one newer in the same queue
  std::vector<uint8_t> hits;     // since it entered its queue, at most kMostHits
  std::vector<uint32_t> index;   // linear probing from a hash to a slot; kNone is empty
  std::vector<uint64_t> ghosts;  // by hash: its upper 32 bits | a stamp of when it left the small queue
  uint32_t stamp = 0;

  void prepare(uint32_t slots) {
    capacity = slots;
    small_target = std::max(1u, slots / 10);
    ids.resize(slots);
    next.resize(slots);
    hits.resize(slots);
    index.assign(index_cells(slots), kNone);
    ghosts.resize(slots);
  }
  uint64_t bytes() const noexcept {
    return ids.size() * 8 + next.size() * 4 + hits.size() + index.size() * 4 + ghosts.size() * 8;
  }

  uint32_t home(uint64_t hash) const noexcept {
    return scaled(static_cast<uint32_t>(hash), static_cast<uint32_t>(index.size()));
  }
  /// The cell of the row, or the empty cell where it would go.
  uint32_t find(uint64_t id, uint64_t hash) const noexcept {
    uint32_t cell = home(hash);
    while (index[cell] != kNone && ids[index[cell]] != id) cell = cell + 1 == index.size() ? 0 : cell + 1;
    return cell;
  }
  // Closes the gap, so that searches need no marks of what was removed.
  void erase(uint32_t cell) noexcept {
    const auto size = static_cast<uint32_t>(index.size());
    for (uint32_t gap = cell, at = cell;;) {
      at = at + 1 == size ? 0 : at + 1;
      if (index[at] == kNone) {
        index[gap] = kNone;
        return;
      }
      const uint32_t wanted = home(hash_of(ids[index[at]]));
      const uint32_t from_wanted = at >= wanted ? at - wanted : at + size - wanted;
      const uint32_t from_gap = at >= gap ? at - gap : at + size - gap;
      if (from_wanted < from_gap) continue;  // it would land before its home
      index[gap] = index[at];
      gap = at;
    }
  }

  void append(Fifo& queue, uint32_t slot) noexcept {
    next[slot] = kNone;
    (queue.size == 0 ? queue.oldest : next[queue.newest]) = slot;
    queue.newest = slot;
    ++queue.size;
  }
  uint32_t take_oldest(Fifo& queue) noexcept {
    const uint32_t slot = queue.oldest;
    queue.oldest = next[slot];
    --queue.size;
    return slot;
  }

  void remember(uint64_t hash) noexcept {
    ghosts[scaled(static_cast<uint32_t>(hash), capacity)] = (hash & 0xFFFFFFFF00000000ull) | ++stamp;
  }
  bool remembered(uint64_t hash) const noexcept {
    const uint64_t ghost = ghosts[scaled(static_cast<uint32_t>(hash), capacity)];
    return ghost != 0 && ghost >> 32 == hash >> 32 && stamp - static_cast<uint32_t>(ghost) < capacity;
  }

  /// Frees a slot.
  uint32_t evict() noexcept {
    for (;;) {
      const bool from_small = small.size >= small_target || main.size == 0;
      const uint32_t slot = take_oldest(from_small ? small : main);
      if (hits[slot] > 0) {
        hits[slot] = from_small ? 0 : static_cast<uint8_t>(hits[slot] - 1);
        append(main, slot);
        continue;
      }
      const uint64_t hash = hash_of(ids[slot]);
      erase(find(ids[slot], hash));
      if (from_small) remember(hash);
      return slot;
    }
  }
};

RowCache::RowCache(uint64_t bytes, uint32_t row_bytes, uint64_t most_rows) : row_bytes_(row_bytes) {
  const uint64_t fit = bytes / bytes_per_row(row_bytes);
  const uint64_t wanted = std::min(fit, most_rows);
  shard_count_ = std::clamp<uint64_t>(wanted / kRowsPerShard, 1, kMaxShards);
  const uint64_t each = std::min<uint64_t>(wanted / shard_count_, uint64_t{1} << 30);
  require(each > 0, ErrorCode::limit, "a cache of {} bytes holds no row of {}", bytes, row_bytes);
  capacity_ = each * shard_count_;
  rows_ = HugeBuffer(capacity_ * row_bytes);
  shards_ = std::make_unique<Shard[]>(shard_count_);
  for (size_t i = 0; i < shard_count_; ++i) {
    shards_[i].prepare(static_cast<uint32_t>(each));
    shards_[i].rows = rows_.data() + i * each * row_bytes;
  }
}

RowCache::~RowCache() = default;

uint64_t RowCache::bytes_per_row(uint32_t row_bytes) noexcept {
  return uint64_t{row_bytes} + 8 + 4 + 1 + 8 + 8 +
         1;  // ids, next, hits, 2 index cells, ghosts, the shard itself
}

uint64_t RowCache::bytes() const noexcept {
  uint64_t out = rows_.size();
  for (size_t i = 0; i < shard_count_; ++i) out += shards_[i].bytes();
  return out;
}

uint64_t RowCache::rows() const noexcept {
  uint64_t out = 0;
  for (size_t i = 0; i < shard_count_; ++i) {
    const std::lock_guard lock(shards_[i].mutex);
    out += shards_[i].used;
  }
  return out;
}

RowCache::Shard& RowCache::shard_of(uint64_t hash) const noexcept {
  return shards_[(hash >> 32) * shard_count_ >> 32];
}

void RowCache::prefetch(uint64_t id) const noexcept {
  const uint64_t hash = hash_of(id);
  const Shard& shard = shard_of(hash);
  __builtin_prefetch(&shard.index[shard.home(hash)]);
}

bool RowCache::get(uint64_t id, std::byte* out) noexcept {
  const uint64_t hash = hash_of(id);
  Shard& shard = shard_of(hash);
  const std::lock_guard lock(shard.mutex);
  const uint32_t slot = shard.index[shard.find(id, hash)];
  if (slot == kNone) return false;
  if (shard.hits[slot] < kMostHits) ++shard.hits[slot];
  std::memcpy(out, shard.rows + uint64_t{slot} * row_bytes_, row_bytes_);
  return true;
}

void RowCache::put(uint64_t id, const std::byte* row) noexcept {
  const uint64_t hash = hash_of(id);
  Shard& shard = shard_of(hash);
  const std::lock_guard lock(shard.mutex);
  if (shard.index[shard.find(id, hash)] != kNone) return;  // another thread missed it too
  const uint32_t slot = shard.used < shard.capacity ? shard.used++ : shard.evict();
  std::memcpy(shard.rows + uint64_t{slot} * row_bytes_, row, row_bytes_);
  shard.ids[slot] = id;
  shard.hits[slot] = 0;
  shard.append(shard.remembered(hash) ? shard.main : shard.small, slot);
  shard.index[shard.find(id, hash)] = slot;
}

}  // namespace mneme
