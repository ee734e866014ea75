// ExpertStore: the experts of a model that do not all stay in memory. It keeps as many as the budget allows
// (expert_cache.h says which) and reads the others when a router chooses them, all of a layer at once:
//
//   direct   past the file cache (O_DIRECT, io_uring) into a slot of its own memory. The budget is all that
//            experts take.
//   mmap     in place in the mapped file. The budget bounds what is mapped in; pages that leave it may stay
//            in the system's file cache for as long as nobody else wants the memory.
//
// A pass asks a layer's experts with want(), computes with those that are there and takes the others as they
// arrive with wait(). ahead() begins to read experts that are likely wanted next; nobody waits for them. The
// matrices in ModelImpl point at an expert's data while it is wanted. Passes of a model do not overlap (its
// thread pool runs one job at a time), so that one set of wanted experts is enough.
//
// A file that became shorter, or a disk that fails, is an Error(io) of wait(), which ends the pass; the store
// stays usable. So is a record that does not match its checksum, Error(corrupt): each that was read past the
// file cache is checked before its first use (XXH3 runs at some 10 GB/s, a disk at a few, and other threads
// compute meanwhile), in a mapping each expert once, when its pages are first brought in.
// Tests: tests/engine/expert_disk_test.cpp.
#pragma once
#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "core/huge_buffer.h"
#include "memory/store/read_queue.h"
#include "memory/store/row_map.h"
#include "mneme/memory.h"
#include "model/expert_cache.h"
#include "model/expert_file.h"

namespace mneme {

struct ExpertStoreOptions {
  Placement placement = Placement::direct;  // or mmap
  uint64_t budget_bytes = 0;                // 0: half of what the system has free
  double half_life = ExpertCache::kHalfLife;
  bool read_ahead = true;
};

class ExpertStore {
 public:
  /// `model` is the one that `layout` is of; its experts' matrices get their data from here. Throws Error:
  /// limit (the budget holds fewer experts than a token chooses in a layer: says what would do), unsupported
  /// (direct, and the filesystem refuses), corrupt (what read_expert_sums() refuses), io, not_found,
  /// out_of_memory. `queues`: system_read_queue(), or a test's.
  ExpertStore(ModelImpl& model, ExpertLayout layout, const fs::path& file, const ExpertStoreOptions& options,
              const std::function<ReadQueueFactory(uint32_t depth)>& queues = system_read_queue);
  ~ExpertStore();
  ExpertStore(const ExpertStore&) = delete;
  ExpertStore& operator=(const ExpertStore&) = delete;

  // Within a pass; want(), ahead() and order() from one thread at a time, wait() from any.

  /// Begins to bring the experts, at most slots() different ones, and counts their use. They keep their place
  /// until the next want(). `new_layer` false: the layer goes on with other experts of the same token. What a
  /// disk refuses is told by wait(); throws Error(io) only where the queue of reads itself is broken.
  void want(size_t layer, std::span<const int32_t> experts, bool new_layer = true);
  /// The experts of the last want(): those that were there first, then the others as their reads were begun.
  const std::vector<int32_t>& order() const noexcept { return order_; }
  /// Begins to read experts of a layer that are not here, as many as have room beside those that are wanted.
  void ahead(size_t layer, std::span<const int32_t> experts);
  /// Returns when a wanted expert is there. Throws Error(io) if it could not be read, Error(corrupt) if it is
  /// not what was written.
  void wait(size_t layer, int32_t expert);

  /// Experts that have room at a time.
  uint32_t slots() const noexcept { return cache_.slots(); }
  bool reads_ahead() const noexcept { return read_ahead_; }
  /// Memory for experts.
  uint64_t resident_bytes() const noexcept;
  const ExpertLayout& layout() const noexcept { return layout_; }
  ExpertStatistics statistics() const;

 private:
  struct Slot {
    std::atomic<uint32_t> missing{0};  // reads that have not ended; of a mapping: 1 until its pages are there
    std::atomic<uint32_t> sum{0};      // Sum: whether what was read has been compared with its checksum
    int64_t failed = 0;                // -errno, kShortFile or kDamaged; written before `missing` and `sum`
    uint32_t epoch = 0;                // number of the want() that it may not leave in
    bool ahead = false;                // read for a later layer and not used since
  };

  enum Sum : uint32_t { unchecked, being_checked, checked };

  uint32_t number(size_t layer, int32_t expert) const {
    return layout_.layers[layer].first + static_cast<uint32_t>(expert);
  }
  size_t in_flight() const noexcept { return requests_.size() - free_tags_.size(); }
  uint32_t open_slots(const ExpertStoreOptions& options) const;
  Bytes record(uint32_t number, uint32_t slot) const;
  int32_t place(uint32_t number);
  void point_at(uint32_t number, const std::byte* data);
  void leave(uint32_t number, uint32_t slot);
  void begin_read(uint32_t number, uint32_t slot, Bytes into);
  void drop_failed();
  void touch(uint32_t number, uint32_t slot);
  void check_sum(uint32_t number, uint32_t slot);
  void submit();
  void reap(size_t at_least);
  void finish(const ReadDone& done);

  ModelImpl& model_;
  const ExpertLayout layout_;
  const FileHandle file_;
  const bool mapped_, read_ahead_;
  MappedFile map_;
  const std::vector<uint64_t> sums_;  // [experts of all layers]
  std::vector<uint32_t> layer_of_;    // [experts of all layers]
  HugeBuffer memory_;                 // [slots, largest_record]
  ExpertCache cache_;
  std::unique_ptr<Slot[]> slots_;
  ReadQueueFactory factory_;

  std::mutex mutex_;  // guards what follows, and slots but for what is said there
  std::unique_ptr<ReadQueue> queue_;
  std::deque<ReadRequest> waiting_;    // for room in the queue; `slot` is one of slots_
  std::vector<ReadRequest> requests_;  // [tag]: in the queue
  std::vector<uint32_t> free_tags_;
  std::vector<uint32_t> broken_;  // slots of failed reads
  std::vector<bool> known_good_;  // [experts of all layers], of a mapping: checked already
  uint32_t epoch_ = 0;
  size_t last_layer_ = 0;
  std::vector<int32_t> order_, late_;

  std::atomic<uint64_t> hits_{0}, misses_{0}, bytes_read_{0}, ahead_{0}, ahead_used_{0};
};

}  // namespace mneme
