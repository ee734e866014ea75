// What this machine can do: memory bandwidth, integer arithmetic, random disk reads. Measured by
// `mneme doctor`, kept in the cache folder, and used later as an estimate.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"

namespace mneme {

struct RandomReadRate {
  int threads = 0;
  double iops = 0;  // reads of 4 KiB per second
};

struct MachineFigures {
  // Facts; a cached result is used only on a machine where they are the same.
  std::string cpu;         // "Intel(R) Xeon(R) Processor"
  std::string isa;         // the instruction set in use, e.g. "avx512-vnni"
  int threads = 0;         // cores that this process may use
  uint64_t ram_bytes = 0;  // of the machine, or of the control group if that is less

  double read_gbps = 0;     // 1e9 bytes/s: median of the passes at the best thread count
  double read_gbps_sd = 0;  // over those passes
  int read_threads = 0;
  uint64_t read_bytes = 0;  // size of the buffer
  bool huge_pages = false;  // the buffer lay on huge pages

  double int8_gmacs = 0;  // 1e9 multiply-adds of int8/s with int32 sums, operands in L1, all threads
  int int8_threads = 0;

  double random_read_iops = 0;  // best of `random_reads`; 0 if the folder could not be written
  int random_read_threads = 0;
  std::vector<RandomReadRate> random_reads;
  bool direct_reads = false;  // false: the file system refused O_DIRECT, its cache was dropped instead
  std::string folder;         // where the disk was measured

  bool quick = false;
  int64_t measured_at = 0;  // seconds since 1970
};

struct MeasureOptions {
  bool quick = false;
  std::filesystem::path folder;                        // of the disk to measure
  std::function<void(std::string_view step)> on_step;  // may be empty; may throw to stop
};

/// The facts alone: nothing is measured. Throws Error(invalid_argument) for a bad MNEME_ISA.
MachineFigures machine_facts();
/// Measures everything; takes some ten seconds (`quick`: two). Throws Error(out_of_memory) if not even 64 MB
/// can be had.
MachineFigures measure_machine(const MeasureOptions& options);

/// What the last `mneme doctor` found, or nothing if there is no cached result, it is damaged, or it was
/// measured on another machine or instruction set. Whoever shows these numbers calls them estimates.
std::optional<MachineFigures> cached_machine();
/// Saves atomically to machine_cache_path(). Throws Error(io).
void save_machine(const MachineFigures& figures);
std::filesystem::path machine_cache_path();

Json to_json(const MachineFigures& figures);
/// Throws Error(corrupt) for missing or wrong fields and numbers that no machine has.
MachineFigures machine_from_json(const Json& json);

}  // namespace mneme
