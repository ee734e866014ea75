// Which process this is, from options or the environment.
#include <algorithm>
#include <charconv>
#include <cstdlib>

#include "core/fail.h"
#include "train/hosts/launch.h"

namespace mneme::train {
namespace {

constexpr uint16_t kPort = 29500;  // what PyTorch's launchers use
constexpr uint32_t kMostProcesses = 1024;

uint32_t number(std::string_view name, const std::string& text, uint32_t most) {
  uint32_t value = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  require(problem == std::errc() && end == text.data() + text.size() && value <= most,
          ErrorCode::invalid_argument, "{} is \"{}\"; it should be a number up to {}", name, text, most);
  return value;
}

void check(const Place& place) {
  require(place.size >= 1 && place.size <= kMostProcesses, ErrorCode::invalid_argument,
          "{} processes; a run has 1 to {}", place.size, kMostProcesses);
  require(place.rank < place.size, ErrorCode::invalid_argument,
          "there is no process {} among {}; they are numbered from 0", place.rank, place.size);
}

Place of_hosts(const LaunchOptions& options) {
  const auto& hosts = options.hosts;
  require(options.processes == 1, ErrorCode::invalid_argument,
          "--processes starts processes on this machine and --hosts says where they were started: give one "
          "of them (a machine may stand twice in --hosts)");
  require(options.rank.has_value(), ErrorCode::invalid_argument,
          "--hosts needs --rank: 0 on the first host to {} on the last", hosts.size() - 1);
  for (const std::string& host : hosts)
    require(!host.empty() && host.find_first_of(" \t/@") == std::string::npos, ErrorCode::invalid_argument,
            "\"{}\" in --hosts is no host; write --hosts name1,name2 with names or addresses", host);
  Place place;
  place.size = static_cast<uint32_t>(std::min<size_t>(hosts.size(), kMostProcesses + 1));
  place.rank = *options.rank;
  check(place);
  place.meeting_host = hosts.front();
  place.own_host = hosts[place.rank];
  place.on_this_machine = static_cast<uint32_t>(std::count(hosts.begin(), hosts.end(), place.own_host));
  place.port = options.port.value_or(kPort);
  return place;
}

Place of_environment(const LaunchOptions& options, const Environment& environment) {
  struct Names {
    const char *rank, *size, *local;
  };
  for (const Names& names :
       {Names{"RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"},
        Names{"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"}}) {
    const auto rank = environment(names.rank), size = environment(names.size);
    if (!size) continue;
    require(rank.has_value(), ErrorCode::invalid_argument, "{} is set, but {} is not", names.size,
            names.rank);
    Place place;
    place.rank = number(names.rank, *rank, ~0u);
    place.size = number(names.size, *size, kMostProcesses);
    check(place);
    if (place.size == 1) return {};
    if (const auto local = environment(names.local))
      place.on_this_machine = std::clamp(number(names.local, *local, kMostProcesses), 1u, place.size);
    const auto host = environment("MASTER_ADDR");
    require(host.has_value() || place.on_this_machine == place.size, ErrorCode::invalid_argument,
            "{} says {} processes: set MASTER_ADDR to the host of process 0 (mpirun -x MASTER_ADDR=...)",
            names.size, place.size);
    place.meeting_host = host.value_or("127.0.0.1");
    const auto port = environment("MASTER_PORT");
    place.port =
        options.port.value_or(port ? static_cast<uint16_t>(number("MASTER_PORT", *port, 65535)) : kPort);
    return place;
  }
  return {};
}

}  // namespace

Environment system_environment() {
  return [](const char* name) -> std::optional<std::string> {
    const char* value = std::getenv(name);
    return value == nullptr ? std::nullopt : std::optional<std::string>(value);
  };
}

std::vector<std::string> split_hosts(const std::string& list) {
  std::vector<std::string> hosts;
  for (size_t begin = 0; begin <= list.size();) {
    const size_t end = std::min(list.find(',', begin), list.size());
    hosts.push_back(list.substr(begin, end - begin));
    begin = end + 1;
  }
  return hosts;
}

Place find_place(const LaunchOptions& options, const Environment& environment) {
  require(options.processes >= 1 && options.processes <= kMostProcesses, ErrorCode::invalid_argument,
          "--processes {}; a run has 1 to {}", options.processes, kMostProcesses);
  require(options.port.value_or(1) != 0, ErrorCode::invalid_argument,
          "--port 0; give the same port from 1 to 65535 to all processes");
  if (!options.hosts.empty()) return of_hosts(options);
  require(!options.rank.has_value(), ErrorCode::invalid_argument,
          "--rank says which of --hosts this process is; give --hosts name1,name2");
  if (options.processes > 1) {
    Place place;
    place.size = place.on_this_machine = options.processes;
    place.starts_others = true;
    place.meeting_host = place.own_host = "127.0.0.1";
    place.port = options.port.value_or(0);
    return place;
  }
  return of_environment(options, environment);
}

}  // namespace mneme::train
