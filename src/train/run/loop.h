// A training run from its config to its last checkpoint.
//
// A step: `batch.accumulate` passes over `batch.sequences` sequences each, gradients added up; over several
// processes each takes its share of the same sequences and gradients are averaged; the norm of all gradients
// is clipped; the optimisers move the tensors and the touched rows. The n-th sequence of a run is a function
// of its data, length and seed alone (data_order.h), so a run's place in its data is one number.
#pragma once
#include <functional>
#include <string>

#include "train/hosts/process_group.h"
#include "train/run/run_config.h"

namespace mneme::train {

struct TrainOptions {
  bool resume = false;  // go on from the newest checkpoint of RunConfig::out, if there is one
  bool json = false;    // log lines on stdout too
  bool quiet = false;
  std::function<bool()> interrupted;  // asked after every step; true saves and ends. Must not be empty
};

enum class Ending { finished, stopped_early, interrupted };

/// Trains. OUT (RunConfig::out) gets run.json, log.jsonl, checkpoints and curves. Throws Error:
/// invalid_argument (OUT holds a run already and `resume` is false; a config that cannot be), mismatch (a
/// checkpoint of another config, naming the first field; data or a tokenizer that do not fit), limit (another
/// process writes OUT), corrupt (a loss that is not finite, naming step and tensor; checkpoints stay), io
/// (e.g. a full disk, likewise), cancelled (interrupted before the first step).
Ending train(const RunConfig& run, const TrainOptions& options, ProcessGroup& group);

}  // namespace mneme::train
