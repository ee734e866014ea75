// Tests with several processes: the test program starts itself again, once per process, with a scenario's
// name in the environment; what the processes print and how they end comes back. No process outlives the
// test.
#pragma once
#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "train/hosts/process_group.h"

namespace mneme::train {

struct Worker {
  int exit_code = -1;  // 3: an Error, which `output` shows
  int signal = 0;
  double seconds = 0;  // until it ended
  std::string output;
};

/// Runs processes 0..size-1 of a scenario on the loopback; all are killed after `limit`, and one that
/// is stopped when it is the last.
std::vector<Worker> run_workers(const std::string& scenario, uint32_t size,
                                std::chrono::seconds limit = std::chrono::seconds(60));
/// Expects every process of the scenario to end well, where there are one, two and three.
void expect_success(const std::string& scenario);

/// What a process of a scenario does. A scenario prints with std::cout; Errors are printed and passed on to
/// the others, as the trainer does.
using Scenario = std::function<void(ProcessGroup& group)>;
/// Registers a scenario from a global variable.
struct AddScenario {
  AddScenario(const std::string& name, Scenario scenario,
              std::chrono::milliseconds silence = std::chrono::seconds(20));
};

}  // namespace mneme::train
