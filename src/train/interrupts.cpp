#include "train/interrupts.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "core/file.h"

namespace mneme::train {
namespace {

std::atomic<int> g_interrupts{0};
static_assert(std::atomic<int>::is_always_lock_free);

void on_interrupt(int signal) {
  if (g_interrupts.fetch_add(1) == 0) return;
  remove_unfinished_files();
  ::_exit(128 + signal);
}

}  // namespace

void receive_interrupts() {
  sigset_t all, wanted;
  sigemptyset(&all);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&all, signal);
  sigemptyset(&wanted);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction old {};
    if (::sigaction(signal, nullptr, &old) == 0 && old.sa_handler == SIG_IGN) continue;
    sigaddset(&wanted, signal);
    struct sigaction action {};
    action.sa_handler = on_interrupt;
    action.sa_flags = SA_RESTART;
    action.sa_mask = all;  // the second waits for the first: a handler within a handler would turn them round
    ::sigaction(signal, &action, nullptr);
  }
  ::pthread_sigmask(SIG_BLOCK, &wanted, nullptr);
  std::thread([wanted] {
    ::pthread_sigmask(SIG_UNBLOCK, &wanted, nullptr);
    for (;;) ::pause();
  }).detach();
}

bool interrupted() noexcept {
  return g_interrupts.load() > 0;
}

}  // namespace mneme::train
