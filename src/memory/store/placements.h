// One factory for each placement; MemoryTable::open chooses among them. docs/memory.md compares them.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "memory/store/counters.h"
#include "memory/store/read_queue.h"
#include "memory/store/row_map.h"

namespace mneme {

/// XXH3 sums of the blocks of a pack's rows, for placements that read all of them.
struct BlockSums {
  uint64_t block_bytes = 0;
  std::vector<uint64_t> sums;
};

/// `sums` may be null. Throws what MemoryTable::open does.
std::unique_ptr<MemoryTable> open_ram(const RowLayout& layout, const MemoryOptions& options,
                                      const BlockSums* sums);
std::unique_ptr<MemoryTable> open_mapped(const RowLayout& layout, const MemoryOptions& options);
/// direct or cache, by options.placement. `queues`: system_read_queue(), or a test's.
std::unique_ptr<MemoryTable> open_reading(const RowLayout& layout, const MemoryOptions& options,
                                          const std::function<ReadQueueFactory(uint32_t depth)>& queues);
/// `base` with its options' overlays on top.
std::unique_ptr<MemoryTable> open_overlays(std::unique_ptr<MemoryTable> base, const RowLayout& layout,
                                           const std::vector<std::filesystem::path>& overlays);
/// Memory that the overlays will hold.
uint64_t overlay_bytes(const std::vector<std::filesystem::path>& overlays);

/// MemoryTable::open with the checksums of a pack.
std::unique_ptr<MemoryTable> open_table(const RowLayout& layout, const MemoryOptions& options,
                                        const BlockSums* sums);

/// "1.5 GB".
std::string bytes_text(uint64_t bytes);
/// What the system, or the control group of this process, has left.
uint64_t free_memory();

}  // namespace mneme
