// The other half of workers.h: starting the processes, and being one of them.
#include "train/hosts/workers.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <map>
#include <string_view>
#include <thread>

#include "mneme/error.h"
#include "train/hosts/gloo_group.h"
#include "train/hosts/sockets.h"

namespace mneme::train {
namespace {

constexpr const char* kVariable = "MNEME_TEST_WORKER";  // "SCENARIO RANK SIZE PORT"

struct Known {
  Scenario scenario;
  std::chrono::milliseconds silence;
};
std::map<std::string, Known>& scenarios() {
  static std::map<std::string, Known> all;
  return all;
}

struct Running {
  pid_t pid = -1;
  Socket output;
  bool ended = false;
};

Running start(const std::string& scenario, uint32_t rank, uint32_t size, const Socket& listener) {
  const std::string told = scenario + " " + std::to_string(rank) + " " + std::to_string(size) + " " +
                           std::to_string(own_port(listener)) + " " + std::to_string(listener.get());
  int ends[2];
  EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
  Running running;
  running.output = Socket(ends[0]);
  const Socket in(ends[1]);
  const std::string assignment = std::string(kVariable) + "=" + told;
  std::vector<char*> variables;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    if (!std::string_view(*variable).starts_with("GTEST_"))
      variables.push_back(*variable);  // shards are this process's
  }
  variables.push_back(const_cast<char*>(assignment.c_str()));
  variables.push_back(nullptr);
  const char* argv[] = {"worker", "--gtest_filter=DISABLED_Worker.Runs", "--gtest_also_run_disabled_tests",
                        nullptr};
  running.pid = fork();
  if (running.pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(in.get(), STDOUT_FILENO);
    dup2(in.get(), STDERR_FILENO);
    if (rank == 0) fcntl(listener.get(), F_SETFD, 0);  // process 0 inherits it
    execve("/proc/self/exe", const_cast<char**>(argv), variables.data());
    _exit(127);
  }
  return running;
}

void work() {
  std::string scenario;
  uint32_t rank = 0, size = 0;
  int port = 0, listener = -1;
  std::istringstream(std::getenv(kVariable)) >> scenario >> rank >> size >> port >> listener;
  at::set_num_threads(1);
  RosterOptions options;
  options.rank = rank;
  options.size = size;
  options.meeting_host = "127.0.0.1";
  options.port = static_cast<uint16_t>(port);
  options.run = scenario;
  options.join_timeout = std::chrono::seconds(30);
  options.silence_timeout = scenarios().at(scenario).silence;
  if (rank == 0) options.listener = Socket(listener);
  std::unique_ptr<ProcessGroup> group =
      size == 1 ? std::make_unique<ProcessGroup>() : join_gloo(std::move(options));
  try {
    scenarios().at(scenario).scenario(*group);
  } catch (const std::exception& error) {
    group->give_up(error.what());
    throw;
  }
}

}  // namespace

AddScenario::AddScenario(const std::string& name, Scenario scenario, std::chrono::milliseconds silence) {
  scenarios()[name] = {std::move(scenario), silence};
}

std::vector<Worker> run_workers(const std::string& scenario, uint32_t size, std::chrono::seconds limit) {
  using Clock = std::chrono::steady_clock;
  const Socket listener = listen_on("127.0.0.1", 0);
  const Clock::time_point begin = Clock::now();
  std::vector<Running> running;
  for (uint32_t rank = 0; rank < size; ++rank) running.push_back(start(scenario, rank, size, listener));
  std::vector<Worker> workers(size);
  size_t stopped = 0;
  for (size_t left = size; left > 0;) {
    const bool late = Clock::now() - begin > limit || stopped == left;
    for (uint32_t rank = 0; rank < size; ++rank) {
      Running& process = running[rank];
      if (process.ended) continue;
      char text[4096];
      pollfd readable{process.output.get(), POLLIN, 0};
      while (poll(&readable, 1, 0) > 0) {
        const ssize_t got = read(process.output.get(), text, sizeof text);
        if (got <= 0) break;
        workers[rank].output.append(text, static_cast<size_t>(got));
      }
      if (late) kill(process.pid, SIGKILL);
      int status = 0;
      if (waitpid(process.pid, &status, WNOHANG | WUNTRACED) != process.pid) continue;
      if (WIFSTOPPED(status)) {  // it is killed once all others have ended
        ++stopped;
        continue;
      }
      for (ssize_t got = 0; (got = read(process.output.get(), text, sizeof text)) > 0;)
        workers[rank].output.append(text, static_cast<size_t>(got));
      if (late) workers[rank].output += "\nkilled by the test";
      workers[rank].exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
      workers[rank].signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
      workers[rank].seconds = std::chrono::duration<double>(Clock::now() - begin).count();
      process.ended = true;
      --left;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return workers;
}

void expect_success(const std::string& scenario) {
  for (const uint32_t size : {1u, 2u, 3u})
    for (const Worker& worker : run_workers(scenario, size)) EXPECT_EQ(worker.exit_code, 0) << worker.output;
}

/// Not a test: what the processes that run_workers() starts do.
TEST(DISABLED_Worker, Runs) {
  if (std::getenv(kVariable) == nullptr) GTEST_SKIP() << "started by run_workers() alone";
  int code = 0;
  try {
    work();
    code = ::testing::Test::HasFailure() ? 4 : 0;
  } catch (const Error& error) {
    std::cout << "ERROR " << to_string(error.code()) << ": " << error.what() << std::endl;
    code = 3;
  }
  std::cout.flush();
  std::exit(code);  // as a program ends, static objects and all
}

}  // namespace mneme::train
