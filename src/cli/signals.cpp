#include "cli/signals.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <csignal>
#include <cstdint>
#include <cstring>

#include "cli/verb.h"
#include "core/file.h"

namespace mneme::cli {
namespace {

// Everything a handler touches is lock-free and has static storage.
CancelToken g_token;
std::atomic<bool> g_scope{false};
std::array<char, 1024> g_last_words{};

void say(const char* text) {
  const ssize_t ignored = ::write(STDERR_FILENO, text, std::strlen(text));
  (void)ignored;
}

void on_interrupt(int signal) {
  if (signal == SIGINT && g_scope.load() && !g_token.cancelled()) {
    g_token.cancel();
    return;
  }
  remove_unfinished_files();
  if (::isatty(STDERR_FILENO) == 1) say("\n");
  if (signal != SIGTERM || g_last_words[0] == '\0') ::_exit(128 + signal);
  say(g_last_words.data());
  ::_exit(kFailed);
}

/// The path in a line of /proc/self/maps, "begin-end rw-p offset device inode   /path", if `address` lies
/// between begin and end; else null.
const char* path_of(const char* begin, const char* end, uintptr_t address) {
  uintptr_t first = 0, last = 0;
  const char* at = std::from_chars(begin, end, first, 16).ptr;
  if (at == end || *at != '-') return nullptr;
  at = std::from_chars(at + 1, end, last, 16).ptr;
  if (address < first || address >= last) return nullptr;
  at = std::find(at, end, '/');
  return at == end ? nullptr : at;
}

/// Says which file is mapped at `address`, whoever mapped it. Allocates nothing: it is called by a handler.
void say_mapped_file(uintptr_t address) {
  std::array<char, 1024> chunk;
  std::array<char, 4096> line;
  size_t length = 0;
  const int maps = ::open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  for (ssize_t got = 0; maps >= 0 && (got = ::read(maps, chunk.data(), chunk.size())) > 0;)
    for (ssize_t i = 0; i < got; ++i) {
      const char c = chunk[static_cast<size_t>(i)];
      if (c != '\n') {
        if (length + 1 < line.size()) line[length++] = c;
        continue;
      }
      line[length] = '\0';
      if (const char* path = path_of(line.data(), line.data() + length, address)) return say(path);
      length = 0;
    }
  say("a mapped file");
}

void on_bus_error(int, siginfo_t* info, void*) {
  remove_unfinished_files();
  say("mneme: error: ");
  say_mapped_file(reinterpret_cast<uintptr_t>(info->si_addr));
  say(" became shorter, or could not be read, while it was in use; restore the file (one in the cache folder "
      "is made anew) and start again (--load read keeps a copy of a model in memory)\n");
  ::_exit(kFailed);
}

void install(int signal, struct sigaction action) {
  action.sa_flags |= SA_RESTART;
  sigemptyset(&action.sa_mask);
  ::sigaction(signal, &action, nullptr);
}

void handle(int signal, void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  install(signal, action);
}

// What the parent told us to ignore stays ignored (nohup, background jobs of a shell).
bool ignored(int signal) {
  struct sigaction action {};
  return ::sigaction(signal, nullptr, &action) == 0 && action.sa_handler == SIG_IGN;
}

}  // namespace

void install_signal_handlers() {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP})
    if (!ignored(signal)) handle(signal, on_interrupt);
#ifndef MNEME_SANITIZED  // a sanitizer's own report says more
  struct sigaction action {};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO;
  install(SIGBUS, action);
#else
  (void)on_bus_error;
#endif
  // A reader that has seen enough (`mneme ... | head`) ends the program quietly, as for any Unix filter.
  handle(SIGPIPE, SIG_DFL);
}

void set_last_words(const std::string& line) {
  const size_t size = std::min(line.size(), g_last_words.size() - 1);
  std::copy_n(line.begin(), size, g_last_words.begin());
  g_last_words[size] = '\0';
}

InterruptScope::InterruptScope() {
  g_token.reset();
  g_scope.store(true);
}

InterruptScope::~InterruptScope() {
  g_scope.store(false);
  g_token.reset();
}

const CancelToken& InterruptScope::token() const noexcept {
  return g_token;
}

void InterruptScope::reset() noexcept {
  g_token.reset();
}

}  // namespace mneme::cli
