#include "cli/session_file.h"

#include <fmt/format.h>

#include <algorithm>

#include "cli/sizes.h"
#include "cli/verb.h"
#include "core/fail.h"
#include "core/file.h"
#include "core/paths.h"
#include "engine/generation.h"
#include "engine/session_impl.h"
#include "engine/session_sequence.h"

namespace mneme::cli {
namespace {

constexpr const char* kDefaultBudget = "8G";

}  // namespace

void add_keep_options(CLI::App& app, KeepFlags& flags) {
  app.add_option("--session", flags.file,
                 "Go on from the state in FILE, if it is there, and save the state to it afterwards")
      ->type_name("FILE")
      ->group("Sessions");
  app.add_flag("--no-save", flags.no_save, "Leave the --session file as it is")->group("Sessions");
  add_store_options(app, flags);
}

void add_store_options(CLI::App& app, KeepFlags& flags) {
  app.add_option(
         "--session-store", flags.store,
         "Keep what was read in this folder, and go on from the longest beginning of the prompt that is "
         "there; auto: a folder in the user's cache")
      ->type_name("DIR")
      ->group("Sessions");
  flags.budget = kDefaultBudget;
  app.add_option("--session-budget", flags.budget,
                 "Most bytes of that folder; the least recently used go first")
      ->type_name("BYTES")
      ->group("Sessions");
}

fs::path store_folder(const std::string& store) {
  return store.empty() || store == "auto" ? cache_folder() / "sessions" : fs::path(store);
}

SessionStore open_store(const KeepFlags& flags) {
  return {store_folder(flags.store), size_argument(flags.budget, "--session-budget")};
}

void check_keep_options(const KeepFlags& flags) {
  if (flags.no_save && flags.file.empty()) throw UsageError("--no-save needs --session FILE");
  size_argument(flags.budget, "--session-budget");
  if (flags.file.empty() || flags.no_save) return;
  const fs::path folder = fs::path(flags.file).parent_path();
  std::error_code error;
  require(folder.empty() || fs::is_directory(folder, error), ErrorCode::not_found,
          "--session: there is no folder {}", folder.string());
}

std::optional<std::string> load_session(const KeepFlags& flags, Session& session) {
  std::error_code error;
  if (flags.file.empty()) return std::nullopt;
  if (!fs::exists(flags.file, error)) {
    require(!flags.no_save, ErrorCode::not_found, "--session {}: there is no such file", flags.file);
    return std::nullopt;
  }
  try {
    const Snapshot snapshot = Snapshot::load(flags.file);
    session.restore(snapshot);
    return snapshot.note();
  } catch (const Error& refused) {
    fail(refused.code(), "--session {}: {}", flags.file, refused.what());
  }
}

void save_session(const KeepFlags& flags, const Session& session, const std::string& note) {
  if (flags.file.empty() || flags.no_save) return;
  try {
    session.snapshot().with_note(note).save(flags.file);
  } catch (const Error& failed) {
    std::error_code ignored;
    fail(failed.code(), "the session is not saved: {} ({}); make space, or name another --session file",
         failed.what(), fs::exists(flags.file, ignored) ? "the old file is as it was" : "no file was left");
  }
}

bool forgets(Session& session) {
  return session.impl().state.layout().forgets();
}

void add_before_the_answer(SessionStore& store, Session& session) {
  try {
    store.add(session);
  } catch (const Error& failed) {
    if (failed.code() != ErrorCode::io) throw;
    fmt::print(stderr, "note: what was read so far is not stored: {}\n", failed.what());
  }
}

void keep_on_the_way(SessionStore& store, Session& session) {
  constexpr uint64_t kEvery = 16384;
  if (session.position() % kEvery < session.options().chunk && session.position() >= kEvery &&
      forgets(session))
    add_before_the_answer(store, session);
}

void check_request(Session& session, const GenerateRequest& request) {
  const Model& model = session.model();
  const Generation generation(request, model.has_tokenizer() ? &model.tokenizer() : nullptr,
                              Generation::Clock::now());
  generation.check_prompt_fits(SessionSequence(session));
}

uint64_t read_ids(Session& session, std::span<const TokenId> ids, const CancelToken* cancel,
                  const std::function<void(uint64_t done, uint64_t total)>& progress) {
  AppendOptions options;
  options.cancel = cancel;
  const uint64_t chunk = session.options().chunk;
  session.impl().tokens.reserve(session.position() + ids.size());
  for (uint64_t done = 0; done < ids.size();) {
    const uint64_t n = std::min<uint64_t>(chunk, ids.size() - done);
    try {
      session.append(ids.subspan(done, n), options);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::cancelled) throw;
      return done;
    }
    done += n;
    if (progress) progress(done, ids.size());
  }
  return ids.size();
}

}  // namespace mneme::cli
