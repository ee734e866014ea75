#include "memory/store/row_reader.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "core/checked.h"

namespace mneme {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint32_t kRunPages = 4;  // most pages that rows of one page or less are joined to

struct Key {
  uint64_t id;
  uint32_t index;  // in the caller's list
};

struct AlignedFree {
  void operator()(std::byte* data) const noexcept { std::free(data); }
};

uint32_t pages_of_read(const RowMap& map) {
  uint32_t most = kRunPages;
  for (const RowMap::Segment& segment : map.segments())
    for (const RowMap::Part& part : segment.parts)
      most = std::max(most, static_cast<uint32_t>((part.bytes + kPageBytes - 2) / kPageBytes + 1));
  return most;
}

// Reads that a row may need.
uint64_t parts_of(const RowMap& map) {
  size_t most = 1;
  for (const RowMap::Segment& segment : map.segments()) most = std::max(most, segment.parts.size());
  return most;
}

}  // namespace

// Adjacent pages of one file, and the rows wanted from them.
struct RowReader::Run {
  uint64_t offset = 0;
  uint32_t pages = 0;
  uint32_t first = 0, last = 0;  // [first, last) of Batch::wanted
  uint16_t segment = 0, part = 0;
};

// A queue with the pages that it reads into, a run's worth for each slot.
struct RowReader::Lane {
  MemoryCharge charge;
  std::unique_ptr<std::byte[], AlignedFree> pages;
  std::unique_ptr<ReadQueue> queue;  // destroyed first

  Lane(std::shared_ptr<MemoryAccount> account, uint64_t bytes, uint64_t page_bytes)
      : charge(std::move(account)) {
    charge.resize(bytes, "a queue of reads");
    pages.reset(static_cast<std::byte*>(std::aligned_alloc(kPageBytes, page_bytes)));
    require(pages != nullptr, ErrorCode::out_of_memory, "no memory for {} bytes of pages to read into",
            page_bytes);
  }
};

struct RowReader::Batch final : RowBatch::State {
  enum class Phase { ready, waiting, driven, done };
  struct Flight {
    uint32_t run = 0;
    uint32_t have = 0;  // bytes that earlier, short reads brought
    Clock::time_point since;
  };

  explicit Batch(std::shared_ptr<MemoryAccount> account) : charge(std::move(account)) {}
  uint64_t bytes() const noexcept override { return charge.bytes(); }

  MemoryCharge charge;
  uint64_t capacity = 0;  // ids that the buffers below are made for
  std::vector<Key> keys;
  std::vector<uint64_t> distinct;     // sorted
  std::vector<uint32_t> wanted;       // of distinct: those to be read
  std::unique_ptr<std::byte[]> rows;  // [distinct, row_bytes]
  std::vector<Run> runs;
  std::unique_ptr<Lane> lane;
  std::vector<Flight> flights;  // [queue depth]
  std::vector<uint32_t> free_slots;
  size_t next_run = 0, in_flight = 0;
  std::exception_ptr error;
  Phase phase = Phase::ready;  // guarded by RowReader::mutex_
};

uint64_t RowReader::lane_bytes(const RowMap& map, const RowReaderOptions& options) {
  return uint64_t{options.queue_depth} *
         (pages_of_read(map) * kPageBytes + 256);  // entries of the ring included
}

uint64_t RowReader::batch_bytes(uint64_t ids, const RowMap& map) {
  const uint64_t each = map.row_bytes() + sizeof(Key) + sizeof(uint64_t) + sizeof(uint32_t) +
                        parts_of(map) * sizeof(Run) + sizeof(void*);
  return checked_mul(ids, each, "buffers of a batch of rows");
}

RowReader::RowReader(const RowMap& map, std::vector<FileHandle> files, const RowReaderOptions& options,
                     ReadQueueFactory queues, std::shared_ptr<MemoryAccount> account,
                     MemoryTable::Counters& counters, RowCache* cache)
    : map_(map),
      files_(std::move(files)),
      options_(options),
      queues_(std::move(queues)),
      account_(std::move(account)),
      counters_(counters),
      cache_(cache),
      run_pages_(pages_of_read(map)) {}

RowReader::~RowReader() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  there_is_work_.notify_all();
  if (thread_.joinable()) thread_.join();
}

std::unique_ptr<RowReader::Lane> RowReader::borrow_lane() {
  {
    const std::lock_guard lock(lanes_mutex_);
    if (!lanes_.empty()) {
      auto lane = std::move(lanes_.back());
      lanes_.pop_back();
      return lane;
    }
  }
  const uint64_t page_bytes = uint64_t{options_.queue_depth} * run_pages_ * kPageBytes;
  auto lane = std::make_unique<Lane>(account_, lane_bytes(map_, options_), page_bytes);
  lane->queue = queues_.make(options_.queue_depth, {lane->pages.get(), page_bytes});
  return lane;
}

void RowReader::return_lane(std::unique_ptr<Lane> lane) {
  const std::lock_guard lock(lanes_mutex_);
  lanes_.push_back(std::move(lane));
}

void RowReader::begin(std::span<const uint64_t> ids, std::span<const std::byte*> addresses,
                      std::unique_ptr<RowBatch::State>& state) {
  require(ids.size() < (uint64_t{1} << 31), ErrorCode::invalid_argument,
          "a batch of {} rows; at most 2^31 go", ids.size());
  for (size_t i = 0; i < files_.size(); ++i) files_[i].check_not_shorter(map_.files()[i].end);
  if (state == nullptr) state = std::make_unique<Batch>(account_);
  auto& batch = static_cast<Batch&>(*state);
  if (ids.size() > batch.capacity) {
    // What is there goes first: old and new together could exceed the budget.
    batch.rows.reset();
    batch.capacity = 0;
    batch.keys = {};
    batch.distinct = {};
    batch.wanted = {};
    batch.runs = {};
    batch.charge.resize(0, "");
    batch.charge.resize(batch_bytes(ids.size(), map_), "a batch of rows");
    batch.keys.reserve(ids.size());
    batch.distinct.reserve(ids.size());
    batch.wanted.reserve(ids.size());
    batch.runs.reserve(ids.size() * parts_of(map_));
    batch.rows.reset(new (std::nothrow) std::byte[ids.size() * map_.row_bytes()]);
    require(batch.rows != nullptr, ErrorCode::out_of_memory, "no memory for a batch of {} rows of {} bytes",
            ids.size(), map_.row_bytes());
    batch.capacity = ids.size();
  }
  find_rows(batch, ids, addresses);
  plan_runs(batch);
  batch.next_run = batch.in_flight = 0;
  batch.error = nullptr;
  batch.phase = Batch::Phase::ready;
  if (batch.runs.empty()) return;
  batch.lane = borrow_lane();
  batch.flights.resize(options_.queue_depth);
  batch.free_slots.clear();
  for (uint32_t slot = options_.queue_depth; slot-- > 0;) batch.free_slots.push_back(slot);
  if (batch.runs.size() > options_.queue_depth) return hand_over(batch);
  try {
    fill(batch);
    batch.lane->queue->submit();
  } catch (...) {  // end() reports it, after what is in flight has ended
    batch.error = std::current_exception();
  }
}

// Sorted and distinct ids; each caller's address; from the cache what is there.
void RowReader::find_rows(Batch& batch, std::span<const uint64_t> ids,
                          std::span<const std::byte*> addresses) {
  const uint32_t bytes = map_.row_bytes();
  batch.keys.clear();
  batch.distinct.clear();
  batch.wanted.clear();
  for (size_t i = 0; i < ids.size(); ++i) batch.keys.push_back({ids[i], static_cast<uint32_t>(i)});
  std::sort(batch.keys.begin(), batch.keys.end(), [](const Key& a, const Key& b) { return a.id < b.id; });
  for (const Key& key : batch.keys) {
    if (batch.distinct.empty() || batch.distinct.back() != key.id) batch.distinct.push_back(key.id);
    addresses[key.index] = batch.rows.get() + (batch.distinct.size() - 1) * bytes;
  }
  constexpr size_t kAhead = 8;
  const size_t count_distinct = batch.distinct.size();
  for (size_t i = 0; i < count_distinct; ++i) {
    if (cache_ != nullptr && i + kAhead < count_distinct) cache_->prefetch(batch.distinct[i + kAhead]);
    if (cache_ == nullptr || !cache_->get(batch.distinct[i], batch.rows.get() + i * bytes))
      batch.wanted.push_back(static_cast<uint32_t>(i));
  }
  count(counters_.distinct, count_distinct);
  count(counters_.hits, count_distinct - batch.wanted.size());
  count(counters_.misses, batch.wanted.size());
}

void RowReader::plan_runs(Batch& batch) const {
  batch.runs.clear();
  const auto& wanted = batch.wanted;
  uint32_t first = 0;
  for (size_t s = 0; s < map_.segments().size(); ++s) {
    const RowMap::Segment& segment = map_.segments()[s];
    uint32_t last = first;
    while (last < wanted.size() && batch.distinct[wanted[last]] - segment.first < segment.rows) ++last;
    for (size_t p = 0; p < segment.parts.size(); ++p) {
      const RowMap::Part& part = segment.parts[p];
      Run* run = nullptr;
      for (uint32_t i = first; i < last; ++i) {
        const uint64_t at = part.at(batch.distinct[wanted[i]] - segment.first);
        const uint64_t begin = at / kPageBytes * kPageBytes,
                       end = checked_align(at + part.bytes, kPageBytes, "a row");
        if (run != nullptr &&
            begin <= run->offset + (run->pages + uint64_t{options_.gap_pages}) * kPageBytes &&
            end - run->offset <= run_pages_ * kPageBytes) {
          run->pages =
              static_cast<uint32_t>(std::max<uint64_t>(run->pages, (end - run->offset) / kPageBytes));
          run->last = i + 1;
          continue;
        }
        batch.runs.push_back({begin, static_cast<uint32_t>((end - begin) / kPageBytes), i, i + 1,
                              static_cast<uint16_t>(s), static_cast<uint16_t>(p)});
        run = &batch.runs.back();
      }
    }
    first = last;
  }
}

void RowReader::push(Batch& batch, uint32_t slot) {
  const Batch::Flight& flight = batch.flights[slot];
  const Run& run = batch.runs[flight.run];
  const uint32_t file = map_.segments()[run.segment].parts[run.part].file;
  std::byte* const into = batch.lane->pages.get() + uint64_t{slot} * run_pages_ * kPageBytes;
  batch.lane->queue->push({files_[file].fd(), run.offset + flight.have,
                           static_cast<uint32_t>(run.pages * kPageBytes) - flight.have, into + flight.have,
                           slot});
  ++batch.in_flight;
}

void RowReader::fill(Batch& batch) {
  const auto now = Clock::now();
  while (!batch.free_slots.empty() && batch.next_run < batch.runs.size() && !batch.error) {
    const uint32_t slot = batch.free_slots.back();
    batch.free_slots.pop_back();
    batch.flights[slot] = {static_cast<uint32_t>(batch.next_run++), 0, now};
    push(batch, slot);
  }
}

void RowReader::drive(Batch& batch, bool to_the_end, bool poll) {
  std::array<ReadDone, 64> done;
  do {
    fill(batch);
    if (batch.in_flight == 0) return;
    // Waiting for a few at a time saves system calls and keeps most of the queue in flight.
    const size_t some = std::max<size_t>(1, std::min<size_t>(batch.in_flight, options_.queue_depth / 8));
    if (poll) batch.lane->queue->poll(std::min(some, done.size()));
    const size_t count_done = batch.lane->queue->reap(done, std::min(some, done.size()));
    for (size_t i = 0; i < count_done; ++i) deliver(batch, done[i]);
  } while (to_the_end);
}

void RowReader::deliver(Batch& batch, const ReadDone& done) {
  Batch::Flight& flight = batch.flights[done.slot];
  const Run& run = batch.runs[flight.run];
  const RowMap::Segment& segment = map_.segments()[run.segment];
  const RowMap::Part& part = segment.parts[run.part];
  const std::byte* const pages = batch.lane->pages.get() + uint64_t{done.slot} * run_pages_ * kPageBytes;
  --batch.in_flight;
  const auto give_up = [&](std::exception_ptr error) {
    if (!batch.error) batch.error = std::move(error);
    batch.free_slots.push_back(done.slot);
  };
  try {
    if (done.result == -EAGAIN || done.result == -EINTR) return push(batch, done.slot);
    const auto path = [&] { return files_[part.file].path().string(); };
    if (done.result < 0)
      fail(ErrorCode::io, "cannot read {} at byte {}: {}", path(), run.offset + flight.have,
           std::strerror(-done.result));
    const uint64_t have = flight.have + static_cast<uint64_t>(done.result);
    const uint64_t last_row = batch.distinct[batch.wanted[run.last - 1]] - segment.first;
    if (have < part.at(last_row) + part.bytes - run.offset) {  // a short read: go on at a page
      const auto whole = static_cast<uint32_t>(have / kPageBytes * kPageBytes);
      if (whole <= flight.have)
        fail(ErrorCode::io, "cannot read {} at byte {}: the file became shorter", path(), run.offset + have);
      flight.have = whole;
      return push(batch, done.slot);
    }
    count(counters_.disk_reads, 1);
    count(counters_.disk_bytes, have);
    counters_.disk.add(static_cast<uint64_t>(std::chrono::nanoseconds(Clock::now() - flight.since).count()));
    finish_run(batch, run, pages);
    batch.free_slots.push_back(done.slot);
  } catch (...) {
    give_up(std::current_exception());
  }
}

void RowReader::finish_run(Batch& batch, const Run& run, const std::byte* pages) {
  const RowMap::Segment& segment = map_.segments()[run.segment];
  const RowMap::Part& part = segment.parts[run.part];
  const uint32_t bytes = map_.row_bytes();
  const bool whole = segment.parts.size() == 1;
  for (uint32_t i = run.first; i < run.last; ++i) {
    const uint32_t place = batch.wanted[i];
    const uint64_t id = batch.distinct[place];
    std::byte* const row = batch.rows.get() + uint64_t{place} * bytes;
    std::memcpy(row + part.within, pages + (part.at(id - segment.first) - run.offset), part.bytes);
    if (cache_ != nullptr && whole) cache_->put(id, row);
  }
}

void RowReader::end(std::unique_ptr<RowBatch::State>& state) {
  auto& batch = static_cast<Batch&>(*state);
  bool mine = true;
  {
    std::unique_lock lock(mutex_);
    if (batch.phase == Batch::Phase::waiting) {  // the thread is busy with another batch
      waiting_.erase(std::find(waiting_.begin(), waiting_.end(), &batch));
    } else if (batch.phase != Batch::Phase::ready) {
      batch_done_.wait(lock, [&] { return batch.phase == Batch::Phase::done; });
      mine = false;
    }
    batch.phase = Batch::Phase::ready;
  }
  if (batch.lane == nullptr) return;
  if (mine) {
    try {
      drive(batch, true, true);
    } catch (...) {
      if (!batch.error) batch.error = std::current_exception();
    }
  }
  if (batch.in_flight == 0)
    return_lane(std::move(batch.lane));
  else
    abandon_lane(batch);
  if (batch.error) std::rethrow_exception(std::exchange(batch.error, nullptr));
  if (cache_ != nullptr && !map_.contiguous())
    for (const uint32_t place : batch.wanted)
      cache_->put(batch.distinct[place], batch.rows.get() + uint64_t{place} * map_.row_bytes());
}

// A queue that cannot say what became of its reads: the system may still write to its pages, so they are kept
// until the process ends.
void RowReader::abandon_lane(Batch& batch) {
  static std::mutex mutex;
  static auto* const kept = new std::vector<decltype(batch.lane->pages)>;  // never destroyed
  {
    const std::lock_guard lock(mutex);
    kept->push_back(std::move(batch.lane->pages));
  }
  batch.lane.reset();
  batch.in_flight = 0;
}

void RowReader::hand_over(Batch& batch) {
  {
    const std::lock_guard lock(mutex_);
    if (!thread_.joinable()) thread_ = std::thread([this] { work(); });
    batch.phase = Batch::Phase::waiting;
    waiting_.push_back(&batch);
  }
  there_is_work_.notify_one();
}

void RowReader::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    there_is_work_.wait(lock, [&] { return stopping_ || !waiting_.empty(); });
    if (waiting_.empty()) return;
    Batch& batch = *waiting_.front();
    waiting_.pop_front();
    batch.phase = Batch::Phase::driven;
    lock.unlock();
    try {
      drive(batch, true);
    } catch (...) {
      if (!batch.error) batch.error = std::current_exception();
    }
    lock.lock();
    batch.phase = Batch::Phase::done;
    batch_done_.notify_all();
  }
}

}  // namespace mneme
