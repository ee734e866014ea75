// The measurements of `mneme doctor`: kernels against plain sums on every instruction set, and the cache.
#include "cost/machine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <numeric>

#include "core/json.h"
#include "cost/arithmetic.h"
#include "cost/bandwidth.h"
#include "cost/disk_reads.h"
#include "mneme/error.h"
#include "scratch.h"
#include "simd/every_isa.h"
#include "simd/isa.h"

namespace mneme::machine_test {
namespace {

namespace fs = std::filesystem;

TEST_P(OnEveryIsa, SumWordsAddsEveryWord) {
  alignas(64) static uint64_t words[64 * 33];
  uint64_t expected = 0;
  for (size_t i = 0; i < std::size(words); ++i) expected += words[i] = i * i * 0x123456789ULL + 5;
  EXPECT_EQ(sum_words(words), expected);
  EXPECT_EQ(sum_words(std::span(words).first(64)),
            std::accumulate(std::begin(words), std::begin(words) + 64, uint64_t{0}));
}

TEST_P(OnEveryIsa, Int8TileIsTheProduct) {
  constexpr int kSteps = 5;
  std::vector<uint8_t> a(kSteps * kTileA * 4);
  std::vector<int8_t> b(kSteps * kTileB * 4);
  std::vector<int32_t> sums(kTileA * kTileB, 3), expected = sums;
  for (size_t i = 0; i < a.size(); ++i) a[i] = static_cast<uint8_t>(i * 11 % 64);
  for (size_t i = 0; i < b.size(); ++i) b[i] = static_cast<int8_t>(static_cast<int>(i * 37 % 255) - 127);
  for (size_t i = 0; i < kTileA; ++i)
    for (size_t j = 0; j < kTileB; ++j)
      for (size_t s = 0; s < kSteps; ++s)
        for (size_t k = 0; k < 4; ++k)
          expected[i * kTileB + j] += a[(s * kTileA + i) * 4 + k] * b[(s * kTileB + j) * 4 + k];
  int8_tile(a.data(), b.data(), kSteps, sums.data());
  EXPECT_EQ(sums, expected);
}

INSTANTIATE_TEST_SUITE_P(, OnEveryIsa, testing::ValuesIn(supported_isas().begin(), supported_isas().end()),
                         [](const auto& p) {
                           std::string name(to_string(p.param));
                           std::erase(name, '-');
                           return name;
                         });

TEST(ReadBandwidth, EachPassReadsTheWholeBuffer) {
  ReadBandwidth probe((uint64_t{4} << 20) + 1);
  EXPECT_EQ(probe.bytes(), uint64_t{6} << 20);  // whole huge pages
  for (const int threads : {1, 2, 3, 7}) EXPECT_GT(probe.pass(threads), 0);
  EXPECT_NE(probe.sum(), 0u);
  EXPECT_EQ(probe.sum(), probe.expected_sum(4));
  const int counts[] = {1, 2};
  const BandwidthResult best = probe.best(counts, 3);
  EXPECT_GT(best.gbps, 0);
  EXPECT_EQ(probe.sum(), probe.expected_sum(4 + 2 * 4));
}

TEST(ReadBandwidth, ThreadCountsEndWithAllCores) {
  EXPECT_THAT(thread_counts_up_to(1), testing::ElementsAre(1));
  EXPECT_THAT(thread_counts_up_to(2), testing::ElementsAre(1, 2));
  EXPECT_THAT(thread_counts_up_to(6), testing::ElementsAre(1, 2, 4, 6));
}

class MachineCache : public testing::Test {
 protected:
  static MachineFigures figures() {
    MachineFigures f = machine_facts();
    f.read_gbps = 21.5;
    f.read_threads = 2;
    f.int8_gmacs = 700;
    f.random_read_iops = 80000;
    f.random_reads = {{1, 10000}, {16, 80000}};
    f.measured_at = 1700000000;
    return f;
  }
  static std::string damaged(const std::string& key, const Json& value) {
    Json json = to_json(figures());
    json[key] = value;
    return json.dump();
  }
  ScratchHome home_;
};

TEST_F(MachineCache, ReturnsWhatWasSaved) {
  EXPECT_FALSE(cached_machine().has_value());
  save_machine(figures());
  const auto cached = cached_machine();
  if (!cached) FAIL();
  EXPECT_EQ(to_json(*cached), to_json(figures()));
  EXPECT_EQ(cached->random_reads.at(1).threads, 16);
}

TEST_F(MachineCache, IsIgnoredWhenDamagedOrFromAnotherMachine) {
  save_machine(figures());
  Json without = to_json(figures());
  without.erase("read_gbps");
  for (const std::string& text :
       {std::string(), std::string("{"), std::string("[]"), std::string("null"), damaged("version", 2),
        damaged("read_gbps", 0), damaged("read_gbps", 1e300), damaged("read_gbps", -1),
        damaged("read_gbps", "fast"), damaged("random_reads", 5), damaged("cpu", "another CPU"),
        damaged("isa", "neon"), damaged("threads", 4096), damaged("ram_bytes", 1), without.dump()}) {
    std::ofstream(machine_cache_path(), std::ios::trunc) << text;
    EXPECT_FALSE(cached_machine().has_value()) << text;
  }
}

TEST_F(MachineCache, RandomReadsLeaveNothingBehind) {
  const auto result = measure_random_reads(home_ / "not" / "there" / "yet", uint64_t{1} << 20, {1, 2}, 0.01);
  EXPECT_EQ(result.folder, home_.path());
  ASSERT_EQ(result.rates.size(), 2u);
  for (const RandomReadRate& rate : result.rates) EXPECT_GT(rate.iops, 0);
  EXPECT_TRUE(fs::is_empty(home_.path()));
}

TEST_F(MachineCache, RandomReadsNeedAFolderTheyCanWrite) {
  if (::geteuid() == 0) {
    EXPECT_THROW(measure_random_reads("/proc/self", 1 << 20, {1}, 0.01), Error);
  } else {
    EXPECT_THROW(measure_random_reads("/", 1 << 20, {1}, 0.01), Error);
  }
}

}  // namespace
}  // namespace mneme::machine_test
