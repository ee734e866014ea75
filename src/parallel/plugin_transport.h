// Whether a launcher such as mpirun started this process as one of several, and the transport that reaches
// the others. MPI lives in libmneme_mpi.so beside the program and is loaded only then: `mneme` itself does
// not link it, starts in milliseconds, and runs where there is no MPI.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "core/file.h"
#include "parallel/transport.h"

namespace mneme {

/// What a launcher says in the environment.
struct LaunchedAs {
  uint32_t rank = 0, size = 1;
  uint32_t on_this_machine = 1;  // processes that share its cores
};
/// Empty unless this process is one of several. `variable` gives an environment variable's value. Open MPI
/// says OMPI_COMM_WORLD_RANK, _SIZE and _LOCAL_SIZE; MPICH and Slurm's PMI say PMI_RANK and PMI_SIZE. Throws
/// Error(invalid_argument) for values that are no numbers or contradict each other.
std::optional<LaunchedAs> launched_as(
    const std::function<std::optional<std::string>(const char* name)>& variable);

/// The same from the process's own environment.
std::optional<LaunchedAs> launched_as();

/// Loads the library and joins the others. Throws Error(not_found) if there is no such file,
/// Error(unsupported) if it is no transport of this version, Error(network) if it cannot join.
std::unique_ptr<Transport> open_plugin(const fs::path& library);

/// Where libmneme_mpi.so lies: beside the running program, or where `cmake --install` puts it. Throws
/// Error(not_found) that says how to get it.
fs::path find_mpi_plugin(uint32_t processes);

}  // namespace mneme
