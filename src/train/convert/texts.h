// The texts of a conversion, as tokens of the model's own tokenizer: what is trained on as shards (shards.h)
// in a folder, what is held out as one list in memory, cut short at what is asked for.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>

#include "mneme/tokenizer.h"
#include "train/convert/quality.h"
#include "train/convert/recipe.h"
#include "train/data/shards.h"

namespace mneme::train {

struct ConversionTexts {
  std::optional<ShardSet> train;
  HeldOut held_out;

  /// Sequences [first, first + count) of an order that `seed` decides: inputs and, one place on, targets,
  /// both int64 [count, length].
  struct Batch {
    Tensor tokens, targets;
  };
  Batch batch(uint64_t first, uint32_t count, uint32_t length, uint64_t seed) const;
};

/// Throws Error(invalid_argument) for too little text, Error(cancelled), what build_shards() throws, and
/// Error(not_found) for texts without a tokenizer (null).
ConversionTexts open_texts(const Recipe& recipe, const Tokenizer* tokenizer, const fs::path& folder,
                           int threads, const Tick& tick);

}  // namespace mneme::train
