// Random reads of 4 KiB from a disk: the ceiling of memory tables that do not fit into RAM.
#pragma once
#include <cstdint>
#include <filesystem>
#include <vector>

#include "cost/machine.h"

namespace mneme {

struct DiskReadResult {
  std::vector<RandomReadRate> rates;  // one for each thread count
  bool direct = false;           // O_DIRECT; otherwise the file's pages were dropped from the cache first
  std::filesystem::path folder;  // where the file lay: `folder` or its nearest existing parent
};

/// Writes a nameless temporary file of `file_bytes` random bytes (less if the disk is nearly full) and reads
/// blocks of it at random for `seconds` with each number of threads. Nothing is left behind. Throws Error(io)
/// if no file can be written there.
DiskReadResult measure_random_reads(const std::filesystem::path& folder, uint64_t file_bytes,
                                    const std::vector<int>& thread_counts, double seconds);

}  // namespace mneme
