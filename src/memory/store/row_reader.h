// RowReader: brings the rows of a batch from files by many reads in flight. It sorts the ids and drops
// duplicates, joins rows that share a page or lie on adjacent pages into one read, keeps the queue of reads
// full, and copies each row out of the page it came in (of 4096 bytes read, 264 are wanted) into the batch's
// own rows.
//
// A batch of no more reads than the queue is deep is issued whole by start() and collected by wait(), without
// another thread. A larger one is handed, as a whole, to the reader's one thread, which keeps its queue full
// while the caller computes; wait() takes over if that thread has not begun.
#pragma once
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>

#include "memory/store/memory_account.h"
#include "memory/store/placements.h"
#include "memory/store/read_queue.h"
#include "memory/store/row_cache.h"

namespace mneme {

struct RowReaderOptions {
  uint32_t queue_depth = 128;
  uint32_t gap_pages = 0;
};

/// Thread-safe; see MemoryTable for batches.
class RowReader {
 public:
  /// `files` are those of `map`. `cache` may be null; what is not in it is read and put there.
  RowReader(const RowMap& map, std::vector<FileHandle> files, const RowReaderOptions& options,
            ReadQueueFactory queues, std::shared_ptr<MemoryAccount> account, MemoryTable::Counters& counters,
            RowCache* cache);
  ~RowReader();
  RowReader(const RowReader&) = delete;
  RowReader& operator=(const RowReader&) = delete;

  void begin(std::span<const uint64_t> ids, std::span<const std::byte*> addresses,
             std::unique_ptr<RowBatch::State>& state);
  void end(std::unique_ptr<RowBatch::State>& state);

  const std::vector<FileHandle>& files() const noexcept { return files_; }
  const std::string& queue_name() const noexcept { return queues_.name; }
  uint32_t queue_depth() const noexcept { return options_.queue_depth; }

  /// Memory of one queue with its pages, and of the rest of a batch of so many ids.
  static uint64_t lane_bytes(const RowMap& map, const RowReaderOptions& options);
  static uint64_t batch_bytes(uint64_t ids, const RowMap& map);

 private:
  struct Run;
  struct Lane;
  struct Batch;

  void find_rows(Batch& batch, std::span<const uint64_t> ids, std::span<const std::byte*> addresses);
  void plan_runs(Batch& batch) const;
  void fill(Batch& batch);
  void drive(Batch& batch, bool to_the_end, bool poll = false);
  void deliver(Batch& batch, const ReadDone& done);
  void finish_run(Batch& batch, const Run& run, const std::byte* pages);
  void push(Batch& batch, uint32_t slot);
  std::unique_ptr<Lane> borrow_lane();
  void return_lane(std::unique_ptr<Lane> lane);
  static void abandon_lane(Batch& batch);
  void work();
  void hand_over(Batch& batch);

  const RowMap& map_;
  const std::vector<FileHandle> files_;
  const RowReaderOptions options_;
  const ReadQueueFactory queues_;
  const std::shared_ptr<MemoryAccount> account_;
  MemoryTable::Counters& counters_;
  RowCache* const cache_;
  uint32_t run_pages_;  // most pages of a read

  std::mutex lanes_mutex_;
  std::vector<std::unique_ptr<Lane>> lanes_;  // free ones

  std::mutex mutex_;  // guards what follows, and Batch::phase
  std::condition_variable there_is_work_, batch_done_;
  std::deque<Batch*> waiting_;
  bool stopping_ = false;
  std::thread thread_;  // begun with the first large batch
};

}  // namespace mneme
