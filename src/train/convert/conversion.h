// A conversion from beginning to end: the stages of a recipe one after the other, each one resumable, each
// one measured, and the result as a Hugging Face folder that the engine runs.
#pragma once
#include <cstdint>
#include <functional>
#include <string>

#include "core/json.h"
#include "train/convert/recipe.h"

namespace mneme::train {

struct ConversionProgress {
  size_t stage = 0, stages = 0;  // the stage at work, from 0; stages when all are done
  std::string what;              // "transfer", "distill", "measuring", ...
  uint64_t done = 0, of = 0;
  uint64_t tokens = 0;  // that a unit of `done` trains on; 0 where that says nothing
  std::string figures;  // "error 0.31"
};

struct ConversionOptions {
  fs::path in, out;
  Recipe recipe;
  int threads = 0;       // 0 = one per core
  bool restart = false;  // forget what an earlier process has done
  fs::path snapshot;     // if not empty: write the model as it was last saved there, and do nothing else
  /// Asked between pieces of work; true: save and throw Error(cancelled).
  std::function<bool()> stop;
  std::function<void(const ConversionProgress&)> progress;
};

/// Runs the recipe, or what is left of it, and writes `out`, a folder that must be absent or empty. Returns
/// the summary that is also out/conversion.json: {"original", "stages": [{"kind", "layers", "ppl_before",
/// "ppl_after", "seconds", ...}], "ppl", "tokens", "seconds"}. A run that was stopped and resumed gives the
/// same bits as one that was not, for equal numbers of threads. With `snapshot`, the summary is of the stages
/// that are finished, and says where the next one stands: "unfinished". Throws Error: not_found (nothing is
/// saved that could be a snapshot), invalid_argument (the recipe
/// does not go with the model, `out` is taken), mismatch (the state beside `out` is another conversion's),
/// cancelled, corrupt (a loss that is not finite), io, and what opening `in` and the texts throws.
Json convert_model(const ConversionOptions& options);

}  // namespace mneme::train
