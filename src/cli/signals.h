// Ctrl-C, a closed pipe, and a mapped file that shrinks.
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
/// Names the file that a later SIGBUS is about (reading a mapping past the end of its shortened file).
void set_mapped_file_name(const std::string& path);
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
