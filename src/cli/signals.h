// Ctrl-C, a closed pipe, and a mapped file that shrinks (reading past its new end is a SIGBUS, which ends the
// program with kFailed and the name of the file: a model, experts or memory rows).
//
// Ctrl-C ends the program with 130 at once, unless a verb holds an InterruptScope: then the first Ctrl-C
// cancels its token, so that the work can stop in order, and the second ends the program. Unfinished files
// are removed.
#pragma once
#include <string>

#include "mneme/session.h"

namespace mneme::cli {

/// Installs the handlers; called once by main.
void install_signal_handlers();
/// What a later SIGTERM says before it ends the program with kFailed; a line. Empty: nothing, and 143.
void set_last_words(const std::string& line);

/// While it lives, the first Ctrl-C cancels token(). At most one at a time.
class InterruptScope {
 public:
  InterruptScope();
  ~InterruptScope();
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;

  const CancelToken& token() const noexcept;
  bool interrupted() const noexcept { return token().cancelled(); }
  /// Forgets a Ctrl-C, so that the next one counts as the first again.
  void reset() noexcept;
};

}  // namespace mneme::cli
