#include "train/hosts/launch.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>

#include "core/fail.h"
#include "core/thread_pool.h"
#include "mneme/version.h"
#include "train/hosts/gloo_group.h"

namespace mneme::train {
namespace {

using std::chrono::milliseconds;
constexpr const char* kChild = "MNEME_TRAIN_PROCESS";  // "RANK SIZE PORT", set for processes we start
constexpr milliseconds kLastSteps{20'000};             // for the others to end after this one has

/// What a process that was started by another was told, instead of options.
std::optional<Place> place_of_child(const Environment& environment) {
  const std::optional<std::string> told = environment(kChild);
  if (!told) return std::nullopt;
  Place place;
  unsigned rank = 0, size = 0, port = 0;
  require(std::sscanf(told->c_str(), "%u %u %u", &rank, &size, &port) == 3 && rank < size && port < 65536,
          ErrorCode::invalid_argument, "{} is \"{}\"; it is for processes that --processes starts", kChild,
          *told);
  place.rank = rank;
  place.size = place.on_this_machine = size;
  place.meeting_host = place.own_host = "127.0.0.1";
  place.port = static_cast<uint16_t>(port);
  return place;
}

/// The last line that a process wrote on stderr.
std::string last_words(const Socket& errors) {
  char text[2048];
  const off_t size = lseek(errors.get(), 0, SEEK_END);
  const off_t begin = std::max<off_t>(0, size - static_cast<off_t>(sizeof text));
  const ssize_t got = pread(errors.get(), text, sizeof text, begin);
  std::string line(text, got > 0 ? static_cast<size_t>(got) : 0);
  while (!line.empty() && line.back() == '\n') line.pop_back();
  return line.substr(line.rfind('\n') + 1);  // npos + 1 is 0
}

std::string how_it_ended(int status) {
  if (WIFSIGNALED(status))
    return fmt::format("was ended by signal {} ({})", WTERMSIG(status), strsignal(WTERMSIG(status)));
  return fmt::format("ended with exit code {}", WEXITSTATUS(status));
}

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> out;
  for (std::string& string : strings) out.push_back(string.data());
  out.push_back(nullptr);
  return out;
}

}  // namespace

Launch::Launch(const LaunchOptions& options, const std::vector<std::string>& arguments,
               const Environment& environment)
    : join_timeout_(options.join_timeout), silence_timeout_(options.silence_timeout) {
  if (const std::optional<Place> child = place_of_child(environment)) {
    place_ = *child;
    return;
  }
  place_ = find_place(options, environment);
  require(place_.size == 1 || has_gloo(), ErrorCode::unsupported,
          "this mneme-train was built without Gloo, so it trains in one process; install Gloo's headers "
          "(Debian: libgloo-dev) and build again");
  if (!place_.starts_others) return;
  listener_ = listen_on(place_.meeting_host, place_.port);
  place_.port = own_port(listener_);
  for (uint32_t rank = 1; rank < place_.size; ++rank) start_child(rank, arguments);
}

void Launch::start_child(uint32_t rank, const std::vector<std::string>& arguments) {
  Child child;
  child.rank = rank;
  child.errors = Socket(memfd_create("stderr", MFD_CLOEXEC));
  std::vector<std::string> words = arguments, variables;
  for (char** variable = environ; *variable != nullptr; ++variable) variables.emplace_back(*variable);
  variables.push_back(fmt::format("{}={} {} {}", kChild, rank, place_.size, place_.port));
  const std::vector<char*> argv = pointers(words), envp = pointers(variables);
  const Socket silence(::open("/dev/null", O_RDWR | O_CLOEXEC));
  const pid_t parent = getpid();
  child.pid = fork();
  require(child.pid >= 0, ErrorCode::io, "cannot start process {}: {}", rank, std::strerror(errno));
  if (child.pid == 0) {  // nothing here but system calls
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(silence.get(), STDIN_FILENO);
    dup2(silence.get(), STDOUT_FILENO);
    dup2(child.errors.get(), STDERR_FILENO);
    if (getppid() == parent) execve("/proc/self/exe", argv.data(), envp.data());
    _exit(127);
  }
  children_.push_back(std::move(child));
}

uint32_t Launch::threads(uint32_t wanted) const noexcept {
  if (wanted > 0) return wanted;
  return std::max(1u, static_cast<uint32_t>(available_cores()) / place_.on_this_machine);
}

std::unique_ptr<ProcessGroup> Launch::join(std::string_view run) {
  if (place_.size == 1) return std::make_unique<ProcessGroup>();
  RosterOptions options;
  options.rank = place_.rank;
  options.size = place_.size;
  options.meeting_host = place_.meeting_host;
  options.port = place_.port;
  options.own_host = place_.own_host;
  options.listener = std::move(listener_);
  options.run = fmt::format("mneme {} {}", kVersion, run);
  options.join_timeout = join_timeout_;
  options.silence_timeout = silence_timeout_;
  options.while_waiting = [this] { check_children(); };
  return join_gloo(std::move(options));
}

void Launch::check_children() {
  for (Child& child : children_) {
    int status = 0;
    if (child.status || waitpid(child.pid, &status, WNOHANG) != child.pid) continue;
    child.status = status;
    const std::string words = last_words(child.errors);
    fail(ErrorCode::network, "process {} of {} {} before the run began{}{}", child.rank, place_.size,
         how_it_ended(status), words.empty() ? "" : ": ", words);
  }
}

bool Launch::children_ended(milliseconds patience) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  for (;;) {
    bool all = true;
    for (Child& child : children_) {
      int status = 0;
      if (!child.status && waitpid(child.pid, &status, WNOHANG) == child.pid) child.status = status;
      all &= child.status.has_value();
    }
    if (all || std::chrono::steady_clock::now() >= deadline) return all;
    std::this_thread::sleep_for(milliseconds(10));
  }
}

Launch::~Launch() {
  for (const int signal : {SIGTERM, SIGKILL}) {
    if (children_ended(signal == SIGTERM ? kLastSteps : milliseconds(2'000))) break;
    for (const Child& child : children_)
      if (!child.status) kill(child.pid, signal);
  }
  children_ended(milliseconds(1'000));
  for (const Child& child : children_)
    if (child.status && WIFSIGNALED(*child.status) && WTERMSIG(*child.status) != SIGTERM)
      fmt::print(stderr, "process {} of {} {}\n", child.rank, place_.size, how_it_ended(*child.status));
}

}  // namespace mneme::train
