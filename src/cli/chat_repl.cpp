#include "cli/chat_repl.h"

#include <fmt/format.h>

#include <array>
#include <string_view>

#include "cli/suggest.h"
#include "cli/verb.h"
#include "mneme/error.h"

namespace mneme::cli {
namespace {

constexpr std::string_view kHelp =
    "  /help          this list\n"
    "  /reset         forget the conversation (the system message stays)\n"
    "  /save FILE     write the conversation to a file\n"
    "  /load FILE     go on with a conversation from a file\n"
    "  /system TEXT   set the system message; /system alone shows it, /system off removes it\n"
    "  /stats         speed and size of the last answer and the conversation\n"
    "  /quit          leave (Ctrl-D does too)\n"
    "Several lines: end a line with \\ to go on, or put them between two lines of \"\"\".\n"
    "Ctrl-C stops an answer; at the prompt, twice leaves.\n";

enum class Next { go_on, quit };

std::string_view trim(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

class Repl {
 public:
  explicit Repl(const ChatReplParts& parts) : parts_(parts) {}

  int run() {
    bool warned = false;  // the last thing at the prompt was a Ctrl-C
    for (;;) {
      std::string text;
      const LineSource::Event event = read_turn(text);
      if (event == LineSource::Event::end) return kDone;
      if (event == LineSource::Event::interrupted) {
        if (warned) return kInterrupted;
        warned = true;
        parts_.say("Ctrl-C again or /quit leaves\n");
        continue;
      }
      warned = false;
      if (trim(text).empty()) continue;
      parts_.lines.remember(text);
      if (guarded(text) == Next::quit) return kDone;
    }
  }

 private:
  /// A whole turn: one line, lines joined by a backslash at their end, or lines between """.
  LineSource::Event read_turn(std::string& text) {
    std::string line;
    LineSource::Event event = parts_.lines.read("> ", line);
    if (event != LineSource::Event::line) return event;
    const bool quoted = trim(line).starts_with("\"\"\"");
    if (quoted) return read_quoted(trim(line).substr(3), text);
    text = line;
    while (!text.empty() && text.back() == '\\') {
      text.back() = '\n';
      event = parts_.lines.read("… ", line);
      if (event == LineSource::Event::interrupted) return event;
      if (event == LineSource::Event::end) break;
      text += line;
    }
    return LineSource::Event::line;
  }

  LineSource::Event read_quoted(std::string_view first, std::string& text) {
    std::string line(first);
    for (bool started = false;; started = true) {
      const std::string_view end = trim(line);
      const bool closes = end.ends_with("\"\"\"");
      const std::string part = closes ? line.substr(0, line.rfind("\"\"\"")) : line;
      if (started && !(closes && part.empty())) text += text.empty() ? part : "\n" + part;
      if (!started) text = part;
      if (closes) return LineSource::Event::line;
      const LineSource::Event event = parts_.lines.read("… ", line);
      if (event == LineSource::Event::interrupted) return event;
      if (event == LineSource::Event::end) return LineSource::Event::line;
    }
  }

  /// One turn; an error is shown and the conversation goes on as it was before.
  Next guarded(const std::string& text) {
    try {
      if (text.starts_with('/') && !text.starts_with("//")) return command(text);
      // "//" at the start is a turn that begins with one slash.
      parts_.answer(text.starts_with("//") ? text.substr(1) : text);
    } catch (const Error& error) {
      parts_.say(fmt::format("error: {}\n", error.what()));
    }
    return Next::go_on;
  }

  Next command(const std::string& text) {
    const size_t space = text.find_first_of(" \t\n");
    const std::string name = text.substr(0, space);
    const std::string argument(
        trim(space == std::string::npos ? "" : std::string_view(text).substr(space + 1)));
    if (name == "/quit" || name == "/exit") return Next::quit;
    if (name == "/help")
      parts_.say(std::string(kHelp));
    else if (name == "/reset")
      reset();
    else if (name == "/save")
      save(argument);
    else if (name == "/load")
      load(argument);
    else if (name == "/system")
      system(argument);
    else if (name == "/stats")
      parts_.say(parts_.stats());
    else
      parts_.say(fmt::format(
          "no command {}{}; /help lists them, // starts a turn with /\n", name,
          did_you_mean(name, {"/quit", "/help", "/reset", "/save", "/load", "/system", "/stats"})));
    return Next::go_on;
  }

  void reset() {
    parts_.conversation.reset();
    parts_.say("a new conversation\n");
  }

  void save(const std::string& path) {
    if (path.empty()) return parts_.say("/save needs the name of a file\n");
    parts_.conversation.save(path, parts_.model);
    parts_.say(fmt::format("saved {} messages to {}\n", parts_.conversation.messages().size(), path));
  }

  void load(const std::string& path) {
    if (path.empty()) return parts_.say("/load needs the name of a file\n");
    parts_.conversation = Conversation::load(path);
    parts_.say(fmt::format("loaded {} messages from {}\n", parts_.conversation.messages().size(), path));
  }

  void system(const std::string& text) {
    if (text.empty()) {
      const std::string now = parts_.conversation.system();
      return parts_.say(now.empty() ? "there is no system message\n" : now + "\n");
    }
    parts_.conversation.set_system(text == "off" ? "" : text);
    parts_.say(text == "off" ? "the system message is removed\n" : "the system message is set\n");
  }

  const ChatReplParts& parts_;
};

}  // namespace

int run_chat_repl(const ChatReplParts& parts) {
  return Repl(parts).run();
}

}  // namespace mneme::cli
