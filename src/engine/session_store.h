// A folder of snapshots, one file for each text that a model has read, so that what was read once is never
// read again: a later prompt that begins like a stored one goes on from there.
//
// Files are named by content (SHA-256 of model hash, options and token ids), so that equal states are stored
// once and writers in different processes never hurt each other. Together they stay within a budget; the
// least recently used go first. A file that cannot be used, whatever the reason, costs a reading of the text
// and nothing else.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "mneme/session.h"

namespace mneme {

struct StoredSession {
  std::filesystem::path path;
  SnapshotInfo info;
  std::filesystem::file_time_type used;  // last time it was written or restored
};

/// Any number of processes may use a folder at once. Not thread-safe.
class SessionStore {
 public:
  /// `budget`: most bytes of all files together. The folder is made when the first file is added.
  SessionStore(std::filesystem::path folder, uint64_t budget);

  /// Where the stored state is that gives `session`, whose tokens are ignored, the longest beginning of
  /// `prompt`, and how long that is: at least `more_than`, and never the whole prompt, whose last token's
  /// logits are needed. A state that goes on differently counts as far as it can be rolled back exactly.
  /// Restores it and returns the tokens that the session then holds, or 0 if no stored state helps and the
  /// session is as it was. Throws only what Session::rollback throws; unusable files are passed over, damaged
  /// ones removed.
  uint64_t restore(Session& session, std::span<const TokenId> prompt, uint64_t more_than = 0);

  /// Stores the state of `session` unless it is there already, and removes what it makes superfluous: shorter
  /// beginnings of the same text if the new state can be rolled back to them, and the least recently used
  /// beyond the budget. Returns false for a state that is larger than the whole budget. Throws Error(io).
  bool add(const Session& session);

  /// All usable files, the most recently used first, without their tokens (info.tokens is empty).
  std::vector<StoredSession> list() const;
  /// Deletes what list() shows, or one file of it. Returns the bytes freed. Throws Error(io).
  uint64_t clear();
  uint64_t remove(const StoredSession& entry);

  const std::filesystem::path& folder() const noexcept { return folder_; }

 private:
  void make_room(uint64_t bytes, const std::filesystem::path& keep);
  /// Shows every usable file in no order, without its tokens: those of all states of a long text take
  /// gigabytes.
  void visit(const std::function<void(const StoredSession&)>& look) const;

  std::filesystem::path folder_;
  uint64_t budget_;
};

}  // namespace mneme
