// Under mpirun: which of the processes runs the verb, and what the others do for it
// (docs/expert-parallel.md).
#pragma once
#include <functional>

#include "cli/options.h"
#include "core/json.h"

namespace mneme::cli {

/// --expert-messages and --lost-after: verbs that run under mpirun.
void add_process_options(CLI::App& app, ModelOptions& options);

/// Calls `lead` in process 0 of mpirun, with model.expert_group set; in the others, serves experts until
/// process 0 has finished. Without mpirun it is `lead` and nothing else. An error in one process ends all of
/// them.
int with_processes(ModelOptions& model, CommonOptions& common, const std::function<int()>& lead);

/// What left and came back so far, for --json; null where there is one process.
Json process_traffic(const ModelOptions& model);
/// The same in words on stderr; nothing where there is one process.
void print_process_traffic(const ModelOptions& model);

}  // namespace mneme::cli
