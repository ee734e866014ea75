// What several processes must agree on before they train one model: the config, the data, and where they
// start.
#pragma once
#include <string>

#include "train/hosts/process_group.h"
#include "train/run/checkpoint.h"
#include "train/run/run_config.h"
#include "train/run/training.h"

namespace mneme::train {

/// A hash of all fields that must be equal in the processes of a run: all but paths, threads and device.
std::string run_identity(const RunConfig& run);

/// Collective. Throws Error(mismatch), naming the process, where `text` differs from process 0's; `what` says
/// what it stands for ("the data").
void require_same(const std::string& text, const char* what, ProcessGroup& group);

/// Collective. All get process 0's tensors, optimiser state and counters, so that only process 0 reads a
/// checkpoint and no file system need be shared. Tables are TableShards's.
void copy_from_first(Training& training, RunState& state, ProcessGroup& group);

}  // namespace mneme::train
