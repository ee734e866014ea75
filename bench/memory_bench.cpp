// The memory table: rows a second from each placement, by the number of rows in a batch (48 is one token of
// two layers, 24,576 a chunk of 512), all distinct, and the parts that every batch goes through. The file
// lies in the temporary folder and is warm: what the disk itself gives is measured by memory_vs_fio.sh.
//
//   memory_bench --benchmark_filter=rows/cache
#include <benchmark/benchmark.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/random.h"
#include "memory/pack.h"
#include "memory/row_source.h"
#include "memory/store/row_cache.h"
#include "mneme/memory.h"

namespace mneme {
namespace {

// 786,000 rows of 264 bytes: beyond the caches, quick to write.
const fs::path& pack_path() {
  static const struct File {
    fs::path path =
        fs::temp_directory_path() / ("mneme_memory_bench_" + std::to_string(::getpid()) + ".engram");
    File() {
      PackToWrite pack;
      EngramTableConfig& table = pack.description.table;
      table.raw_ids = true;
      table.compressed_vocab = 100'000;
      table.max_ngram = 4;
      table.heads = 8;
      table.head_dim = 256;
      table.base_rows = {16384, 16384, 16384};
      table.layer_ids = {1, 14};
      table.format = RowFormat::fp8_e4m3_e8m0;
      pack.rows = random_rows(EngramHash(table), 1);
      write_pack(path, pack);
    }
    ~File() {
      std::error_code ignored;
      fs::remove(path, ignored);
    }
  } file;
  return file.path;
}

std::vector<std::vector<uint64_t>> random_batches(uint64_t rows, size_t count) {
  Pcg64 random(7);
  std::vector<std::vector<uint64_t>> out(64);
  for (auto& batch : out) {
    batch.resize(count);
    for (auto& id : batch) id = random.below(rows);
  }
  return out;
}

void rows(benchmark::State& state, Placement placement) {
  MemoryOptions options;
  options.placement = placement;
  const auto table = MemoryTable::open_pack(pack_path(), options);
  const auto batches = random_batches(table->rows(), static_cast<size_t>(state.range(0)));
  RowBatch batch;
  uint64_t sum = 0;
  if (placement == Placement::cache)  // warm: the misses are the disk's
    for (const auto& ids : batches) {
      table->start(ids, batch);
      table->wait(batch);
    }
  size_t next = 0;
  for (auto _ : state) {
    table->start(batches[next++ % batches.size()], batch);
    table->wait(batch);
    for (const std::byte* const row : batch.rows())
      for (uint32_t i = 0; i < table->row_bytes(); i += 64) sum += static_cast<uint64_t>(row[i]);
  }
  benchmark::DoNotOptimize(sum);
  state.SetItemsProcessed(state.iterations() * state.range(0));
  state.SetBytesProcessed(state.iterations() * state.range(0) * table->row_bytes());
  state.SetLabel(std::to_string(static_cast<int>(100 * table->statistics().hit_rate())) + " % hits");
}
BENCHMARK_CAPTURE(rows, ram, Placement::ram)->Arg(48)->Arg(24576)->UseRealTime();
BENCHMARK_CAPTURE(rows, mmap, Placement::mmap)->Arg(48)->Arg(24576)->UseRealTime();
BENCHMARK_CAPTURE(rows, cache, Placement::cache)->Arg(48)->Arg(24576)->UseRealTime();
BENCHMARK_CAPTURE(rows, direct, Placement::direct)->Arg(48)->Arg(24576)->UseRealTime();

// Hits and misses of the cache by itself: a share of accesses goes to rows that it cannot hold.
void row_cache(benchmark::State& state) {
  constexpr uint32_t kRowBytes = 264;
  const auto hit_percent = static_cast<uint64_t>(state.range(0));
  RowCache cache(uint64_t{64} << 20, kRowBytes, ~uint64_t{0});
  std::vector<std::byte> row(kRowBytes);
  const uint64_t hot = cache.capacity() / 2;
  for (uint64_t pass = 0; pass < 2; ++pass)
    for (uint64_t id = 0; id < hot; ++id)
      if (!cache.get(id, row.data())) cache.put(id, row.data());
  Pcg64 random(1);
  uint64_t fresh = hot;
  for (auto _ : state) {
    const uint64_t id = random.below(100) < hit_percent ? random.below(hot) : ++fresh;
    if (!cache.get(id, row.data())) cache.put(id, row.data());
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(row_cache)->Arg(100)->Arg(90)->Arg(0);

}  // namespace
}  // namespace mneme

BENCHMARK_MAIN();
