#include "cli/signals.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <cstring>

#include "cli/verb.h"
#include "core/file.h"

namespace mneme::cli {
namespace {

// Everything a handler touches is lock-free and has static storage.
CancelToken g_token;
std::atomic<bool> g_scope{false};
std::array<char, 1024> g_file{}, g_last_words{};

void say(const char* text) {
  const ssize_t ignored = ::write(STDERR_FILENO, text, std::strlen(text));
  (void)ignored;
}

void keep_text(const std::string& text, std::array<char, 1024>& out) {
  const size_t size = std::min(text.size(), out.size() - 1);
  std::copy_n(text.begin(), size, out.begin());
  out[size] = '\0';
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

void on_bus_error(int) {
  remove_unfinished_files();
  say("mneme: error: ");
  say(g_file[0] == '\0' ? "a mapped file" : g_file.data());
  say(" became shorter, or could not be read, while it was in use; restore the file and start again "
      "(--load read keeps a copy in memory)\n");
  ::_exit(kFailed);
}

void handle(int signal, void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  ::sigaction(signal, &action, nullptr);
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
  handle(SIGBUS, on_bus_error);
#else
  (void)on_bus_error;
#endif
  // A reader that has seen enough (`mneme ... | head`) ends the program quietly, as for any Unix filter.
  handle(SIGPIPE, SIG_DFL);
}

void set_mapped_file_name(const std::string& path) {
  keep_text(path, g_file);
}

void set_last_words(const std::string& line) {
  keep_text(line, g_last_words);
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
