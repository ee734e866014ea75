// Session: the state of one sequence. Everything that outlives a token is in here.
#pragma once
#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "mneme/model.h"

namespace mneme {

enum class KvType { f16, int8, f32 };

struct SessionOptions {
  KvType kv = KvType::f16;
  uint32_t max_context = 0;    // 0 = the model's own; append() beyond it throws Error(limit)
  uint32_t max_rollback = 16;  // exact rollback reach where a layer keeps less than full KV
  uint32_t chunk = 512;        // tokens per prefill pass
};

/// Ask a running append() to stop; safe to use from any thread and from a signal handler. A token with a
/// parent is cancelled by its own flag or with the parent, which must outlive it.
class CancelToken {
 public:
  CancelToken() = default;
  explicit CancelToken(const CancelToken* parent) noexcept : parent_(parent) {}

  void cancel() noexcept { flag_.store(true, std::memory_order_relaxed); }
  void reset() noexcept { flag_.store(false, std::memory_order_relaxed); }
  bool cancelled() const noexcept {
    return flag_.load(std::memory_order_relaxed) || (parent_ != nullptr && parent_->cancelled());
  }

 private:
  std::atomic<bool> flag_{false};
  const CancelToken* parent_ = nullptr;
};

/// What a snapshot file says of itself: see Snapshot::peek.
struct SnapshotInfo {
  std::string model_hash;
  KvType kv = KvType::f16;
  uint32_t max_rollback = 0;
  uint64_t position = 0;
  uint64_t low_water = 0;  // a session can go back to this position, exactly
  std::vector<TokenId> tokens;
  std::string note;
  uint64_t bytes = 0;  // of the file
};

/// The exact state of a session at one position. Cheap to copy (shared, immutable).
class Snapshot {
 public:
  uint64_t position() const;
  const std::vector<TokenId>& tokens() const;
  /// Saves atomically: model hash, options, token ids, state, checksum.
  void save(const std::filesystem::path& path) const;
  /// Throws Error(corrupt) for a damaged file. Whether it belongs to a model is checked by Session::restore.
  static Snapshot load(const std::filesystem::path& path);
  /// Reads only the beginning of a file, whatever the size of its state; its checksum is left to load().
  /// Without tokens it takes the same time for a text of any length, and info.tokens is empty.
  /// Throws Error: not_found, io, corrupt.
  static SnapshotInfo peek(const std::filesystem::path& path, bool with_tokens = true);

  /// A text of the application's that is saved with the state, such as the messages of a chat; "" at first.
  const std::string& note() const;
  Snapshot with_note(std::string note) const;

  struct Data;
  explicit Snapshot(std::shared_ptr<const Data> data) : data_(std::move(data)) {}
  const Data& data() const { return *data_; }

 private:
  std::shared_ptr<const Data> data_;
};

struct AppendOptions {
  bool all_logits = false;  // keep logits of every appended position, not only the last
  const CancelToken* cancel =
      nullptr;  // polled between layers; append() then throws Error(cancelled), state unchanged
  std::function<void(uint64_t done, uint64_t total)> progress;  // after each chunk
  /// With all_logits: called per chunk with [tokens, vocab] logits instead of keeping them, so that memory
  /// stays bounded.
  std::function<void(uint64_t first, uint64_t count, const float* logits)> on_logits;
};

class SessionImpl;

/// Not thread-safe: one thread at a time per session. Sessions of one model may run from different threads.
class Session {
 public:
  explicit Session(std::shared_ptr<const Model> model, const SessionOptions& options = {});
  ~Session();
  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;

  const Model& model() const noexcept;
  const SessionOptions& options() const noexcept;
  uint64_t position() const noexcept;
  const std::vector<TokenId>& tokens() const noexcept;

  /// Processes ids (≥ 1) and returns logits: [vocab] of the last, or [ids, vocab] with all_logits (empty with
  /// on_logits). The span is valid until the next call. Throws Error: limit (context), invalid_argument (id
  /// out of range), cancelled.
  std::span<const float> append(std::span<const TokenId> ids, const AppendOptions& options = {});

  /// Advances several different sessions of one model by one token each, in one pass over the weights.
  /// Afterwards logits() of each holds its row. Throws Error(invalid_argument) for sessions of different
  /// models or a session listed twice, otherwise as append(); on an error no session has advanced.
  static void append_batch(std::span<Session* const> sessions, std::span<const TokenId> ids,
                           const CancelToken* cancel = nullptr);
  /// [vocab] logits after the last token; empty before the first append().
  std::span<const float> logits() const noexcept;

  Snapshot snapshot() const;
  /// Throws Error(mismatch) if the snapshot comes from another model or other options.
  void restore(const Snapshot& snapshot);
  Session fork() const;
  /// Forgets the last n tokens, exactly. Throws Error(limit) beyond max_rollback where a layer keeps less
  /// than full KV.
  void rollback(uint64_t n);
  /// Bytes of state held now (KV caches and recurrent states).
  uint64_t state_bytes() const noexcept;

  SessionImpl& impl() noexcept { return *impl_; }

 private:
  explicit Session(std::unique_ptr<SessionImpl> impl);
  std::unique_ptr<SessionImpl> impl_;
};

}  // namespace mneme
