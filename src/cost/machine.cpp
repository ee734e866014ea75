#include "cost/machine.h"

#include <sys/sysinfo.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>

#include "core/fail.h"
#include "core/file.h"
#include "core/paths.h"
#include "core/thread_pool.h"
#include "cost/arithmetic.h"
#include "cost/bandwidth.h"
#include "cost/disk_reads.h"
#include "simd/isa.h"

namespace mneme {
namespace {

constexpr int kMachineVersion = 1;

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("model name") && !line.starts_with("Model")) continue;
    const size_t colon = line.find(": ");
    if (colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown CPU";
}

uint64_t total_ram() {
  struct sysinfo info {};
  uint64_t bytes = ::sysinfo(&info) == 0 ? uint64_t{info.totalram} * info.mem_unit : 0;
  std::ifstream group("/sys/fs/cgroup/memory.max");  // "max" where there is no limit
  if (uint64_t limit = 0; group >> limit && limit > 0) bytes = std::min(bytes, limit);
  return bytes;
}

bool plausible(double value, double most) {
  return std::isfinite(value) && value >= 0 && value <= most;
}

}  // namespace

MachineFigures machine_facts() {
  MachineFigures figures;
  figures.cpu = cpu_name();
  figures.isa = to_string(active_isa());
  figures.threads = available_cores();
  figures.ram_bytes = total_ram();
  return figures;
}

MachineFigures measure_machine(const MeasureOptions& options) {
  const auto step = [&](std::string_view name) {
    if (options.on_step) options.on_step(name);
  };
  MachineFigures figures = machine_facts();
  figures.quick = options.quick;
  const auto counts = thread_counts_up_to(figures.threads);

  step("memory bandwidth");
  {
    ReadBandwidth probe(bandwidth_buffer_bytes(options.quick ? uint64_t{512} << 20 : uint64_t{2} << 30));
    const BandwidthResult best = probe.best(counts, options.quick ? 3 : 10);
    figures.read_gbps = best.gbps;
    figures.read_gbps_sd = best.sd;
    figures.read_threads = best.threads;
    figures.read_bytes = probe.bytes();
    figures.huge_pages = probe.huge_pages();
  }
  step("int8 arithmetic");
  for (const int threads : counts) {
    const double rate = measure_int8_gmacs(threads, options.quick ? 0.1 : 0.5);
    if (rate <= figures.int8_gmacs) continue;
    figures.int8_gmacs = rate;
    figures.int8_threads = threads;
  }
  step("random disk reads");
  const DiskReadResult disk = measure_random_reads(options.folder, uint64_t{options.quick ? 64U : 512U} << 20,
                                                   {1, 2, 4, 8, 16}, options.quick ? 0.05 : 0.4);
  figures.random_reads = disk.rates;
  figures.direct_reads = disk.direct;
  figures.folder = disk.folder.string();
  for (const RandomReadRate& rate : disk.rates) {
    if (rate.iops <= figures.random_read_iops) continue;
    figures.random_read_iops = rate.iops;
    figures.random_read_threads = rate.threads;
  }
  figures.measured_at =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
          .count();
  return figures;
}

Json to_json(const MachineFigures& figures) {
  Json reads = Json::array();
  for (const RandomReadRate& rate : figures.random_reads)
    reads.push_back({{"threads", rate.threads}, {"iops", rate.iops}});
  return {{"version", kMachineVersion},
          {"cpu", figures.cpu},
          {"isa", figures.isa},
          {"threads", figures.threads},
          {"ram_bytes", figures.ram_bytes},
          {"read_gbps", figures.read_gbps},
          {"read_gbps_sd", figures.read_gbps_sd},
          {"read_threads", figures.read_threads},
          {"read_bytes", figures.read_bytes},
          {"huge_pages", figures.huge_pages},
          {"int8_gmacs", figures.int8_gmacs},
          {"int8_threads", figures.int8_threads},
          {"random_read_iops", figures.random_read_iops},
          {"random_read_threads", figures.random_read_threads},
          {"random_reads", reads},
          {"direct_reads", figures.direct_reads},
          {"folder", figures.folder},
          {"quick", figures.quick},
          {"measured_at", figures.measured_at}};
}

MachineFigures machine_from_json(const Json& json) {
  MachineFigures figures;
  try {
    require(json.at("version").get<int>() == kMachineVersion, ErrorCode::corrupt,
            "machine figures of version {}", json.at("version").dump());
    json.at("cpu").get_to(figures.cpu);
    json.at("isa").get_to(figures.isa);
    json.at("threads").get_to(figures.threads);
    json.at("ram_bytes").get_to(figures.ram_bytes);
    json.at("read_gbps").get_to(figures.read_gbps);
    json.at("read_gbps_sd").get_to(figures.read_gbps_sd);
    json.at("read_threads").get_to(figures.read_threads);
    json.at("read_bytes").get_to(figures.read_bytes);
    json.at("huge_pages").get_to(figures.huge_pages);
    json.at("int8_gmacs").get_to(figures.int8_gmacs);
    json.at("int8_threads").get_to(figures.int8_threads);
    json.at("random_read_iops").get_to(figures.random_read_iops);
    json.at("random_read_threads").get_to(figures.random_read_threads);
    for (const Json& rate : json.at("random_reads"))
      figures.random_reads.push_back({rate.at("threads").get<int>(), rate.at("iops").get<double>()});
    json.at("direct_reads").get_to(figures.direct_reads);
    json.at("folder").get_to(figures.folder);
    json.at("quick").get_to(figures.quick);
    json.at("measured_at").get_to(figures.measured_at);
  } catch (const Json::exception& error) {
    fail(ErrorCode::corrupt, "machine figures: {}", error.what());
  }
  // No machine reads memory at 100 TB/s; such a number would make every estimate nonsense.
  require(plausible(figures.read_gbps, 1e5) && figures.read_gbps > 0 && plausible(figures.int8_gmacs, 1e8) &&
              plausible(figures.random_read_iops, 1e9),
          ErrorCode::corrupt, "machine figures: a measured rate is out of range");
  return figures;
}

fs::path machine_cache_path() {
  return cache_folder() / "machine.json";
}

std::optional<MachineFigures> cached_machine() {
  try {
    const std::string text = read_text_file(machine_cache_path(), uint64_t{1} << 20);
    MachineFigures figures = machine_from_json(parse_json(text, "machine.json"));
    const MachineFigures now = machine_facts();
    if (figures.cpu != now.cpu || figures.isa != now.isa || figures.threads != now.threads ||
        figures.ram_bytes != now.ram_bytes)
      return std::nullopt;
    return figures;
  } catch (const Error&) {
    return std::nullopt;  // no result, or one that cannot be trusted: measure again
  }
}

void save_machine(const MachineFigures& figures) {
  const fs::path path = machine_cache_path();
  std::error_code error;
  fs::create_directories(path.parent_path(), error);
  require(!error, ErrorCode::io, "cannot create {}: {}", path.parent_path().string(), error.message());
  AtomicFile file(path);
  file.write(to_json(figures).dump(2) + "\n");
  file.commit();
}

}  // namespace mneme
