// Checkpoints: OUT/step-00001000/ is a folder that the engine runs as it is, and that training goes on from
// to the bit.
//
//   config.json, model.safetensors, tokenizer.json ..., *.engram   the model (model_files.h)
//   optimiser.safetensors   moments, state of rows, and rows whose pack rounds them
//   state.json              counters, the run's config, what the data was, bytes and XXH3 of every file, and
//                           its own XXH3
//
// A checkpoint is written into a hidden folder, every file synced, and renamed: whatever kills the process or
// cuts the power, a folder step-N is whole. OUT/latest names the newest in one line, for people and scripts;
// what is resumed is the newest folder whose checksums hold.
#pragma once
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>

#include "core/file.h"
#include "core/json.h"
#include "train/run/run_config.h"
#include "train/run/run_tokenizer.h"
#include "train/run/table_rows.h"
#include "train/run/training.h"

namespace mneme::train {

/// The counters of a run. No generator state is among them: every random number is a function of the seed and
/// of one of these.
struct RunState {
  uint64_t step = 0;      // steps done
  uint64_t sequence = 0;  // the next training sequence (data_order.h)
  double best_validation = std::numeric_limits<double>::infinity();  // nats a token
  uint32_t validations_without_gain = 0;
  uint64_t log_bytes = 0;  // length of OUT/log.jsonl at this step
  double seconds = 0;      // spent in training, over all parts of the run
  Json run;                // RunConfig::to_json()
  Json data;               // hashes of the shards and the tokenizer's fingerprint
};

struct CheckpointFolder {
  fs::path path;
  RunState state;
};

/// "step-00001000"
std::string checkpoint_name(uint64_t step);

/// Writes OUT/step-N and OUT/latest, then removes the oldest beyond `keep` (0: none); newer ones, which a
/// resumed run left aside, are not counted. Tables are read from `rows` a stretch at a time. Throws
/// Error(corrupt) for a value that is not finite, which no run could go on from, and Error(io), e.g. for a
/// full disk; then nothing of it stays, and older checkpoints are as they were.
fs::path save_checkpoint(const fs::path& out, const Training& training, const TableRows& rows,
                         const RunTokenizer& tokenizer, const RunState& state, uint32_t keep);

/// Whether OUT holds a folder of a checkpoint, whole or not.
bool has_checkpoint(const fs::path& out);

/// The newest checkpoint that is whole; `warn` hears of newer ones that are damaged, and why. Reads every
/// byte of it.
std::optional<CheckpointFolder> newest_checkpoint(const fs::path& out,
                                                  const std::function<void(const std::string&)>& warn);

/// Overwrites weights, rows and the state of the optimisers by those of a checkpoint. Throws Error(mismatch)
/// if it is of another model, naming the first field of its config that differs.
void restore_checkpoint(const CheckpointFolder& checkpoint, Training& training, TableRows& rows);

/// Removes what a killed process left behind. Only under the lock of OUT.
void remove_leftovers(const fs::path& out);

}  // namespace mneme::train
