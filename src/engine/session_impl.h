// The inside of Session and Snapshot, and the executor that the sessions of a model share.
#pragma once
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string_view>
#include <vector>

#include "mneme/session.h"
#include "model/model_impl.h"
#include "model/sequence_state.h"

namespace mneme {

/// The workspace of a model's forward passes. The model has one thread pool, so its passes queue up anyway;
/// sharing the buffers keeps memory independent of the number of sessions.
class Executor {
 public:
  explicit Executor(std::shared_ptr<const Model> model) : model_(std::move(model)) {}
  /// The executor of a model, made on first use and freed with its last session.
  static std::shared_ptr<Executor> of(const std::shared_ptr<const Model>& model);

  /// The state that a session starts from: empty, or with the model's sink tokens behind it (computed once
  /// for sessions with equal options). Thread-safe.
  SequenceState fresh(const SessionOptions& options);

  /// One pass. Returns false if cancelled. Thread-safe: passes queue.
  bool run(std::span<const Slice> slices, std::span<const TokenId> ids, std::span<const int64_t> logit_rows,
           float* logits, const CancelToken* cancel);

 private:
  std::shared_ptr<const Model> model_;
  SequenceState after_sink_tokens(std::shared_ptr<const CacheLayout> layout);

  std::mutex mutex_;
  Workspace workspace_;
  std::map<std::pair<KvType, uint32_t>, SequenceState> starts_;  // by KV type and max_rollback
};

class SessionImpl {
 public:
  SessionImpl(std::shared_ptr<const Model> m, const SessionOptions& o);

  std::shared_ptr<const Model> model;
  SessionOptions options;
  std::shared_ptr<Executor> executor;
  SequenceState state;
  std::vector<TokenId> tokens;
  std::vector<float> logits;  // of the last append
  size_t last_logits = 0;     // index in `logits` of the row after the last token
  bool has_logits = false;
  BlockHook* block_hook = nullptr;         // of tests; must outlive the calls that it sees
  ProjectionObserver* observer = nullptr;  // likewise, of whoever looks inside; forks do not inherit it

  RouteObserver* routes = nullptr;  // likewise

  void check_ids(std::span<const TokenId> ids) const;
  void check_room(uint64_t n) const;
  uint64_t vocab() const { return model->config().vocab; }
};

struct Snapshot::Data {
  std::shared_ptr<const Model> model;  // null when loaded from a file
  std::string model_hash;              // empty until needed when made from a session
  KvType kv = KvType::f16;
  uint32_t max_rollback = 0;
  int64_t position = 0, low_water = 0;
  std::vector<TokenId> tokens;                            // [position]
  std::vector<float> logits;                              // [vocab] after the last token, or empty
  std::vector<std::vector<SequenceState::Block>> blocks;  // [group][position / 256], null where given back
  std::vector<std::vector<float>> convs;                  // [convolution][slots, d_model]
  RecurrentStates::Contents recurrent;
  std::string note;  // UTF-8, of the application
};

/// "f16", "int8", "f32", as snapshot files name them; nullopt for another name.
std::optional<KvType> kv_type_from(std::string_view name) noexcept;

/// Parses the bytes of a snapshot file (tests, fuzzing). Throws Error(corrupt | unsupported).
std::shared_ptr<const Snapshot::Data> parse_snapshot(Bytes bytes, const std::string& name);

constexpr const char* kv_name(KvType type) noexcept {
  return type == KvType::f32 ? "f32" : type == KvType::int8 ? "int8" : "f16";
}
inline KvFormat kv_format(KvType type) {
  return type == KvType::f32 ? KvFormat::f32 : type == KvType::int8 ? KvFormat::int8 : KvFormat::f16;
}

}  // namespace mneme
