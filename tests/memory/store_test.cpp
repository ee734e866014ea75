// The placements of MemoryTable: the same rows from each, whatever the layout; and what happens when the
// disk, the file or the budget does not play along.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <deque>
#include <fstream>
#include <thread>

#include "core/fail.h"
#include "core/random.h"
#include "memory/store/placements.h"
#include "pack_support.h"

namespace mneme::store_test {
namespace {

using namespace testing_support;
using ::testing::HasSubstr;

constexpr uint64_t kRows = 3000;
constexpr uint32_t kRowBytes = 264;

MemoryOptions placed(Placement placement, uint64_t budget = 0) {
  MemoryOptions options;
  options.placement = placement;
  options.budget_bytes = budget;
  return options;
}

void write_file(const fs::path& path, const std::string& content) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << content;
}

// Files that hold expected_row(id) of every id in [0, kRows), laid out in several ways.
class StoreTest : public FolderTest {
 protected:
  RowLayout flat() {
    std::string content(37, 'x');
    for (uint64_t id = 0; id < kRows; ++id) content += expected_row(id, kRowBytes);
    write_file(folder / "flat", content + "tail");
    return RowRegion{folder / "flat", 37, kRows, kRowBytes};
  }
  RowLayout paged() {
    std::string content(4096, 'x');
    for (uint64_t id = 0; id < kRows; ++id) {
      content += expected_row(id, kRowBytes);
      if (id % 15 == 14) content.resize((content.size() + 4095) / 4096 * 4096);
    }
    write_file(folder / "paged", content);
    return RowRegion{folder / "paged", 4096, kRows, kRowBytes, 15};
  }
  // Two segments, the second in two files: weights of 256 bytes in one, scales of 8 in the other.
  RowLayout scattered() {
    constexpr uint64_t kFirst = 1000;
    std::string one, weights(11, 'w'), scales(5, 's');
    for (uint64_t id = 0; id < kRows; ++id) {
      const std::string row = expected_row(id, kRowBytes);
      if (id < kFirst) {
        one += row;
      } else {
        weights += row.substr(0, 256);
        scales += row.substr(256);
      }
    }
    write_file(folder / "one", one);
    write_file(folder / "weights", weights);
    write_file(folder / "scales", scales);
    RowLayout layout;
    layout.path = folder / "one";
    layout.segments = {{kFirst, {{folder / "one", 0, kRowBytes}}},
                       {kRows - kFirst, {{folder / "weights", 11, 256}, {folder / "scales", 5, 8}}}};
    return layout;
  }

  static std::vector<uint64_t> random_ids(size_t count, uint64_t seed, uint64_t below = kRows) {
    Pcg64 random(seed);
    std::vector<uint64_t> ids(count);
    for (auto& id : ids) id = random.below(below);
    return ids;
  }
  static void expect_rows(const MemoryTable& table, std::span<const uint64_t> ids, RowBatch& batch) {
    table.start(ids, batch);
    table.wait(batch);
    ASSERT_EQ(batch.rows().size(), ids.size());
    for (size_t i = 0; i < ids.size(); ++i)
      ASSERT_EQ(std::string(reinterpret_cast<const char*>(batch.rows()[i]), table.row_bytes()),
                expected_row(ids[i], table.row_bytes()))
          << "row " << ids[i];
  }
};

constexpr Placement kAll[] = {Placement::ram, Placement::mmap, Placement::direct, Placement::cache};

TEST_F(StoreTest, EveryPlacementGivesTheSameRowsOfEveryLayout) {
  for (const RowLayout& layout : {flat(), paged(), scattered()})
    for (const Placement placement : kAll)
      for (const uint32_t depth : {1u, 5u, 128u}) {
        MemoryOptions options = placed(placement, 3 << 20);
        options.queue_depth = depth;
        options.gap_pages = depth % 3;
        const auto table = MemoryTable::open(layout, options);
        SCOPED_TRACE(table->describe());
        RowBatch batch;
        for (uint64_t seed = 0; seed < 4; ++seed) {
          expect_rows(*table, random_ids(1, seed), batch);
          expect_rows(*table, random_ids(2000, seed), batch);
          expect_rows(*table, {}, batch);
          expect_rows(*table, std::vector<uint64_t>{kRows - 1, 0, 0, kRows - 1, 1000, 999}, batch);
        }
        std::vector<uint64_t> all(kRows);
        for (uint64_t i = 0; i < kRows; ++i) all[i] = (i * 7) % kRows;
        expect_rows(*table, all, batch);
      }
}

TEST_F(StoreTest, DuplicatesShareAnAddressAndTheBatchKeepsItsBuffers) {
  for (const Placement placement : kAll) {
    const auto table = MemoryTable::open(paged(), placed(placement));
    RowBatch batch;
    const std::vector<uint64_t> ids{5, 9, 5, 5, 9};
    expect_rows(*table, ids, batch);
    EXPECT_EQ(batch.rows()[0], batch.rows()[2]);
    EXPECT_EQ(batch.rows()[0], batch.rows()[3]);
    EXPECT_EQ(batch.rows()[1], batch.rows()[4]);
    EXPECT_NE(batch.rows()[0], batch.rows()[1]);
    const uint64_t bytes = batch.buffer_bytes();
    expect_rows(*table, std::vector<uint64_t>{1, 2, 3}, batch);
    EXPECT_EQ(batch.buffer_bytes(), bytes);
  }
}

TEST_F(StoreTest, RamAndMmapHandOutRowsInPlace) {
  const auto table = MemoryTable::open(paged(), placed(Placement::ram));
  RowBatch one, two;
  const std::vector<uint64_t> ids{77};
  table->start(ids, one);
  table->start(ids, two);
  table->wait(two);
  table->wait(one);
  EXPECT_EQ(one.rows()[0], two.rows()[0]);
}

TEST_F(StoreTest, BatchesMayBeMovedDroppedAndRestartedWhilePending) {
  for (const Placement placement : kAll) {
    MemoryOptions options = placed(placement);
    options.queue_depth = 8;
    const auto table = MemoryTable::open(paged(), options);
    const auto few = random_ids(5, 1), many = random_ids(2500, 2);
    {
      RowBatch dropped, large;
      table->start(few, dropped);
      table->start(many, large);
    }
    RowBatch batch;
    table->start(many, batch);
    table->start(few, batch);
    EXPECT_TRUE(batch.pending());
    RowBatch moved = std::move(batch);
    EXPECT_TRUE(moved.pending());
    table->wait(moved);
    EXPECT_FALSE(moved.pending());
    for (size_t i = 0; i < few.size(); ++i)
      EXPECT_EQ(std::memcmp(moved.rows()[i], expected_row(few[i], kRowBytes).data(), kRowBytes), 0);
    table->wait(moved);  // again: nothing to do
    // The same batch with another table.
    const auto other = MemoryTable::open(flat(), placed(Placement::direct));
    expect_rows(*other, many, moved);
    RowBatch foreign;
    table->start(few, foreign);
    EXPECT_EQ(code_of([&] { other->wait(foreign); }), ErrorCode::invalid_argument);
  }
}

TEST_F(StoreTest, ManyThreadsWithSmallAndLargeBatches) {
  for (const Placement placement : kAll) {
    MemoryOptions options = placed(placement, placement == Placement::cache ? 12 << 20 : 0);
    options.queue_depth = 16;
    const auto table = MemoryTable::open(paged(), options);
    std::vector<std::thread> threads;
    for (uint64_t t = 0; t < 4; ++t)
      threads.emplace_back([&, t] {
        RowBatch small, large;
        for (uint64_t i = 0; i < 10; ++i) {
          const auto many = random_ids(1500, t * 100 + i), few = random_ids(20, t * 1000 + i);
          table->start(many, large);
          expect_rows(*table, few, small);
          table->wait(large);
          for (size_t k = 0; k < many.size(); k += 97)
            ASSERT_EQ(std::memcmp(large.rows()[k], expected_row(many[k], kRowBytes).data(), kRowBytes), 0);
        }
      });
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(table->statistics().reads, 80u);
    EXPECT_EQ(table->statistics().rows, 40u * 1520);
  }
}

TEST_F(StoreTest, RowsOfOnePageAreOneRead) {
  const auto table = MemoryTable::open(paged(), placed(Placement::direct));
  RowBatch batch;
  std::vector<uint64_t> ids;
  for (uint64_t i = 0; i < 60; ++i) ids.push_back(59 - i);  // four pages
  expect_rows(*table, ids, batch);
  const MemoryStatistics statistics = table->statistics();
  EXPECT_EQ(statistics.disk_reads, 1u);
  EXPECT_EQ(statistics.disk_bytes, 4u * 4096);
  EXPECT_EQ(statistics.distinct, 60u);
  EXPECT_EQ(statistics.misses, 60u);
  EXPECT_EQ(statistics.disk.count, 1u);
  EXPECT_EQ(statistics.batch.count, 1u);
  EXPECT_GT(statistics.batch.p99, 0);
  table->reset_statistics();
  EXPECT_EQ(table->statistics().rows, 0u);
}

TEST_F(StoreTest, GapsAreReadAlongIfAskedFor) {
  MemoryOptions options = placed(Placement::direct);
  const std::vector<uint64_t> ids{0, 30};  // pages 0 and 2
  RowBatch batch;
  for (const uint32_t gap : {0u, 1u}) {
    options.gap_pages = gap;
    const auto table = MemoryTable::open(paged(), options);
    expect_rows(*table, ids, batch);
    EXPECT_EQ(table->statistics().disk_reads, gap == 0 ? 2u : 1u);
    batch = RowBatch();
  }
}

TEST_F(StoreTest, TheCacheHitsWhatItHasSeen) {
  const auto table = MemoryTable::open(paged(), placed(Placement::cache, 4 << 20));
  RowBatch batch;
  const auto ids = random_ids(500, 3);
  expect_rows(*table, ids, batch);
  const MemoryStatistics first = table->statistics();
  EXPECT_EQ(first.hits, 0u);
  table->reset_statistics();
  expect_rows(*table, ids, batch);
  const MemoryStatistics second = table->statistics();
  EXPECT_EQ(second.misses, 0u);
  EXPECT_EQ(second.hits, first.distinct);
  EXPECT_EQ(second.hit_rate(), 1.0);
  EXPECT_EQ(second.disk_reads, 0u);
}

// ---------------------------------------------------------------------------------------- a disk that fails

// Reads files like a disk with a will of its own.
struct Misbehaviour {
  std::atomic<int64_t> reads{0};
  std::atomic<int64_t> fail_at{-1};  // this read gives EIO
  int short_every = 0;               // these give half of what was asked
  int again_every = 0;               // these give EAGAIN
  bool refuse_to_reap = false;       // the queue itself breaks
};

class OddQueue final : public ReadQueue {
 public:
  explicit OddQueue(std::shared_ptr<Misbehaviour> how) : how_(std::move(how)) {}
  void push(const ReadRequest& request) override { pushed_.push_back(request); }
  void submit() override {}
  size_t reap(std::span<ReadDone> out, size_t at_least) override {
    if (how_->refuse_to_reap) fail(ErrorCode::io, "the queue is broken");
    size_t count = 0;
    while (count < std::max<size_t>(at_least, 1) && count < out.size() && !pushed_.empty()) {
      const ReadRequest request = pushed_.back();  // the last comes first
      pushed_.pop_back();
      out[count++] = {request.slot, answer(request)};
    }
    return count;
  }

 private:
  int32_t answer(const ReadRequest& request) {
    const int64_t number = how_->reads++;
    if (number == how_->fail_at) return -EIO;
    if (how_->again_every > 0 && number % how_->again_every == 0) return -EAGAIN;
    uint32_t bytes = request.bytes;
    if (how_->short_every > 0 && number % how_->short_every == 0 && bytes > 4096)
      bytes = bytes / 4096 / 2 * 4096;
    const ssize_t got = ::pread(request.fd, request.into, bytes, static_cast<off_t>(request.offset));
    return got < 0 ? -errno : static_cast<int32_t>(got);
  }
  std::shared_ptr<Misbehaviour> how_;
  std::deque<ReadRequest> pushed_;
};

std::unique_ptr<MemoryTable> open_odd(const RowLayout& layout, const MemoryOptions& options,
                                      const std::shared_ptr<Misbehaviour>& how) {
  return open_reading(layout, options, [how](uint32_t) {
    return ReadQueueFactory{"odd", [how](uint32_t, std::span<std::byte>) -> std::unique_ptr<ReadQueue> {
                              return std::make_unique<OddQueue>(how);
                            }};
  });
}

TEST_F(StoreTest, ShortReadsAndRetriesInAnyOrderGiveTheSameRows) {
  for (const Placement placement : {Placement::direct, Placement::cache})
    for (const int every : {1, 2, 3}) {
      const auto how = std::make_shared<Misbehaviour>();
      how->short_every = every;
      how->again_every = every == 1 ? 0 : 5;
      MemoryOptions options = placed(placement);
      options.queue_depth = 7;
      const auto table = open_odd(paged(), options, how);
      RowBatch batch;
      expect_rows(*table, random_ids(3, 1), batch);
      expect_rows(*table, random_ids(2500, 2), batch);
    }
}

TEST_F(StoreTest, AFailingDiskIsAnErrorAndTheTableGoesOn) {
  for (const Placement placement : {Placement::direct, Placement::cache})
    for (const size_t count : {size_t{4}, size_t{2000}})
      for (const int64_t at : {0, 3}) {
        const auto how = std::make_shared<Misbehaviour>();
        MemoryOptions options = placed(placement);
        options.queue_depth = 16;
        const auto table = open_odd(paged(), options, how);
        RowBatch batch;
        std::vector<uint64_t> ids;
        for (uint64_t i = 0; i < count; ++i) ids.push_back(i * 100 % kRows);
        how->fail_at = at;
        std::string message;
        table->start(ids, batch);
        EXPECT_EQ(code_of([&] { table->wait(batch); }, &message), ErrorCode::io);
        EXPECT_THAT(message, HasSubstr("paged"));
        EXPECT_THAT(message, HasSubstr("Input/output error"));
        EXPECT_TRUE(batch.rows().empty());
        EXPECT_FALSE(batch.pending());
        expect_rows(*table, ids, batch);  // the block is good again
      }
}

TEST_F(StoreTest, ABrokenQueueIsAnErrorAndNotUsedAgain) {
  const auto how = std::make_shared<Misbehaviour>();
  const auto table = open_odd(paged(), placed(Placement::direct), how);
  RowBatch batch;
  how->refuse_to_reap = true;
  const auto ids = random_ids(5, 1);
  table->start(ids, batch);
  EXPECT_EQ(code_of([&] { table->wait(batch); }), ErrorCode::io);
  how->refuse_to_reap = false;
  expect_rows(*table, ids, batch);
}

TEST_F(StoreTest, ThreadsReadWhereIoUringIsRefused) {
  for (const RowLayout& layout : {flat(), paged(), scattered()}) {
    MemoryOptions options = placed(Placement::direct);
    options.queue_depth = 32;
    const auto table = open_reading(layout, options, [](uint32_t) { return thread_read_queue("a test"); });
    EXPECT_THAT(table->describe(), HasSubstr("threads (a test)"));
    RowBatch batch;
    for (const size_t count : {1u, 30u, 2500u}) expect_rows(*table, random_ids(count, count), batch);
  }
}

TEST_F(StoreTest, AFileThatShrinksIsAnError) {
  for (const Placement placement : {Placement::mmap, Placement::direct, Placement::cache}) {
    for (const bool pending : {false, true}) {
      const RowLayout layout = paged();
      const auto table = MemoryTable::open(layout, placed(placement));
      RowBatch batch;
      const std::vector<uint64_t> ids{kRows - 1};
      std::string message;
      if (pending && placement == Placement::mmap) table->start(ids, batch);
      fs::resize_file(layout.path, 8192);
      EXPECT_EQ(code_of(
                    [&] {
                      if (!batch.pending()) table->start(ids, batch);
                      table->wait(batch);
                    },
                    &message),
                ErrorCode::io);
      EXPECT_THAT(message, HasSubstr("shrank"));
      EXPECT_TRUE(batch.rows().empty());
    }
  }
  // It shrinks after the size was looked at: what the disk gives ends too soon.
  const RowLayout layout = paged();
  const auto how = std::make_shared<Misbehaviour>();
  const auto table = open_odd(layout, placed(Placement::direct), how);
  RowBatch batch;
  table->start(std::vector<uint64_t>{kRows - 1}, batch);
  fs::resize_file(layout.path, 8192);
  std::string message;
  EXPECT_EQ(code_of([&] { table->wait(batch); }, &message), ErrorCode::io);
  EXPECT_THAT(message, HasSubstr("shorter"));
}

// -------------------------------------------------------------------------------------------------- budgets

TEST_F(StoreTest, ABudgetTooSmallForOneRowSaysWhatWouldDo) {
  for (const Placement placement : kAll) {
    std::string message;
    EXPECT_EQ(code_of([&] { MemoryTable::open(paged(), placed(placement, 100)); }, &message),
              ErrorCode::limit)
        << to_string(placement);
    EXPECT_THAT(message, HasSubstr("budget"));
    // What the message asks for is enough (ram and mmap ask for the whole table).
    const size_t at =
        message.find(placement == Placement::ram || placement == Placement::mmap ? "needs " : "at least ");
    ASSERT_NE(at, std::string::npos) << message;
    const uint64_t enough = std::stoull(message.substr(message.find_first_of("0123456789", at)));
    const auto table = MemoryTable::open(paged(), placed(placement, enough));
    RowBatch batch;
    expect_rows(*table, std::vector<uint64_t>{17}, batch);
    EXPECT_EQ(code_of([&] { MemoryTable::open(paged(), placed(placement, enough - 1)); }), ErrorCode::limit);
  }
}

TEST_F(StoreTest, ABatchThatDoesNotFitIsRefusedAndSmallerOnesGoOn) {
  for (const Placement placement : {Placement::direct, Placement::cache}) {
    constexpr uint64_t kBudget = 300000;
    const auto table = MemoryTable::open(paged(), placed(placement, kBudget));
    RowBatch batch;
    std::string message;
    std::vector<uint64_t> all(kRows);
    for (uint64_t i = 0; i < kRows; ++i) all[i] = i;
    EXPECT_EQ(code_of([&] { table->start(all, batch); }, &message), ErrorCode::limit);
    EXPECT_THAT(message, HasSubstr("budget of at least"));
    expect_rows(*table, random_ids(50, 1), batch);
    EXPECT_LE(table->resident_bytes() + batch.buffer_bytes(), kBudget);
  }
}

TEST_F(StoreTest, BatchIdsReserveWhatBatchesNeed) {
  MemoryOptions options = placed(Placement::cache, 2 << 20);
  options.batch_ids = 3000;
  const auto table = MemoryTable::open(paged(), options);
  RowBatch batch;
  std::vector<uint64_t> all(kRows);
  for (uint64_t i = 0; i < kRows; ++i) all[i] = i;
  expect_rows(*table, all, batch);
  options.batch_ids = 10'000;
  EXPECT_EQ(code_of([&] { MemoryTable::open(paged(), options); }), ErrorCode::limit);
}

TEST_F(StoreTest, AutomaticSaysWhatItChoseAndWhy) {
  const auto ram = MemoryTable::open(paged(), placed(Placement::automatic, 10 << 20));
  EXPECT_EQ(ram->placement(), Placement::ram);
  EXPECT_THAT(ram->describe(), HasSubstr("it fits into the budget of 10 MB"));
  const auto cache = MemoryTable::open(paged(), placed(Placement::automatic, 500'000));
  EXPECT_EQ(cache->placement(), Placement::cache);
  EXPECT_THAT(cache->describe(), HasSubstr("larger than the budget of 500 KB"));
  EXPECT_THAT(cache->describe(), HasSubstr("paged: cache"));
  const auto none = MemoryTable::open(paged(), placed(Placement::automatic));
  EXPECT_THAT(none->describe(), HasSubstr("half of free memory"));
  EXPECT_EQ(code_of([&] {
              MemoryTable::open(RowRegion{folder / "absent", 0, 1, 1}, placed(Placement::automatic));
            }),
            ErrorCode::not_found);
}

TEST_F(StoreTest, NamesOfPlacementsRoundTrip) {
  for (const Placement placement : kAll) EXPECT_EQ(placement_from(to_string(placement)), placement);
  EXPECT_EQ(placement_from("auto"), Placement::automatic);
  EXPECT_EQ(code_of([] { placement_from("disk"); }), ErrorCode::invalid_argument);
}

TEST_F(StoreTest, ResidentFractionIsThatOfTheFileCache) {
  const RowLayout layout = paged();
  const auto ram = MemoryTable::open(layout, placed(Placement::ram));
  EXPECT_EQ(ram->resident_fraction(), 1.0);
  for (const Placement placement : {Placement::mmap, Placement::direct, Placement::cache}) {
    const auto table = MemoryTable::open(layout, placed(placement));
    EXPECT_GT(table->resident_fraction(), 0.99) << to_string(placement);  // just written
  }
}

// ------------------------------------------------------------------------------------------------- overlays

TEST_F(StoreTest, OverlaysReplaceRowsAndLeaveTheBaseAlone) {
  const fs::path path = folder / "t.engram";
  const EngramTableConfig config = small_table();
  write_pack(path, small_pack(config));
  const auto pack = Pack::open(path);
  const uint32_t bytes = pack->row_bytes();
  const std::vector<uint64_t> first{7, 3, 100}, second{3, 50};
  const std::string one(first.size() * bytes, '1'), two(second.size() * bytes, '2');
  write_overlay(folder / "one", pack->rows(), first, std::as_bytes(std::span(one)));
  write_overlay(folder / "two", pack->rows(), second, std::as_bytes(std::span(two)));
  const std::vector<uint64_t> ids{3, 4, 7, 50, 100, 3, 101};
  for (const Placement placement : kAll) {
    MemoryOptions options = placed(placement);
    options.overlays = {folder / "one", folder / "two"};
    const auto table = MemoryTable::open_pack(path, options);
    EXPECT_EQ(table->placement(), placement);
    EXPECT_THAT(table->describe(), HasSubstr("4 rows replaced by 2 overlays"));
    const std::string got = read_rows(*table, ids);
    const auto row = [&](size_t i) { return got.substr(i * bytes, bytes); };
    EXPECT_EQ(row(0), std::string(bytes, '2'));  // the later one wins
    EXPECT_EQ(row(1), expected_row(4, bytes));
    EXPECT_EQ(row(2), std::string(bytes, '1'));
    EXPECT_EQ(row(3), std::string(bytes, '2'));
    EXPECT_EQ(row(4), std::string(bytes, '1'));
    EXPECT_EQ(row(5), row(0));
    EXPECT_EQ(row(6), expected_row(101, bytes));
    EXPECT_EQ(table->statistics().overlaid, 5u);
    const auto plain = MemoryTable::open_pack(path, placed(placement));
    EXPECT_EQ(read_rows(*plain, ids), expected_rows(ids, bytes));
  }
  EXPECT_NO_THROW(Pack::open(path)->verify());
}

TEST_F(StoreTest, OverlaysOfAnotherTableOrDamagedAreRefused) {
  const fs::path path = folder / "t.engram", other = folder / "u.engram", overlay = folder / "o";
  write_pack(path, small_pack(small_table()));
  EngramTableConfig seeded = small_table();
  seeded.seed = 9;
  write_pack(other, small_pack(seeded));
  const auto pack = Pack::open(path);
  const std::string row(pack->row_bytes(), '1');
  write_overlay(overlay, pack->rows(), std::vector<uint64_t>{5}, std::as_bytes(std::span(row)));
  MemoryOptions options = placed(Placement::mmap);
  options.overlays = {overlay};
  const auto open = [&](const fs::path& base) {
    return code_of([&] { MemoryTable::open_pack(base, options); });
  };
  EXPECT_NO_THROW(MemoryTable::open_pack(path, options));
  EXPECT_EQ(open(other), ErrorCode::mismatch);
  std::ifstream file(overlay, std::ios::binary);
  const std::string good{std::istreambuf_iterator<char>(file), {}};
  for (size_t at = 0; at < good.size(); ++at) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 0x20);
    write_file(overlay, bad);
    try {
      MemoryTable::open_pack(path, options);
      ADD_FAILURE() << at;
    } catch (const Error&) {
    }
  }
  for (const size_t size : {size_t{0}, size_t{127}, good.size() - 1}) {
    write_file(overlay, good.substr(0, size));
    EXPECT_EQ(open(path), ErrorCode::corrupt) << size;
  }
  const auto refused = [&](std::vector<uint64_t> ids) {
    const std::string rows(ids.size() * pack->row_bytes(), 'x');
    return code_of([&] { write_overlay(overlay, pack->rows(), ids, std::as_bytes(std::span(rows))); });
  };
  EXPECT_EQ(refused({1, 1}), ErrorCode::invalid_argument);
  EXPECT_EQ(refused({pack->row_count()}), ErrorCode::invalid_argument);
  EXPECT_EQ(code_of([&] { write_overlay(overlay, pack->rows(), std::vector<uint64_t>{1}, {}); }),
            ErrorCode::invalid_argument);
}

}  // namespace
}  // namespace mneme::store_test
