// The recipe of a calibration (docs/spikes.md): a file of `mneme convert --recipe` whose only stage is of
// kind "calibrate". Every other kind is a training stage, and the trainer's to read.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/file.h"
#include "mneme/model_config.h"

namespace mneme {

struct CalibrationRecipe {
  std::vector<fs::path> train;       // texts to calibrate on
  std::vector<fs::path> validation;  // held-out texts; empty: what `train` has after the tokens that it gives
  uint32_t context = 512;            // tokens of a window of every perplexity
  uint64_t held_out = 32768;         // tokens, at most
  uint64_t tokens = 16384;           // of `train`, at most
  double budget = 0.02;              // more perplexity, as part of what it was
  uint64_t probe_tokens = 1024;
  uint32_t rounds = 1;
  bool share = true;
  std::vector<Projection> projections;  // empty: all that can be
  std::vector<double> ks;               // empty: the usual ones
  std::vector<double> curve;
  std::string weights;  // "q8_0": what the weights of a float checkpoint become; "": as stored

  /// The recipe, or nothing if no stage of the file is of kind "calibrate" or the file is not a list of
  /// stages at all (the trainer says what is wrong with it). Relative paths are made relative to `folder`.
  /// Throws Error(corrupt) for malformed JSON, and Error(invalid_argument) for unknown, missing or
  /// contradictory fields, or a calibration among other stages.
  static std::optional<CalibrationRecipe> from_json(std::string_view json, const fs::path& folder,
                                                    std::string_view name);
  static std::optional<CalibrationRecipe> load(const fs::path& file);
};

}  // namespace mneme
