// What --session and --session-store do for `run` and `generate`: a text that was read once is not read
// again, in this process or a later one.
#pragma once
#include <CLI/CLI.hpp>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "cli/options.h"
#include "cli/signals.h"
#include "engine/session_store.h"
#include "mneme/engine.h"

namespace mneme::cli {

struct KeepFlags {
  std::string file;      // --session
  bool no_save = false;  // --no-save
  std::string store;     // --session-store: a folder, "auto", or "" for none
  std::string budget;    // --session-budget
};
void add_keep_options(CLI::App& app, KeepFlags& flags);
void add_store_options(CLI::App& app, KeepFlags& flags);
/// The folder of the store: `store`, or below the cache folder for "" and "auto".
std::filesystem::path store_folder(const std::string& store);
SessionStore open_store(const KeepFlags& flags);
/// Throws UsageError for flags that contradict each other or a bad budget, before a model is loaded.
void check_keep_options(const KeepFlags& flags);

/// Restores FILE into `session` if it exists, and returns its note; nothing if there is no such file. Throws
/// what Snapshot::load and Session::restore throw, the file's name before the message.
std::optional<std::string> load_session(const KeepFlags& flags, Session& session);
/// Saves atomically, unless --no-save or no --session was given. Throws Error(io), the session's fate in the
/// message.
void save_session(const KeepFlags& flags, const Session& session, const std::string& note);

/// Whether a session can go back by less than its whole length, so that a state is worth storing at several
/// positions of one text.
bool forgets(Session& session);
/// Adds a state that is worth keeping before the answer is there. A store that cannot be written costs a note
/// on stderr, not the answer.
void add_before_the_answer(SessionStore& store, Session& session);
/// While a long text is read: adds the state of a session that forgets at every 16,384th token or so, which
/// also lets a reading that was broken off go on.
void keep_on_the_way(SessionStore& store, Session& session);

/// Throws what generate() would throw before it reads the first token of the request's prompt: said before
/// hours of reading, not after.
void check_request(Session& session, const GenerateRequest& request);

/// Appends ids chunk by chunk, so that a cancel loses the running chunk only. Returns the ids processed:
/// fewer than all if cancelled.
uint64_t read_ids(Session& session, std::span<const TokenId> ids, const CancelToken* cancel,
                  const std::function<void(uint64_t done, uint64_t total)>& progress);

}  // namespace mneme::cli
