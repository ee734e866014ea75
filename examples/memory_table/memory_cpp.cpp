// The memory table from C++: what an engine does with it. Rows of the next chunk are read while this one is
// computed.
//   memory_cpp PACK PLACEMENT CHUNKS
#include <mneme/error.h>
#include <mneme/memory.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace {

constexpr size_t kRowsOfAChunk = 512;

// Where an engine would hash the tokens of a chunk.
std::vector<uint64_t> ids_of_chunk(uint64_t chunk, uint64_t rows) {
  std::vector<uint64_t> ids(kRowsOfAChunk);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = (chunk * 7919 + i * i * 104729) % rows;
  return ids;
}

// Where it would dequantize and multiply.
uint64_t compute(const mneme::RowBatch& batch, uint32_t row_bytes) {
  uint64_t sum = 0;
  for (const std::byte* const row : batch.rows())
    for (uint32_t i = 0; i < row_bytes; ++i) sum = sum * 31 + static_cast<uint64_t>(row[i]);
  return sum;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: %s PACK auto|ram|mmap|direct|cache CHUNKS\n", argv[0]);
    return 2;
  }
  try {
    mneme::MemoryOptions options;
    options.placement = mneme::placement_from(argv[2]);
    const auto table = mneme::MemoryTable::open_pack(argv[1], options);
    std::fprintf(stderr, "%s\n", table->describe().c_str());
    const uint64_t chunks = std::strtoull(argv[3], nullptr, 10);
    mneme::RowBatch now, next;
    uint64_t sum = 0;
    table->start(ids_of_chunk(0, table->rows()), now);
    for (uint64_t chunk = 0; chunk < chunks; ++chunk) {
      if (chunk + 1 < chunks) table->start(ids_of_chunk(chunk + 1, table->rows()), next);
      table->wait(now);
      sum += compute(now, table->row_bytes());
      std::swap(now, next);
    }
    const mneme::MemoryStatistics statistics = table->statistics();
    std::printf("%llu rows, checksum %016llx\n", static_cast<unsigned long long>(statistics.rows),
                static_cast<unsigned long long>(sum));
    std::fprintf(stderr, "%.1f %% hits, %llu reads from the disk\n", 100 * statistics.hit_rate(),
                 static_cast<unsigned long long>(statistics.disk_reads));
    return 0;
  } catch (const mneme::Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
