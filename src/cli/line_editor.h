// Reading what a person types: with line editing and history on a terminal.
#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "cli/signals.h"

namespace mneme::cli {

/// Where the chat gets its lines from; tests script one.
class LineSource {
 public:
  enum class Event {
    line,        // a line was entered
    end,         // end of input (Ctrl-D on an empty line)
    interrupted  // Ctrl-C
  };
  virtual ~LineSource() = default;
  /// Shows `prompt` and waits for a line, which comes without its newline.
  virtual Event read(const std::string& prompt, std::string& line) = 0;
  /// Adds an entry (of one or more lines) to the history.
  virtual void remember(const std::string& entry) = 0;
};

/// Line editing by libedit on stdin and stderr. Bytes that are no UTF-8 are dropped.
class LineEditor : public LineSource {
 public:
  /// Loads the history; an unreadable or missing file is an empty history. `interrupt` tells of Ctrl-C.
  LineEditor(std::filesystem::path history_file, InterruptScope& interrupt);
  ~LineEditor() override;

  Event read(const std::string& prompt, std::string& line) override;
  /// Also saves the file, atomically; that it cannot be written is no reason to end a conversation, so the
  /// first failure is reported on stderr and later ones are not.
  void remember(const std::string& entry) override;

  struct State;  // of libedit

 private:
  std::unique_ptr<State> state_;
};

/// The history file: one entry a line, newlines as \n and backslashes as \\; at most kHistoryEntries, the
/// oldest first.
inline constexpr size_t kHistoryEntries = 1000;
std::string encode_history(const std::vector<std::string>& entries);
std::vector<std::string> decode_history(const std::string& text);

}  // namespace mneme::cli
