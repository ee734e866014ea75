// The conversation on a terminal: reads turns and /commands, shows answers, survives errors.
#pragma once
#include <functional>
#include <string>

#include "cli/conversation.h"
#include "cli/line_editor.h"

namespace mneme::cli {

struct ChatReplParts {
  LineSource& lines;
  Conversation& conversation;
  std::string model;  // recorded by /save
  /// Streams the answer to this turn and adds both to the conversation. May throw mneme::Error.
  std::function<void(const std::string& text)> answer;
  std::function<std::string()> stats;                // for /stats
  std::function<void(const std::string& text)> say;  // to the person, not part of the result
};

/// Runs until /quit, the end of input, or a second Ctrl-C; returns the exit code.
int run_chat_repl(const ChatReplParts& parts);

}  // namespace mneme::cli
