#include "engine/session_store.h"

#include <algorithm>

#include "core/fail.h"
#include "core/paths.h"
#include "core/sha256.h"
#include "engine/session_impl.h"

namespace mneme {
namespace fs = std::filesystem;
namespace {

constexpr const char* kExtension = ".session";

bool fits(const SnapshotInfo& info, const Session& session) {
  return info.kv == session.options().kv && info.max_rollback == session.options().max_rollback &&
         info.model_hash == session.model().hash();
}

uint64_t common(std::span<const TokenId> a, std::span<const TokenId> b) {
  const auto n = static_cast<std::ptrdiff_t>(std::min(a.size(), b.size()));
  return static_cast<uint64_t>(std::mismatch(a.begin(), a.begin() + n, b.begin()).first - a.begin());
}

/// The tokens of a stored state; none if it cannot be read, or another process has just removed it.
std::vector<TokenId> tokens_in(const fs::path& path) {
  try {
    return Snapshot::peek(path).tokens;
  } catch (const Error&) {
    return {};
  }
}

/// The most that a stored state can give of a prompt of so many tokens.
uint64_t most_worth(const SnapshotInfo& info, size_t prompt) {
  return std::min<uint64_t>(info.position, prompt - 1);
}

/// How much of `prompt` a stored state with these tokens gives: what both share, if the rest can be rolled
/// back.
uint64_t worth(const SnapshotInfo& info, std::span<const TokenId> tokens, std::span<const TokenId> prompt) {
  const uint64_t shared = std::min<uint64_t>(common(tokens, prompt), prompt.size() - 1);
  return shared == info.position || shared >= info.low_water ? shared : 0;
}

std::string name_of(const Session& session) {
  const auto& tokens = session.tokens();
  Sha256 name;
  name.update(fmt::format("{} {} {}\n", session.model().hash(), static_cast<int>(session.options().kv),
                          session.options().max_rollback));
  name.update(std::as_bytes(std::span(tokens)));
  return name.hex().substr(0, 40) + kExtension;
}

}  // namespace

SessionStore::SessionStore(fs::path folder, uint64_t budget) : folder_(std::move(folder)), budget_(budget) {}

void SessionStore::visit(const std::function<void(const StoredSession&)>& look) const {
  std::error_code error;
  for (fs::directory_iterator at(folder_, error), end; !error && at != end; at.increment(error)) {
    if (at->path().extension() != kExtension) continue;
    StoredSession entry{at->path(), {}, {}};
    try {
      entry.info = Snapshot::peek(entry.path, false);
    } catch (const Error&) {
      continue;  // not a session, or another process has just removed it
    }
    std::error_code gone;
    entry.used = fs::last_write_time(entry.path, gone);
    if (!gone) look(entry);
  }
}

std::vector<StoredSession> SessionStore::list() const {
  std::vector<StoredSession> found;
  visit([&](const StoredSession& entry) { found.push_back(entry); });
  std::sort(found.begin(), found.end(),
            [](const StoredSession& a, const StoredSession& b) { return a.used > b.used; });
  return found;
}

uint64_t SessionStore::restore(Session& session, std::span<const TokenId> prompt, uint64_t more_than) {
  if (prompt.empty()) return 0;
  struct Candidate {
    uint64_t worth;
    fs::path path;
  };
  std::vector<StoredSession> stored;
  visit([&](const StoredSession& entry) {
    if (fits(entry.info, session) && most_worth(entry.info, prompt.size()) > more_than)
      stored.push_back(entry);
  });
  std::sort(stored.begin(), stored.end(),
            [](const StoredSession& a, const StoredSession& b) { return a.info.position > b.info.position; });
  const auto less = [](const Candidate& a, const Candidate& b) { return a.worth < b.worth; };
  std::vector<Candidate> candidates;  // a heap
  auto next = stored.begin();
  while (true) {
    // Tokens are read of few files: the longest first, until none that is left can be worth more than the
    // best found.
    for (; next != stored.end() &&
           (candidates.empty() || most_worth(next->info, prompt.size()) > candidates.front().worth);
         ++next) {
      const uint64_t tokens = worth(next->info, tokens_in(next->path), prompt);
      if (tokens <= more_than) continue;
      candidates.push_back({tokens, next->path});
      std::push_heap(candidates.begin(), candidates.end(), less);
    }
    if (candidates.empty()) return 0;
    std::pop_heap(candidates.begin(), candidates.end(), less);
    const Candidate candidate = std::move(candidates.back());
    candidates.pop_back();
    std::error_code ignored;
    try {
      const Snapshot snapshot = Snapshot::load(candidate.path);
      if (common(snapshot.tokens(), prompt) < candidate.worth) continue;  // replaced since it was listed
      session.restore(snapshot);
      fs::last_write_time(candidate.path, fs::file_time_type::clock::now(), ignored);
    } catch (const Error& error) {
      if (error.code() == ErrorCode::corrupt) fs::remove(candidate.path, ignored);
      continue;
    }
    if (session.position() > candidate.worth) session.rollback(session.position() - candidate.worth);
    return candidate.worth;
  }
}

void SessionStore::make_room(uint64_t bytes, const fs::path& keep) {
  const auto entries = list();
  uint64_t sum = bytes;
  for (const StoredSession& entry : entries)
    if (entry.path != keep) sum += entry.info.bytes;
  for (auto entry = entries.rbegin(); entry != entries.rend() && sum > budget_; ++entry) {
    if (entry->path == keep) continue;
    remove(*entry);
    sum -= entry->info.bytes;
  }
}

bool SessionStore::add(const Session& session) {
  require(session.position() > 0, ErrorCode::invalid_argument,
          "a session without tokens is not worth storing");
  const fs::path path = ensure_folder(folder_) / name_of(session);
  std::error_code ignored;
  if (fs::exists(path, ignored)) {
    fs::last_write_time(path, fs::file_time_type::clock::now(), ignored);
    return true;
  }
  if (session.state_bytes() > budget_) return false;
  // What the new state can be rolled back to needs no file of its own.
  const Snapshot snapshot = session.snapshot();
  make_room(session.state_bytes(), path);
  snapshot.save(path);
  const auto low_water = static_cast<uint64_t>(snapshot.data().low_water);
  visit([&](const StoredSession& entry) {
    const SnapshotInfo& info = entry.info;
    if (entry.path == path || !fits(info, session) || info.position > session.position() ||
        info.position < low_water)
      return;
    const std::vector<TokenId> tokens = tokens_in(entry.path);
    if (tokens.size() == info.position && common(tokens, session.tokens()) == info.position) remove(entry);
  });
  const auto bytes = fs::file_size(path, ignored);
  make_room(ignored ? 0 : bytes, path);  // gone: another process needed the room
  return true;
}

uint64_t SessionStore::clear() {
  uint64_t freed = 0;
  for (const StoredSession& entry : list()) freed += remove(entry);
  return freed;
}

uint64_t SessionStore::remove(const StoredSession& entry) {
  std::error_code error;
  fs::remove(entry.path, error);
  require(!error, ErrorCode::io, "cannot remove {}: {}", entry.path.string(), error.message());
  return entry.info.bytes;
}

}  // namespace mneme
