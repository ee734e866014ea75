#include "cli/line_editor.h"

#include <fmt/format.h>
#include <histedit.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <clocale>
#include <cstdio>
#include <cwchar>
#include <new>
#include <utility>

#include "core/file.h"
#include "core/paths.h"
#include "mneme/error.h"

namespace mneme::cli {

std::string encode_history(const std::vector<std::string>& entries) {
  std::string out;
  for (size_t i = entries.size() - std::min(entries.size(), kHistoryEntries); i < entries.size(); ++i) {
    for (const char c : entries[i]) {
      if (c == '\n')
        out += "\\n";
      else if (c == '\\')
        out += "\\\\";
      else
        out += c;
    }
    out += '\n';
  }
  return out;
}

std::vector<std::string> decode_history(const std::string& text) {
  std::vector<std::string> entries;
  std::string entry;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\n') {
      if (!entry.empty()) entries.push_back(std::move(entry));
      entry.clear();
    } else if (text[i] == '\\' && i + 1 < text.size() && text[i + 1] != '\n') {
      entry += text[++i] == 'n' ? '\n' : text[i];
    } else {
      entry += text[i];
    }
  }
  if (!entry.empty()) entries.push_back(std::move(entry));
  if (entries.size() > kHistoryEntries)
    entries.erase(entries.begin(), entries.end() - static_cast<std::ptrdiff_t>(kHistoryEntries));
  return entries;
}

struct LineEditor::State {
  State(std::filesystem::path path, InterruptScope& scope) : file(std::move(path)), interrupt(scope) {}
  ~State() {
    if (history) history_end(history);
    if (editor) el_end(editor);
  }

  void add_to_editor(const std::string& entry) {
    // libedit edits one line: a longer entry comes back with its lines joined.
    std::string line = entry;
    std::replace(line.begin(), line.end(), '\n', ' ');
    HistEvent event;
    ::history(history, &event, H_ENTER, line.c_str());
  }

  std::filesystem::path file;
  InterruptScope& interrupt;
  EditLine* editor = nullptr;
  History* history = nullptr;
  std::string prompt;
  std::vector<std::string> entries;
  std::mbstate_t decoding{};
  bool interrupted = false;
  bool complained = false;
};

namespace {

/// One byte from stdin; 0 at the end or after a Ctrl-C.
bool read_byte(const CancelToken& cancelled, char& byte) {
  for (;;) {
    if (cancelled.cancelled()) return false;
    pollfd poll{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
    const int ready =
        ::poll(&poll, 1, 200);  // Ctrl-C ends the wait; the limit covers one that came just before it
    if (ready < 0 && errno != EINTR) return false;
    if (ready <= 0) continue;
    const ssize_t got = ::read(STDIN_FILENO, &byte, 1);
    if (got < 0 && errno == EINTR) continue;
    return got == 1;
  }
}

}  // namespace

/// What libedit calls for each character.
static int read_character(EditLine* editor, wchar_t* out) {
  void* data = nullptr;
  el_get(editor, EL_CLIENTDATA, &data);
  auto& state = *static_cast<LineEditor::State*>(data);
  for (;;) {
    char byte = 0;
    if (!read_byte(state.interrupt.token(), byte)) {
      state.interrupted = state.interrupt.interrupted();
      return 0;
    }
    const size_t used = std::mbrtowc(out, &byte, 1, &state.decoding);
    if (used == static_cast<size_t>(-2)) continue;  // in the middle of a character
    if (used == static_cast<size_t>(-1)) {
      state.decoding = {};
      continue;
    }
    return 1;
  }
}

LineEditor::LineEditor(std::filesystem::path history_file, InterruptScope& interrupt)
    : state_(std::make_unique<State>(std::move(history_file), interrupt)) {
  // libedit decodes and measures characters by the locale; numbers keep the C locale.
  if (!std::setlocale(LC_CTYPE, "") || MB_CUR_MAX == 1) std::setlocale(LC_CTYPE, "C.UTF-8");
  try {
    state_->entries = decode_history(read_text_file(state_->file, uint64_t{64} << 20));
  } catch (const Error&) {
    // No history yet, or none that can be read.
  }
  state_->editor = el_init("mneme", stdin, stderr, stderr);
  state_->history = history_init();
  if (!state_->editor || !state_->history) throw std::bad_alloc();
  HistEvent event;
  history(state_->history, &event, H_SETSIZE, static_cast<int>(kHistoryEntries));
  history(state_->history, &event, H_SETUNIQUE, 1);
  for (const std::string& entry : state_->entries) state_->add_to_editor(entry);
  el_set(state_->editor, EL_CLIENTDATA, state_.get());
  el_set(state_->editor, EL_EDITOR, "emacs");
  el_set(state_->editor, EL_HIST, history, state_->history);
  el_set(
      state_->editor, EL_PROMPT, +[](EditLine* editor) -> char* {
        void* data = nullptr;
        el_get(editor, EL_CLIENTDATA, &data);
        return static_cast<State*>(data)->prompt.data();
      });
  el_set(state_->editor, EL_GETCFN, read_character);
  el_set(state_->editor, EL_BIND, "^R", "em-inc-search-prev", nullptr);
}

LineEditor::~LineEditor() = default;

LineSource::Event LineEditor::read(const std::string& prompt, std::string& line) {
  state_->prompt = prompt;
  state_->interrupted = false;
  int count = 0;
  const char* text = el_gets(state_->editor, &count);
  if (state_->interrupted) {
    el_reset(state_->editor);
    std::fputc('\n', stderr);
    state_->interrupt.reset();
    return Event::interrupted;
  }
  if (!text || count <= 0) return Event::end;
  line.assign(text, static_cast<size_t>(count));
  while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.pop_back();
  return Event::line;
}

void LineEditor::remember(const std::string& entry) {
  if (entry.empty() || (!state_->entries.empty() && state_->entries.back() == entry)) return;
  state_->entries.push_back(entry);
  state_->add_to_editor(entry);
  try {
    ensure_folder(state_->file.parent_path());
    AtomicFile file(state_->file);
    file.write(encode_history(state_->entries));
    file.commit();
  } catch (const Error& error) {
    if (!std::exchange(state_->complained, true))
      fmt::print(stderr, "the history is not kept: {}\n", error.what());
  }
}

}  // namespace mneme::cli
