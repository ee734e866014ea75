// Where a conversion stands, on disk, so that it goes on after kill -9 at any moment.
//
//   OUT.convert/state.json    recipe, model, stage, reports of finished stages, name of the snapshot
//   OUT.convert/at-000007/    the newest snapshot: config.json, tensors.safetensors
//   OUT.convert/shards/       tokens of the training texts
//   OUT.convert/activations/  what layers learn from in a transfer of several passes
//   OUT.convert/lock          held by the process at work
//
// A snapshot is written whole and durably before state.json names it; older ones are removed after that. It
// holds the tensors that are not the original's (names "model.*", "table.*") and what the stage needs to go
// on ("stage.*": moments, drafts).
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/file.h"
#include "core/json.h"
#include "train/convert/converted_model.h"

namespace mneme::train {

struct SavedState {
  size_t stage = 0;  // finished stages
  Json reports = Json::array();
  Json inner;          // where the stage stands; null at its beginning
  double seconds = 0;  // that the stage has taken so far
  ModelConfig config;
  NamedTensors tensors;
};

/// One process at a time holds a folder; one in which nothing was saved is removed again. Not thread-safe.
class StateFolder {
 public:
  /// `recipe` (Recipe::hashes) and `original` are hashes that must be those of what is there, of the recipe
  /// up to the stage that was begun last (load() checks it). Throws Error(io), and Error(limit) while another
  /// process works there.
  StateFolder(const fs::path& out, std::vector<std::string> recipe, std::string original);
  ~StateFolder();
  StateFolder(const StateFolder&) = delete;
  StateFolder& operator=(const StateFolder&) = delete;

  const fs::path& path() const noexcept { return folder_; }
  /// Forgets everything in it.
  void clear();
  /// The newest state, or nothing. Throws Error(corrupt), Error(mismatch) as above.
  std::optional<SavedState> load();
  /// All of it.
  void save(const SavedState& state);
  /// The numbers alone; tensors stay those of the last save().
  void save_numbers(const SavedState& state);
  /// Removes the folder: the conversion is done.
  void remove();

 private:
  fs::path folder_;
  std::vector<std::string> recipe_;
  std::string original_, snapshot_;
  uint64_t number_ = 0;
  int lock_ = -1;
  void write_json(const SavedState& state) const;
};

/// Adds `from`, each name behind `prefix`.
void merge(NamedTensors& into, const NamedTensors& from, const std::string& prefix = {});
/// Those whose names begin with `prefix`, without it.
NamedTensors below(const NamedTensors& all, const std::string& prefix);

/// Writes tensors of f32, i32 or i64 to one file, atomically; names as they are.
void write_tensors(const fs::path& file, const NamedTensors& tensors);
/// Throws Error(corrupt | io | not_found).
NamedTensors read_tensors(const fs::path& file);

}  // namespace mneme::train
