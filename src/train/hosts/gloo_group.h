// A group of many processes: a roster (who is there, who was lost) and a Gloo process group of libtorch (the
// collectives), which finds its peers through the roster.
#pragma once
#include <chrono>
#include <memory>

#include "train/hosts/process_group.h"
#include "train/hosts/roster.h"

namespace mneme::train {

/// Whether this program was built with Gloo.
bool has_gloo() noexcept;

/// Meets the others and connects all with all. `operation_timeout` bounds one collective, which includes
/// waiting for the slowest process (process 0 makes the shards of all the text while the others wait): long,
/// because a process that is lost or hangs is the roster's to notice.
/// Throws what Roster::join throws; Error(network) where processes cannot reach each other;
/// Error(unsupported) without Gloo.
std::unique_ptr<ProcessGroup> join_gloo(RosterOptions options,
                                        std::chrono::milliseconds operation_timeout = std::chrono::hours(24 *
                                                                                                         14));

}  // namespace mneme::train
