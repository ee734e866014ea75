// Where the processes of a run are and which of them this one is; and, for several processes on one machine,
// starting the others. docs/training-hosts.md is the user's side of it.
#pragma once
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "train/hosts/process_group.h"
#include "train/hosts/sockets.h"

namespace mneme::train {

struct LaunchOptions {
  uint32_t processes = 1;          // --processes: this many on this machine, started by the first
  std::vector<std::string> hosts;  // --hosts: where process 0, 1, ... runs; a machine may stand there twice
  std::optional<uint32_t> rank;    // --rank: which of hosts this one is
  std::optional<uint16_t> port;    // --port: where process 0 listens
  std::chrono::seconds join_timeout{120};    // --join-timeout: for all processes to be there
  std::chrono::seconds silence_timeout{20};  // --lost-after: without a sign of life
};

/// "a,b,c" -> a, b, c; what find_place refuses is left in.
std::vector<std::string> split_hosts(const std::string& list);

/// What this process is.
struct Place {
  uint32_t rank = 0, size = 1;
  uint32_t on_this_machine = 1;  // processes that share its cores
  bool starts_others = false;    // --processes: all others are children of this one
  std::string meeting_host;      // where process 0 listens
  uint16_t port = 0;             // 0 with starts_others: any free one
  std::string own_host;          // empty: unknown
};

/// The value of an environment variable, empty where it is not set.
using Environment = std::function<std::optional<std::string>(const char* name)>;
Environment system_environment();

/// --processes, or --hosts with --rank, or else the environment: RANK, WORLD_SIZE, MASTER_ADDR and
/// MASTER_PORT, or what Open MPI's mpirun sets. Without any, one process.
/// Throws Error(invalid_argument) for what contradicts itself or is no number, rank or host name.
Place find_place(const LaunchOptions& options, const Environment& environment);

/// The processes of a run as one of them sees it. In the first of --processes it owns the others: they end
/// with it, and it ends when one of them dies.
class Launch {
 public:
  /// Starts the other processes where they are this one's to start: the same program with the same
  /// arguments, stdout and stderr silent. Call it while this process has one thread. Throws what
  /// find_place throws, and Error(io).
  Launch(const LaunchOptions& options, const std::vector<std::string>& arguments,
         const Environment& environment = system_environment());
  /// Waits for the processes that it started; those that do not end are killed after a moment. Prints a line
  /// on stderr for each that was ended by a signal.
  ~Launch();
  Launch(const Launch&) = delete;
  Launch& operator=(const Launch&) = delete;

  const Place& place() const noexcept { return place_; }
  /// Threads for this process where `wanted` is 0: its share of the cores.
  uint32_t threads(uint32_t wanted) const noexcept;
  /// Meets the others. `run` says what is trained (a hash of the config): it must be equal in all.
  /// Throws what join_gloo throws, and Error(network) when a process that it started dies first.
  std::unique_ptr<ProcessGroup> join(std::string_view run);

 private:
  struct Child {
    int pid = -1;
    uint32_t rank = 0;
    Socket errors;  // an anonymous file: what it wrote on stderr
    std::optional<int> status;
  };
  void start_child(uint32_t rank, const std::vector<std::string>& arguments);
  void check_children();
  bool children_ended(std::chrono::milliseconds patience);

  Place place_;
  std::chrono::seconds join_timeout_, silence_timeout_;
  Socket listener_;
  std::vector<Child> children_;
};

}  // namespace mneme::train
