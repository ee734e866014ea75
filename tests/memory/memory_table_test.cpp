#include "mneme/memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "core/random.h"
#include "memory/pack_support.h"
#include "mneme/error.h"
#include "scratch.h"

namespace mneme::memory_table_test {
namespace {

namespace fs = std::filesystem;
using testing_support::code_of;

constexpr uint64_t kRows = 500, kOffset = 37;
constexpr uint32_t kRowBytes = 264;

class MemoryTableTest : public testing::TestWithParam<Placement> {
 protected:
  void SetUp() override {
    Pcg64 random(1);
    content.resize(kOffset + kRows * kRowBytes + 11);
    for (auto& byte : content) byte = static_cast<char>(random.next());
    path = folder.write("rows", content);
  }

  RowRegion region() const { return {path, kOffset, kRows, kRowBytes}; }
  std::string expected(std::span<const uint64_t> ids) const {
    std::string out;
    for (const uint64_t id : ids) out += content.substr(kOffset + id * kRowBytes, kRowBytes);
    return out;
  }
  static std::string read(const MemoryTable& table, std::span<const uint64_t> ids) {
    std::string out(ids.size() * table.row_bytes(), '?');
    table.read(ids, std::as_writable_bytes(std::span(out)));
    return out;
  }

  ScratchFolder folder;
  fs::path path;
  std::string content;
};

TEST_P(MemoryTableTest, RowsComeInTheOrderAskedWithDuplicates) {
  const auto table = MemoryTable::open(region(), GetParam());
  const std::vector<uint64_t> ids{499, 0, 7, 7, 250, 0};
  EXPECT_EQ(read(*table, ids), expected(ids));
  EXPECT_EQ(read(*table, {}), "");
  EXPECT_EQ(table->rows(), kRows);
  EXPECT_EQ(table->row_bytes(), kRowBytes);
  EXPECT_EQ(table->bytes(), kRows * kRowBytes);
  EXPECT_EQ(table->path(), path);
  EXPECT_EQ(table->placement(), GetParam());
  if (GetParam() == Placement::ram) {
    EXPECT_EQ(table->resident_bytes(), kRows * kRowBytes);
  }
  if (GetParam() == Placement::mmap || GetParam() == Placement::direct) {
    EXPECT_EQ(table->resident_bytes(), 0u);
  }
}

TEST_P(MemoryTableTest, StatisticsCountRowsAndBytesOfSuccessfulReads) {
  const auto table = MemoryTable::open(region(), GetParam());
  read(*table, std::vector<uint64_t>{1, 2, 3});
  read(*table, std::vector<uint64_t>{1});
  std::vector<std::byte> out(kRowBytes);
  EXPECT_THROW(table->read(std::vector<uint64_t>{kRows}, out), Error);
  const auto statistics = table->statistics();
  EXPECT_EQ(statistics.reads, 2u);
  EXPECT_EQ(statistics.rows, 4u);
  EXPECT_EQ(statistics.bytes, 4u * kRowBytes);
}

TEST_P(MemoryTableTest, IdsOutsideAreRefusedBeforeAnythingIsWritten) {
  const auto table = MemoryTable::open(region(), GetParam());
  for (const uint64_t bad : {kRows, ~uint64_t{0}, uint64_t{1} << 63}) {
    const std::vector<uint64_t> ids{0, bad};
    std::string out(2 * kRowBytes, '?'), message;
    EXPECT_EQ(code_of([&] { table->read(ids, std::as_writable_bytes(std::span(out))); }, &message),
              ErrorCode::invalid_argument);
    EXPECT_EQ(out, std::string(2 * kRowBytes, '?'));
    EXPECT_NE(message.find(std::to_string(bad)), std::string::npos) << message;
  }
  for (const size_t bytes :
       {size_t{0}, size_t{kRowBytes - 1}, size_t{kRowBytes + 1}, size_t{2 * kRowBytes}}) {
    std::vector<std::byte> out(bytes);
    EXPECT_EQ(code_of([&] { table->read(std::vector<uint64_t>{1}, out); }), ErrorCode::invalid_argument);
  }
}

TEST_P(MemoryTableTest, RegionsThatDoNotFitTheirFileAreRefused) {
  const auto refused = [&](const RowRegion& bad) {
    return code_of([&] { MemoryTable::open(bad, GetParam()); });
  };
  EXPECT_EQ(refused({path, kOffset + 12, kRows, kRowBytes}), ErrorCode::corrupt);
  EXPECT_EQ(refused({path, 0, uint64_t{1} << 62, 16}), ErrorCode::corrupt);   // rows * row_bytes wraps to 0
  EXPECT_EQ(refused({path, ~uint64_t{0} - 10, 1, 100}), ErrorCode::corrupt);  // offset + size wraps
  EXPECT_EQ(refused({path, 0, uint64_t{1} << 40, kRowBytes}), ErrorCode::corrupt);  // not allocated first
  EXPECT_EQ(refused({path, 0, 0, kRowBytes}), ErrorCode::invalid_argument);
  EXPECT_EQ(refused({path, 0, kRows, 0}), ErrorCode::invalid_argument);
  EXPECT_EQ(refused({path.string() + ".missing", 0, 1, 1}), ErrorCode::not_found);
  EXPECT_EQ(refused({path.parent_path(), 0, 1, 1}), ErrorCode::io);
  // exactly up to the end of the file is fine
  EXPECT_NO_THROW(
      MemoryTable::open(RowRegion{path, content.size() - 2 * kRowBytes, 2, kRowBytes}, GetParam()));
}

TEST_P(MemoryTableTest, AFileThatShrinksIsAnErrorOrDoesNotMatter) {
  const auto table = MemoryTable::open(region(), GetParam());
  fs::resize_file(path, 1000);
  const std::vector<uint64_t> ids{499};
  if (GetParam() == Placement::ram) {
    EXPECT_EQ(read(*table, ids), expected(ids));
  } else {
    EXPECT_EQ(code_of([&] { read(*table, ids); }), ErrorCode::io);
  }
}

TEST_P(MemoryTableTest, ManyThreadsReadAtOnce) {
  const auto table = MemoryTable::open(region(), GetParam());
  std::vector<std::thread> threads;
  std::atomic<int> equal{0};
  for (uint64_t seed = 0; seed < 4; ++seed)
    threads.emplace_back([&, seed] {
      Pcg64 random(seed);
      for (int i = 0; i < 50; ++i) {
        std::vector<uint64_t> ids(random.below(30));
        for (auto& id : ids) id = random.below(kRows);
        if (read(*table, ids) == expected(ids)) ++equal;
      }
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(equal, 200);
  EXPECT_EQ(table->statistics().reads, 200u);
}

INSTANTIATE_TEST_SUITE_P(Placements, MemoryTableTest,
                         testing::Values(Placement::ram, Placement::mmap, Placement::direct,
                                         Placement::cache),
                         [](const auto& item) { return std::string(to_string(item.param)); });

}  // namespace
}  // namespace mneme::memory_table_test
